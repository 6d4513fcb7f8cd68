/* The space-mixing half of a trained ConvMixer block in one pass over the image, channels last, for inference.
 *
 * Compiled with -DK=<kernel size> -DSTORAGE_<type> and -DGELU or -DRELU.
 */
#include "strip.h"
#include "activation.h"

INLINE vec load_channels(const real *p, int64_t lanes) {
    vec v = {0};
    memcpy(&v, p, (size_t)lanes * sizeof *p);
    return v;
}

/* y = carry * x + scale * act(bias + convolution of x) + shift, everything but x, y and weights per channel.
 * Outside the image x has the value `pad` of its channel. Returns 0, or -1 where there was no memory. */
int mix(const stored *x, const stored *weights, const real *bias, const stored *pad, const real *carry, const real *scale, const real *shift,
        stored *y, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t before, int threads) {
    int64_t columns = padded_width(width), rows = strip_rows(height, width), strips = (height + rows - 1) / rows;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        operand *buffer = aligned_alloc(VECTOR_BYTES, (size_t)((rows + K - 1) * columns) * sizeof(operand));
        if (!buffer) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < batch * strips; unit++) {
            if (!buffer) continue;
            int64_t first = unit % strips * rows, count = height - first < rows ? height - first : rows;
            const stored *image = x + unit / strips * height * width * channels;
            stored *out = y + (unit / strips * height + first) * width * channels;
            for (int64_t c = 0; c < channels; c += LANES) {
                int64_t lanes = channels - c < LANES ? channels - c : LANES;
                operand taps[K * TAPS];
                load_taps(taps, weights + c, channels, lanes);
                fill(buffer, image + c, load_pad(pad + c, lanes), first, count + K - 1, before, height, width, channels, lanes);
                vec offset = load_channels(bias + c, lanes), of_x = load_channels(carry + c, lanes);
                vec of_act = load_channels(scale + c, lanes), constant = load_channels(shift + c, lanes);
                for (int64_t r = 0; r < count; r++)
                    for (int64_t w = 0; w < width; w += TILE) {
                        const operand *corner = buffer + r * columns + w, *centre = corner + before * columns + before;
                        prefetch_channels(image + ((first + r) * width + w) * channels + c, channels);
                        prefetch_channels(out + (r * width + w) * channels + c, channels);
                        vec sums[TILE];
                        for (int t = 0; t < TILE; t++) sums[t] = offset;
                        convolve_tile(sums, corner, columns, taps);
                        int64_t valid = width - w < TILE ? width - w : TILE;
                        stored *to = out + (r * width + w) * channels + c;
                        for (int64_t t = 0; t < valid; t++) {
                            vec mixed = act(sums[t]) * of_act + constant + left_of(centre[t]) * of_x;
                            if (lanes == LANES)
                                store(to + t * channels, mixed);
                            else
                                store_some(to + t * channels, mixed, lanes);
                        }
                    }
            }
        }
        free(buffer);
    }
    return failed ? -1 : 0;
}

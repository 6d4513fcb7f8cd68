/* Depthwise convolution at stride 1 and its weight gradient, channels last: one library per kernel size and storage type, and with -DGELU or
 * -DRELU one that also does what stands between the convolution and the next layer of a trained ConvMixer. */
#include "strip.h"
#if defined(GELU) || defined(RELU)
#define EPILOGUE
#include "activation.h"
#endif

#define SUMS (K * K + 1) /* per channel: one for every weight, and the bias */

INLINE vec load_channels(const real *p, int64_t lanes) {
    vec v = {0};
    if (p) memcpy(&v, p, (size_t)lanes * sizeof *p);
    return v;
}

/* sum = bias[c] + sum over i,j of weights[i,j,c] * x[b, h+i-before, w+j-before, c], x having the value pad[c] outside the image.
 * y[b,h,w,c] = sum; with -DGELU or -DRELU carry * x + scale * act(sum) + shift, per channel. Arrays of channels that are NULL are zero.
 * Returns 0, or -1 where there was no memory. */
int convolve(const stored *x, const stored *weights, const real *bias, const stored *pad, const real *carry, const real *scale,
             const real *shift, stored *y, int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t before, int threads) {
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
                fill(buffer, image + c, load_pad(pad ? pad + c : NULL, lanes), first, count + K - 1, before, height, width, channels, lanes);
                vec offset = load_channels(bias ? bias + c : NULL, lanes);
#if defined(EPILOGUE)
                vec of_x = load_channels(carry + c, lanes), of_act = load_channels(scale + c, lanes), constant = load_channels(shift + c, lanes);
#endif
                for (int64_t r = 0; r < count; r++)
                    for (int64_t w = 0; w < width; w += TILE) {
                        const operand *corner = buffer + r * columns + w;
                        prefetch_channels(image + ((first + r) * width + w) * channels + c, channels);
                        prefetch_channels(out + (r * width + w) * channels + c, channels);
                        vec sums[TILE];
                        for (int t = 0; t < TILE; t++) sums[t] = offset;
                        convolve_tile(sums, corner, columns, taps);
#if defined(EPILOGUE)
                        const operand *centre = corner + before * columns + before;
                        for (int t = 0; t < TILE; t++) sums[t] = act(sums[t]) * of_act + constant + left_of(centre[t]) * of_x;
#endif
                        int64_t valid = width - w < TILE ? width - w : TILE;
                        stored *to = out + (r * width + w) * channels + c;
                        if (lanes == LANES)
                            for (int64_t t = 0; t < valid; t++) store(to + t * channels, sums[t]);
                        else
                            for (int64_t t = 0; t < valid; t++) store_some(to + t * channels, sums[t], lanes);
                    }
            }
        }
        free(buffer);
    }
    return failed ? -1 : 0;
}

/* What one row of dy, as operands of STEP columns, adds to the sums of one row of the kernel. */
INLINE void correlate_row(vec *row_sums, const operand *row, const operand *slopes, int64_t width) {
    vec sums[K];
    for (int j = 0; j < K; j++) sums[j] = row_sums[j];
    for (int64_t w = 0; w < width; w += TILE) {
        operand d[TILE / STEP];
        for (int t = 0; t < TILE / STEP; t++) d[t] = slopes[w + t * STEP];
#pragma GCC unroll 64
        for (int u = 0; u < TILE + K - 1 - (STEP - 1); u++) {
            operand in = row[w + u];
#pragma GCC unroll 64
            for (int j = 0; j < K; j++)
                if (u - j >= 0 && u - j < TILE && (u - j) % STEP == 0) sums[j] = multiply_add(sums[j], in, d[(u - j) / STEP]);
        }
    }
    for (int j = 0; j < K; j++) row_sums[j] = sums[j];
}

/* The gradients of weights and bias, in K*K + 1 rows per group of images:
 * partial[g,i*K+j,c] = sum over the group's images and all h, w of dy[b,h,w,c] * x[b, h+i-before, w+j-before, c]; partial[g,K*K,c] = sum of dy.
 *
 * The images are cut into `groups` whatever the number of threads, and every group sums in a fixed order, so the bits never change.
 * Returns 0, or -1 where there was no memory. */
int weight_gradient(const stored *x, const stored *dy, real *partial, int64_t batch, int64_t height, int64_t width, int64_t channels,
                    int64_t before, int64_t groups, int threads) {
    int64_t chunks = (channels + LANES - 1) / LANES, columns = padded_width(width), rows = strip_rows(height, width);
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        operand *buffer = aligned_alloc(VECTOR_BYTES, (size_t)((rows + K - 1) * columns) * sizeof(operand));
        operand *slopes = aligned_alloc(VECTOR_BYTES, (size_t)columns * sizeof(operand));
        vec *total = aligned_alloc(VECTOR_BYTES, (size_t)(chunks * SUMS) * sizeof(vec));
        int ready = buffer && slopes && total;
        if (!ready) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t g = 0; g < groups; g++) {
            if (!ready) continue;
            memset(total, 0, (size_t)(chunks * SUMS) * sizeof(vec));
            for (int64_t b = g * batch / groups; b < (g + 1) * batch / groups; b++)
                for (int64_t first = 0; first < height; first += rows)
                    for (int64_t chunk = 0; chunk < chunks; chunk++) {
                        int64_t c = chunk * LANES, lanes = channels - c < LANES ? channels - c : LANES;
                        int64_t count = height - first < rows ? height - first : rows, image = b * height * width * channels + c;
                        vec strip[SUMS]; /* summed apart, for the accuracy of short sums */
                        memset(strip, 0, sizeof strip);
                        fill(buffer, x + image, load_pad(NULL, lanes), first, count + K - 1, before, height, width, channels, lanes);
                        for (int64_t r = 0; r < count; r++) {
                            for (int64_t w = 0; w < width; w += TILE) {
                                prefetch_channels(x + image + ((first + r) * width + w) * channels, channels);
                                prefetch_channels(dy + image + ((first + r) * width + w) * channels, channels);
                            }
                            const stored *slope_row = dy + image + (first + r) * width * channels;
                            fill_row(slopes, slope_row, load_pad(NULL, lanes), columns, 0, width, channels, lanes);
                            for (int i = 0; i < K; i++) correlate_row(strip + i * K, buffer + (r + i) * columns, slopes, width);
                            for (int64_t w = 0; w < width; w += STEP) strip[K * K] = multiply_add(strip[K * K], slopes[w], one());
                        }
                        for (int t = 0; t < SUMS; t++) total[chunk * SUMS + t] += strip[t];
                    }
            for (int64_t chunk = 0; chunk < chunks; chunk++) {
                int64_t c = chunk * LANES, lanes = channels - c < LANES ? channels - c : LANES;
                for (int t = 0; t < SUMS; t++)
                    memcpy(partial + (g * SUMS + t) * channels + c, &total[chunk * SUMS + t], (size_t)lanes * sizeof(real));
            }
        }
        free(buffer);
        free(slopes);
        free(total);
    }
    return failed ? -1 : 0;
}

/* Depthwise convolution at stride 1 and its weight gradient, channels last: one library per kernel size and storage type, and with -DGELU or
 * -DRELU one that also does what stands between the convolution and the next layer of a trained ConvMixer. */
#include "strip.h"
#if defined(GELU) || defined(RELU)
#define EPILOGUE
#include "activation.h"
#endif

#define SUMS (K * K + 1) /* per channel: one for every weight, and the bias */

/* The numbers of a unit's channels, part by part; zeros where `p` is NULL. */
INLINE void load_channels(vec *parts, const real *p, int64_t lanes) {
    for (int part = 0; part < PARTS; part++) parts[part] = (vec){0};
    if (p) split(parts, p, lanes);
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
        operand *buffer = aligned_alloc(VECTOR_BYTES, (size_t)((rows + K - 1) * columns * PARTS) * sizeof(operand));
        if (!buffer) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t strip = 0; strip < batch * strips; strip++) {
            if (!buffer) continue;
            int64_t first = strip % strips * rows, count = height - first < rows ? height - first : rows;
            const stored *image = x + strip / strips * height * width * channels;
            stored *out = y + (strip / strips * height + first) * width * channels;
            for (int64_t c = 0; c < channels; c += UNIT) {
                int64_t lanes = channels - c < UNIT ? channels - c : UNIT;
                operand taps[K * TAPS * PARTS];
                load_taps(taps, weights + c, channels, lanes);
                fill(buffer, image + c, load_pad(pad ? pad + c : NULL, lanes), first, count + K - 1, before, height, width, channels, lanes);
                vec offset[PARTS];
                load_channels(offset, bias ? bias + c : NULL, lanes);
#if defined(EPILOGUE)
                vec of_x[PARTS], of_act[PARTS], constant[PARTS];
                load_channels(of_x, carry + c, lanes), load_channels(of_act, scale + c, lanes), load_channels(constant, shift + c, lanes);
#endif
                for (int64_t r = 0; r < count; r++)
                    for (int64_t w = 0; w < width; w += TILE) {
                        const operand *corner = buffer + (r * columns + w) * PARTS;
                        prefetch_channels(image + ((first + r) * width + w) * channels + c, channels);
                        prefetch_channels(out + (r * width + w) * channels + c, channels);
                        vec tile[TILE][PARTS];
                        for (int part = 0; part < PARTS; part++) {
                            vec sums[TILE];
                            for (int t = 0; t < TILE; t++) sums[t] = offset[part];
                            convolve_tile(sums, corner + part, columns, taps + part);
#if defined(EPILOGUE)
                            const operand *centre = corner + (before * columns + before) * PARTS + part;
                            for (int t = 0; t < TILE; t++)
                                sums[t] = act(sums[t]) * of_act[part] + constant[part] + left_of(centre[t * PARTS]) * of_x[part];
#endif
                            for (int t = 0; t < TILE; t++) tile[t][part] = sums[t];
                        }
                        int64_t valid = width - w < TILE ? width - w : TILE;
                        stored *to = out + (r * width + w) * channels + c;
                        if (lanes == UNIT)
                            for (int64_t t = 0; t < valid; t++) store_unit(to + t * channels, tile[t], UNIT);
                        else
                            for (int64_t t = 0; t < valid; t++) store_unit(to + t * channels, tile[t], lanes);
                    }
            }
        }
        free(buffer);
    }
    return failed ? -1 : 0;
}

#define TOGETHER (K <= 9 ? 2 : 1) /* rows of the kernel whose sums stay in registers: enough that no sum waits for its last addition */

/* What one row of dy, as operands of STEP columns, adds to one part of the sums of `rows` rows of the kernel, whose rows of x lie
 * `columns` apart. */
INLINE void correlate_rows(vec *row_sums, const operand *x, const operand *slopes, int64_t width, int64_t columns, int rows) {
    vec sums[2 * K];
    for (int n = 0; n < rows * K; n++) sums[n] = row_sums[n * PARTS];
    for (int64_t w = 0; w < width; w += TILE) {
        operand d[TILE / STEP];
        for (int t = 0; t < TILE / STEP; t++) d[t] = slopes[(w + t * STEP) * PARTS];
#pragma GCC unroll 2
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 64
            for (int u = 0; u < TILE + K - 1 - (STEP - 1); u++) {
                operand in = x[(i * columns + w + u) * PARTS];
#pragma GCC unroll 64
                for (int j = 0; j < K; j++)
                    if (u - j >= 0 && u - j < TILE && (u - j) % STEP == 0)
                        sums[i * K + j] = multiply_add(sums[i * K + j], in, d[(u - j) / STEP]);
            }
    }
    for (int n = 0; n < rows * K; n++) row_sums[n * PARTS] = sums[n];
}

/* The sum of one part of a row of dy, which is zero from `width` to whole tiles. */
INLINE vec sum_of_row(const operand *slopes, int64_t width) {
    vec sums[TILE / STEP] = {{0}}, total = {0};
    for (int64_t w = 0; w < width; w += TILE)
        for (int t = 0; t < TILE / STEP; t++) sums[t] = multiply_add(sums[t], slopes[(w + t * STEP) * PARTS], one());
    for (int t = 0; t < TILE / STEP; t++) total += sums[t];
    return total;
}

/* The gradients of weights and bias, in K*K + 1 rows per group of images:
 * partial[g,i*K+j,c] = sum over the group's images and all h, w of dy[b,h,w,c] * x[b, h+i-before, w+j-before, c]; partial[g,K*K,c] = sum of dy.
 *
 * The images are cut into `groups` whatever the number of threads, and every group sums in a fixed order, so the bits never change.
 * Returns 0, or -1 where there was no memory. */
int weight_gradient(const stored *x, const stored *dy, real *partial, int64_t batch, int64_t height, int64_t width, int64_t channels,
                    int64_t before, int64_t groups, int threads) {
    int64_t units = (channels + UNIT - 1) / UNIT, columns = padded_width(width), rows = strip_rows(height, width);
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        operand *buffer = aligned_alloc(VECTOR_BYTES, (size_t)((rows + K - 1) * columns * PARTS) * sizeof(operand));
        operand *slopes = aligned_alloc(VECTOR_BYTES, (size_t)(columns * PARTS) * sizeof(operand));
        vec *total = aligned_alloc(VECTOR_BYTES, (size_t)(units * SUMS * PARTS) * sizeof(vec));
        int ready = buffer && slopes && total;
        if (!ready) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t g = 0; g < groups; g++) {
            if (!ready) continue;
            memset(total, 0, (size_t)(units * SUMS * PARTS) * sizeof(vec));
            for (int64_t b = g * batch / groups; b < (g + 1) * batch / groups; b++)
                for (int64_t first = 0; first < height; first += rows)
                    for (int64_t unit = 0; unit < units; unit++) {
                        int64_t c = unit * UNIT, lanes = channels - c < UNIT ? channels - c : UNIT;
                        int64_t count = height - first < rows ? height - first : rows, image = b * height * width * channels + c;
                        vec strip[SUMS * PARTS]; /* summed apart, for the accuracy of short sums */
                        memset(strip, 0, sizeof strip);
                        fill(buffer, x + image, load_pad(NULL, lanes), first, count + K - 1, before, height, width, channels, lanes);
                        for (int64_t r = 0; r < count; r++) {
                            for (int64_t w = 0; w < width; w += TILE) {
                                prefetch_channels(x + image + ((first + r) * width + w) * channels, channels);
                                prefetch_channels(dy + image + ((first + r) * width + w) * channels, channels);
                            }
                            const stored *slope_row = dy + image + (first + r) * width * channels;
                            fill_row(slopes, slope_row, load_pad(NULL, lanes), columns, 0, width, channels, lanes);
                            for (int part = 0; part < PARTS; part++) {
                                const operand *corner = buffer + r * columns * PARTS + part, *d = slopes + part;
                                int i = 0;
                                for (; i + TOGETHER <= K; i += TOGETHER)
                                    correlate_rows(strip + i * K * PARTS + part, corner + i * columns * PARTS, d, width, columns, TOGETHER);
                                for (; i < K; i++)
                                    correlate_rows(strip + i * K * PARTS + part, corner + i * columns * PARTS, d, width, columns, 1);
                                strip[K * K * PARTS + part] += sum_of_row(d, width);
                            }
                        }
                        for (int t = 0; t < SUMS * PARTS; t++) total[unit * SUMS * PARTS + t] += strip[t];
                    }
            for (int64_t unit = 0; unit < units; unit++) {
                int64_t c = unit * UNIT, lanes = channels - c < UNIT ? channels - c : UNIT;
                for (int t = 0; t < SUMS; t++)
                    unsplit(partial + (g * SUMS + t) * channels + c, total + (unit * SUMS + t) * PARTS, lanes);
            }
        }
        free(buffer);
        free(slopes);
        free(total);
    }
    return failed ? -1 : 0;
}

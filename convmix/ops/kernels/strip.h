/* Strips: rows of one image and LANES channels in a bordered buffer, from which tiles of outputs are convolved with their sums in registers.
 *
 * Compiled with -DK=<kernel size> -DSTORAGE_<type>. Images are H,W,C with C contiguous; the border is `before` rows and columns above and left,
 * K-1-before below and right.
 */
#include "lanes.h"
#include <stdlib.h>

/* What one multiply-add takes: a column, or, where the processor has a bf16 dot product, a column and its right neighbour. */
#if defined(STORAGE_BF16) && defined(__AVX512BF16__)
#define STEP 2
typedef __m512bh operand;
INLINE operand join(vec_bits left, vec_bits right) { return (operand)(left | right << 16); }
INLINE vec left_of(operand o) { return (vec)((vec_bits)o << 16); }
INLINE operand one(void) { return join((vec_bits){0} + 0x3F80, (vec_bits){0} + 0x3F80); } /* bf16 1.0 in both halves */
INLINE vec multiply_add(vec sum, operand a, operand b) { return (vec)_mm512_dpbf16_ps((__m512)sum, a, b); }
#else
#define STEP 1
typedef vec operand;
INLINE vec left_of(operand o) { return o; }
INLINE operand one(void) { return splat(1); }
INLINE vec multiply_add(vec sum, operand a, operand b) { return sum + a * b; }
#endif

#define TAPS ((K + STEP - 1) / STEP) /* operands in one row of the kernel */
#define TILE 8                       /* outputs of a row whose sums stay in registers together */
                                     /* Loops over TILE + K - 1 are unrolled whole: gcc 12 miscompiled them in parts. */
#define BUFFER_BYTES (96 * 1024)     /* of a strip: well inside a core's second-level cache */

/* Columns of the buffer: the width in whole tiles, and the border. */
INLINE int64_t padded_width(int64_t width) { return (width + TILE - 1) / TILE * TILE + K - 1; }

static int64_t strip_rows(int64_t height, int64_t width) {
    int64_t rows = BUFFER_BYTES / ((int64_t)sizeof(operand) * padded_width(width)) - (K - 1);
    rows = rows < 1 ? 1 : rows;
    return rows < height ? rows : height;
}

/* An operand of the value that stands outside the image: one per channel, or zero where `pad` is NULL. */
INLINE operand load_pad(const stored *pad, int64_t lanes) {
    if (!pad) return (operand){0};
#if STEP == 2
    return join(load_bits(pad, lanes), load_bits(pad, lanes));
#else
    return load_some(pad, lanes);
#endif
}

/* `count` operands of the row of `width` columns at `from`, the first one `before` columns left of it; a row outside the image is NULL. */
static void fill_row(operand *to, const stored *from, operand outside, int64_t count, int64_t before, int64_t width, int64_t stride,
                     int64_t lanes) {
    int64_t u = 0;
    if (!from) {
        for (; u < count; u++) to[u] = outside;
        return;
    }
    for (; u + STEP <= before; u++) to[u] = outside;
#if STEP == 2
    vec_bits left = (vec_bits)outside & 0xFFFF;
    if (before == 0) left = load_bits(from, lanes), from += stride, width--;
    for (int64_t x = 0; x < width; x++, from += stride) {
        vec_bits right = load_bits(from, lanes);
        to[u++] = join(left, right);
        left = right;
    }
    to[u++] = join(left, (vec_bits)outside & 0xFFFF);
#else
    for (int64_t x = 0; x < width; x++, from += stride) to[u++] = lanes == LANES ? load(from) : load_some(from, lanes);
#endif
    for (; u < count; u++) to[u] = outside;
}

/* The buffer of a strip: rows first-before .. first-before+rows of one image. */
static void fill(operand *buffer, const stored *image, operand outside, int64_t first, int64_t rows, int64_t before, int64_t height,
                 int64_t width, int64_t stride, int64_t lanes) {
    for (int64_t r = 0; r < rows; r++) {
        int64_t y = first + r - before;
        const stored *from = y < 0 || y >= height ? NULL : image + y * width * stride;
        fill_row(buffer + r * padded_width(width), from, outside, padded_width(width), before, width, stride, lanes);
    }
}

/* The kernel of LANES channels; weights K*K,C. */
static void load_taps(operand *taps, const stored *weights, int64_t channels, int64_t lanes) {
    for (int i = 0; i < K; i++)
        for (int j = 0; j < TAPS; j++) {
            const stored *w = weights + (i * K + j * STEP) * channels;
#if STEP == 2
            vec_bits right = {0};
            if (j * STEP + 1 < K) right = load_bits(w + channels, lanes);
            taps[i * TAPS + j] = join(load_bits(w, lanes), right);
#else
            taps[i * TAPS + j] = load_some(w, lanes);
#endif
        }
}

/* Asks for the next cache line of channels of TILE columns: the strides between columns are too long for the processor to foresee. */
INLINE void prefetch_channels(const stored *columns, int64_t channels) {
    for (int64_t t = 0; t < TILE; t++) __builtin_prefetch((const char *)(columns + t * channels) + 64);
}

/* TILE neighbouring outputs of one row, from the K rows of the buffer that start at `buffer`. */
INLINE void convolve_tile(vec *sums, const operand *buffer, int64_t columns, const operand *taps) {
    for (int i = 0; i < K; i++) {
        operand w[TAPS];
        for (int j = 0; j < TAPS; j++) w[j] = taps[i * TAPS + j];
#pragma GCC unroll 64
        for (int u = 0; u < TILE + STEP * (TAPS - 1); u++) {
            operand in = buffer[i * columns + u];
#pragma GCC unroll 64
            for (int j = 0; j < TAPS; j++)
                if (u - STEP * j >= 0 && u - STEP * j < TILE) sums[u - STEP * j] = multiply_add(sums[u - STEP * j], in, w[j]);
        }
    }
}

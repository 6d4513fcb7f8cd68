/* Strips: rows of one image and a unit of channels in a bordered buffer, from which tiles of outputs are convolved with their sums in registers.
 *
 * Compiled with -DK=<kernel size> -DSTORAGE_<type>. Images are H,W,C with C contiguous; the border is `before` rows and columns above and left,
 * K-1-before below and right.
 */
#include "lanes.h"
#include <stdlib.h>

/* A unit is the channels that are done together: PARTS vectors; for bf16 with AVX-512 two, so a whole cache line of 32 channels.
 *
 * What one multiply-add takes is a column of a part's channels, or, with the dot product of bf16, a column and its right neighbour. Zen 4
 * starts one such product a cycle, twice the multiplications of float32; Xeons with AMX one in two cycles, where two of float32 start in
 * each (measured: 0.93 and 0.22 ns at 2 GHz), so that these take float32. */
#if defined(STORAGE_BF16) && defined(__AVX512BW__) && defined(__AVX512BF16__) && !defined(__AMX_TILE__)
#define STEP 2
#else
#define STEP 1
#endif

#if defined(STORAGE_BF16) && defined(__AVX512BW__)
#define PARTS 2
#define UNIT 32
typedef __m512i column;
INLINE __mmask32 first_channels(int64_t lanes) { return (__mmask32)((1ull << lanes) - 1); }
INLINE column load_column(const stored *p, int64_t lanes) {
    return lanes == UNIT ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(first_channels(lanes), p);
}
INLINE void store_column(stored *p, column bits, int64_t lanes) {
    if (lanes == UNIT)
        _mm512_storeu_si512(p, bits);
    else
        _mm512_mask_storeu_epi16(p, first_channels(lanes), bits);
}
#endif

#if STEP == 2 /* the parts: channels 0-3, 8-11, 16-19, 24-27 of a unit, and the others: how the processor interleaves */

typedef __m512bh operand;
INLINE void join(operand *to, column left, column right) {
    to[0] = (operand)_mm512_unpacklo_epi16(left, right);
    to[1] = (operand)_mm512_unpackhi_epi16(left, right);
}
INLINE vec left_of(operand o) { return (vec)((vec_bits)o << 16); }
INLINE operand one(void) { return (operand)_mm512_set1_epi16(0x3F80); } /* bf16 1.0 in both halves */
INLINE vec multiply_add(vec sum, operand a, operand b) { return (vec)_mm512_dpbf16_ps((__m512)sum, a, b); }

/* Numbers of a unit's channels in the parts' order, and back. */
INLINE void split(vec *parts, const real *p, int64_t lanes) {
    vec all[2] = {{0}};
    memcpy(all, p, (size_t)lanes * sizeof *p);
    parts[0] = (vec)_mm512_shuffle_f32x4((__m512)all[0], (__m512)all[1], 0x88);
    parts[1] = (vec)_mm512_shuffle_f32x4((__m512)all[0], (__m512)all[1], 0xDD);
}
INLINE void unsplit(real *p, const vec *parts, int64_t lanes) {
    __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    vec all[2] = {(vec)_mm512_permutex2var_epi64((__m512i)parts[0], first, (__m512i)parts[1]),
                  (vec)_mm512_permutex2var_epi64((__m512i)parts[0], second, (__m512i)parts[1])};
    memcpy(p, all, (size_t)lanes * sizeof *p);
}
INLINE void store_unit(stored *p, const vec *parts, int64_t lanes) {
    __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    store_column(p, _mm512_permutexvar_epi64(order, (__m512i)_mm512_cvtne2ps_pbh((__m512)parts[1], (__m512)parts[0])), lanes);
}

#else

typedef vec operand;
INLINE vec left_of(operand o) { return o; }
INLINE operand one(void) { return splat(1); }
INLINE vec multiply_add(vec sum, operand a, operand b) { return sum + a * b; }

#if defined(PARTS) /* the even channels of a unit, and the odd ones: a shift and a mask bring them apart */

INLINE void join(operand *to, column left, column right) {
    (void)right;
    to[0] = (vec)_mm512_slli_epi32(left, 16);
    to[1] = (vec)((ivec)left & (integer)0xFFFF0000);
}
INLINE void split(vec *parts, const real *p, int64_t lanes) {
    real all[UNIT] = {0};
    memcpy(all, p, (size_t)lanes * sizeof *p);
    for (int i = 0; i < UNIT; i++) parts[i % 2][i / 2] = all[i];
}
INLINE void unsplit(real *p, const vec *parts, int64_t lanes) {
    for (int64_t i = 0; i < lanes; i++) p[i] = parts[i % 2][i / 2];
}
INLINE void store_unit(stored *p, const vec *parts, int64_t lanes) {
#if defined(__AVX512BF16__)
    static const uint16_t ORDER[UNIT] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                         8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    column halves = (column)_mm512_cvtne2ps_pbh((__m512)parts[1], (__m512)parts[0]);
    store_column(p, _mm512_permutexvar_epi16(_mm512_loadu_si512(ORDER), halves), lanes);
#else
    store_column(p, (column)(rounded(parts[0]) >> 16 | (rounded(parts[1]) & 0xFFFF0000)), lanes);
#endif
}

#else

#define PARTS 1
#define UNIT LANES
typedef vec column;
INLINE column load_column(const stored *p, int64_t lanes) { return lanes == LANES ? load(p) : load_some(p, lanes); }
INLINE void join(operand *to, column left, column right) {
    (void)right;
    *to = left;
}
INLINE void split(vec *parts, const real *p, int64_t lanes) {
    *parts = (vec){0};
    memcpy(parts, p, (size_t)lanes * sizeof *p);
}
INLINE void unsplit(real *p, const vec *parts, int64_t lanes) { memcpy(p, parts, (size_t)lanes * sizeof *p); }
INLINE void store_unit(stored *p, const vec *parts, int64_t lanes) {
    if (lanes == LANES)
        store(p, *parts);
    else
        store_some(p, *parts, lanes);
}

#endif
#endif

#define TAPS ((K + STEP - 1) / STEP) /* operands in one row of the kernel */
#define TILE 8                       /* outputs of a row whose sums stay in registers together */
                                     /* Loops over TILE + K - 1 are unrolled whole: gcc 12 miscompiled them in parts. */
#define BUFFER_BYTES (96 * 1024)     /* of a strip: well inside a core's second-level cache */

/* Columns of the buffer: the width in whole tiles, and the border. */
INLINE int64_t padded_width(int64_t width) { return (width + TILE - 1) / TILE * TILE + K - 1; }

static int64_t strip_rows(int64_t height, int64_t width) {
    int64_t rows = BUFFER_BYTES / ((int64_t)sizeof(operand) * PARTS * padded_width(width)) - (K - 1);
    rows = rows < 1 ? 1 : rows;
    return rows < height ? rows : height;
}

/* The value that stands outside the image: one per channel, or zero where `pad` is NULL. */
INLINE column load_pad(const stored *pad, int64_t lanes) { return pad ? load_column(pad, lanes) : (column){0}; }

/* `count` columns of the row of `width` columns at `from`, the first one `before` columns left of it; a row outside the image is NULL. */
static void fill_row(operand *to, const stored *from, column outside, int64_t count, int64_t before, int64_t width, int64_t stride,
                     int64_t lanes) {
    int64_t u = 0;
    if (!from) {
        for (; u < count; u++) join(to + u * PARTS, outside, outside);
        return;
    }
    for (; u + STEP <= before; u++) join(to + u * PARTS, outside, outside);
#if STEP == 2
    column left = outside;
    if (before == 0) left = load_column(from, lanes), from += stride, width--;
    for (int64_t x = 0; x < width; x++, from += stride) {
        column right = load_column(from, lanes);
        join(to + u++ * PARTS, left, right);
        left = right;
    }
    join(to + u++ * PARTS, left, outside);
#else
    for (int64_t x = 0; x < width; x++, from += stride) {
        column here = load_column(from, lanes);
        join(to + u++ * PARTS, here, here);
    }
#endif
    for (; u < count; u++) join(to + u * PARTS, outside, outside);
}

/* The buffer of a strip: rows first-before .. first-before+rows of one image. */
static void fill(operand *buffer, const stored *image, column outside, int64_t first, int64_t rows, int64_t before, int64_t height,
                 int64_t width, int64_t stride, int64_t lanes) {
    for (int64_t r = 0; r < rows; r++) {
        int64_t y = first + r - before;
        const stored *from = y < 0 || y >= height ? NULL : image + y * width * stride;
        fill_row(buffer + r * padded_width(width) * PARTS, from, outside, padded_width(width), before, width, stride, lanes);
    }
}

/* The kernel of a unit; weights K*K,C. */
static void load_taps(operand *taps, const stored *weights, int64_t channels, int64_t lanes) {
    for (int i = 0; i < K; i++)
        for (int j = 0; j < TAPS; j++) {
            const stored *w = weights + (i * K + j * STEP) * channels;
            column right = {0};
            if (j * STEP + 1 < K) right = load_column(w + channels, lanes);
            join(taps + (i * TAPS + j) * PARTS, load_column(w, lanes), right);
        }
}

/* Asks for the next unit of channels of TILE columns: the strides between columns are too long for the processor to foresee. */
INLINE void prefetch_channels(const stored *columns, int64_t channels) {
    for (int64_t t = 0; t < TILE; t++) __builtin_prefetch((const char *)(columns + t * channels) + 64);
}

/* One part of TILE neighbouring outputs of a row, from that part of the K rows of the buffer that start at `buffer`. */
INLINE void convolve_tile(vec *sums, const operand *buffer, int64_t columns, const operand *taps) {
    for (int i = 0; i < K; i++) {
        operand w[TAPS];
        for (int j = 0; j < TAPS; j++) w[j] = taps[(i * TAPS + j) * PARTS];
#pragma GCC unroll 64
        for (int u = 0; u < TILE + STEP * (TAPS - 1); u++) {
            operand in = buffer[(i * columns + u) * PARTS];
#pragma GCC unroll 64
            for (int j = 0; j < TAPS; j++)
                if (u - STEP * j >= 0 && u - STEP * j < TILE) sums[u - STEP * j] = multiply_add(sums[u - STEP * j], in, w[j]);
        }
    }
}

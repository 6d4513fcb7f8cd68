/* 3x3 convolution at stride 1, zero-padded to the same size, by Winograd's F(2x2, 3x3): 16 products where the definition has 36.
 *
 * Compiled with -DNR=<vectors of output channels in registers> -DSTORAGE_<F32 or BF16>. Images are H,W,C with C contiguous. TILES tiles of
 * 2x2 outputs at a time are transformed, multiplied (16 small matrix products) and transformed back without leaving the core's cache.
 * Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308, section 4.1.
 */
#include "lanes.h"
#include <stdlib.h>

#define TILES 48     /* a multiple of every MR */
#define MR (24 / NR) /* tiles whose sums stay in registers together, with NR vectors each */
#define NB (NR * LANES)

#if defined(STORAGE_BF16) && defined(__AVX512BF16__)
#define STEP 2 /* input channels in one multiply-add */
typedef stored element;
INLINE void store_element(element *p, vec v) { store(p, v); }
INLINE vec multiply_add(vec sum, const element *a, const element *b) {
    int32_t pair;
    memcpy(&pair, a, sizeof pair);
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_load_si512(b));
}
#else
#define STEP 1
typedef real element;
INLINE void store_element(element *p, vec v) { memcpy(p, &v, sizeof v); }
INLINE vec multiply_add(vec sum, const element *a, const element *b) { return sum + splat(*a) * *(const vec *)b; }
#endif

typedef struct {
    int64_t height, width, channels, outputs, across, down; /* across, down: tiles of an image */
} sizes;

/* What is subtracted and added along one side of a tile: B^T d. */
INLINE void into(vec *to, vec a, vec b, vec c, vec d) { to[0] = a - c, to[1] = b + c, to[2] = c - b, to[3] = b - d; }

/* The 4x4 pixels around tile `t`, transformed: 16 planes of TILES x channels. */
static void transform_tile(element *to, const stored *x, int64_t t, const sizes *s) {
    int64_t top = t / s->across % s->down * 2 - 1, left = t % s->across * 2 - 1;
    const stored *image = x + t / (s->across * s->down) * s->height * s->width * s->channels;
    for (int64_t c = 0; c < s->channels; c += LANES) {
        vec columns[4][4];
        for (int j = 0; j < 4; j++) {
            vec d[4];
            for (int i = 0; i < 4; i++) {
                int64_t h = top + i, w = left + j;
                int inside = h >= 0 && h < s->height && w >= 0 && w < s->width;
                d[i] = inside ? load(image + (h * s->width + w) * s->channels + c) : splat(0);
            }
            into(columns[j], d[0], d[1], d[2], d[3]);
        }
        for (int i = 0; i < 4; i++) {
            vec row[4];
            into(row, columns[0][i], columns[1][i], columns[2][i], columns[3][i]);
            for (int j = 0; j < 4; j++) store_element(to + (i * 4 + j) * TILES * s->channels + c, row[j]);
        }
    }
}

/* products TILES,NB = inputs TILES,channels * weights channels/STEP,NB,STEP */
static void multiply(real *products, const element *inputs, const element *weights, int64_t channels) {
    for (int64_t m = 0; m < TILES; m += MR) {
        vec sums[MR][NR];
        for (int r = 0; r < MR; r++)
            for (int n = 0; n < NR; n++) sums[r][n] = splat(0);
        const element *row = inputs + m * channels;
        for (int64_t c = 0; c < channels; c += STEP)
#pragma GCC unroll 24
            for (int r = 0; r < MR; r++)
#pragma GCC unroll 4
                for (int n = 0; n < NR; n++)
                    sums[r][n] = multiply_add(sums[r][n], row + r * channels + c, weights + c * NB + n * LANES * STEP);
        for (int r = 0; r < MR; r++)
            for (int n = 0; n < NR; n++) memcpy(products + (m + r) * NB + n * LANES, &sums[r][n], sizeof(vec));
    }
}

/* The 2x2 outputs of tile `t`, NB channels of them: A^T m A + bias. */
static void store_tile(stored *y, const real *products, const real *bias, int64_t t, int relu, const sizes *s) {
    int64_t top = t / s->across % s->down * 2, left = t % s->across * 2;
    stored *image = y + t / (s->across * s->down) * s->height * s->width * s->outputs;
    for (int n = 0; n < NR; n++) {
        vec rows[2][4], offset;
        memcpy(&offset, bias + n * LANES, sizeof offset);
        for (int j = 0; j < 4; j++) {
            vec m[4];
            for (int i = 0; i < 4; i++) memcpy(&m[i], products + (i * 4 + j) * TILES * NB + n * LANES, sizeof(vec));
            rows[0][j] = m[0] + m[1] + m[2];
            rows[1][j] = m[1] - m[2] - m[3];
        }
        for (int i = 0; i < 2; i++) {
            vec *r = rows[i], out[2] = {r[0] + r[1] + r[2] + offset, r[1] - r[2] - r[3] + offset};
            for (int j = 0; j < 2; j++)
                if (top + i < s->height && left + j < s->width) {
                    vec v = relu ? (vec)((ivec)out[j] & ~(ivec)(out[j] < splat(0))) : out[j];
                    store(image + ((top + i) * s->width + left + j) * s->outputs + n * LANES, v);
                }
        }
    }
}

/* What the caller lays the weights out for: input channels per multiply-add, and output channels per block. */
int step(void) { return STEP; }
int block(void) { return (int)NB; }
int lanes(void) { return (int)LANES; }

/* y B,H,W,outputs = x B,H,W,channels * weights outputs/NB,16,channels/STEP,NB,STEP + bias outputs; channels % LANES == 0, outputs % NB == 0,
 * weights aligned to VECTOR_BYTES. Returns 0, or -1 where there was no memory. */
int winograd(const stored *x, const element *weights, const real *bias, stored *y, int64_t batch, int64_t height, int64_t width,
             int64_t channels, int64_t outputs, int relu, int threads) {
    sizes s = {height, width, channels, outputs, (width + 1) / 2, (height + 1) / 2};
    int64_t tiles = batch * s.across * s.down;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        element *inputs = aligned_alloc(VECTOR_BYTES, (size_t)(16 * TILES * channels) * sizeof(element));
        real *products = aligned_alloc(VECTOR_BYTES, (size_t)(16 * TILES * NB) * sizeof(real));
        if (!inputs || !products) {
#pragma omp atomic write
            failed = 1;
        } else
            memset(inputs, 0, (size_t)(16 * TILES * channels) * sizeof(element));
#pragma omp for schedule(static)
        for (int64_t first = 0; first < tiles; first += TILES) {
            if (!inputs || !products) continue;
            int64_t count = tiles - first < TILES ? tiles - first : TILES;
            for (int64_t t = 0; t < count; t++) transform_tile(inputs + t * channels, x, first + t, &s);
            for (int64_t n = 0; n < outputs; n += NB) {
                for (int p = 0; p < 16; p++)
                    multiply(products + p * TILES * NB, inputs + p * TILES * channels, weights + (n / NB * 16 + p) * channels * NB, channels);
                for (int64_t t = 0; t < count; t++) store_tile(y + n, products + t * NB, bias + n, first + t, relu, &s);
            }
        }
        free(inputs);
        free(products);
    }
    return failed ? -1 : 0;
}

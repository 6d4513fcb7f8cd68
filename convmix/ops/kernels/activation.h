/* GELU and ReLU with their slopes, on vectors; chosen with -DGELU or -DRELU. */
#include <math.h>

#if defined(RELU)

/* Not x > 0: a NaN stays one, so that a training that diverges is seen to. */
INLINE vec act(vec x) { return (vec)((ivec)x & ~(x <= 0)); }
INLINE vec act_slope(vec x) { return (vec)((ivec)splat(1) & ~(x <= 0)); }

/* Both at once share their work where the activation is expensive. */
INLINE vec act_and_slope(vec x, vec *slope) {
    *slope = act_slope(x);
    return act(x);
}

#elif defined(STORAGE_BF16) && defined(__AVX512F__)

/* x * Phi(x) and its slope, from 16 parabolas over |x| whose coefficients stay in registers: half the time of any formula.
 *
 * Both are 0.5 plus an odd function that has reached 0.5 at the edge. Within 6e-5 and 2e-4 of the exact ones (tested), less than half of what
 * bf16 rounds away at 0.1. */
#define CELL 0.28f            /* width of a parabola; the first is centred on zero, so covers half of it */
#define EDGE (15.4999f * CELL) /* beyond it the odd functions are +-0.5; just inside the last cell, which a half would round out of */

typedef struct { float constant[16], linear[16], square[16]; } parabolas;
static parabolas value_table, slope_table;

static double odd_value(double x) { return 0.5 * erf(x * 0.70710678118654752440); }
static double odd_slope(double x) { return odd_value(x) + x * 0.39894228040143267794 * exp(-0.5 * x * x); }

/* Parabolas through three Chebyshev nodes of each cell; the last one ends in exactly 0.5. */
static void fit(parabolas *table, double (*f)(double)) {
    for (int k = 0; k < 16; k++) {
        double reach = 0.5 * CELL * (k < 15 ? 0.86602540378443864676 : 1), centre = k * (double)CELL;
        double low = f(centre - reach), mid = f(centre), high = k < 15 ? f(centre + reach) : 0.5;
        double c2 = (high - 2 * mid + low) / (2 * reach * reach), c1 = (high - low) / (2 * reach);
        table->constant[k] = (float)(mid - c1 * centre + c2 * centre * centre);
        table->linear[k] = (float)(c1 - 2 * c2 * centre);
        table->square[k] = (float)c2;
    }
}

__attribute__((constructor)) static void fit_tables(void) {
    fit(&value_table, odd_value);
    fit(&slope_table, odd_slope);
}

INLINE vec magnitude(vec x) { return (vec)((ivec)x & 0x7FFFFFFF); }
INLINE vec up_to_edge(vec size) { return (vec)_mm512_min_ps((__m512)size, (__m512)splat(EDGE)); }

/* Adding 1.5 * 2^23 rounds to a whole number, which is then in the lowest bits. */
INLINE __m512i cell_of(vec size) { return (__m512i)(size * splat(1 / CELL) + splat(12582912.0f)); }

INLINE vec parabola(const parabolas *table, vec size, __m512i cell) {
    vec c0 = (vec)_mm512_permutexvar_ps(cell, _mm512_loadu_ps(table->constant));
    vec c1 = (vec)_mm512_permutexvar_ps(cell, _mm512_loadu_ps(table->linear));
    vec c2 = (vec)_mm512_permutexvar_ps(cell, _mm512_loadu_ps(table->square));
    return (c2 * size + c1) * size + c0;
}

INLINE vec act(vec x) {
    vec size = magnitude(x), inside = up_to_edge(size);
    return size * parabola(&value_table, inside, cell_of(inside)) + splat(0.5f) * x;
}

INLINE vec act_and_slope(vec x, vec *slope) {
    vec size = magnitude(x), inside = up_to_edge(size);
    __m512i cell = cell_of(inside);
    vec odd = parabola(&slope_table, inside, cell);
    *slope = splat(0.5f) + (vec)((ivec)odd ^ ((ivec)x & INT32_MIN));
    return size * parabola(&value_table, inside, cell) + splat(0.5f) * x;
}

#else

#if defined(STORAGE_F64)

INLINE vec act_and_slope(vec x, vec *slope) {
    vec value;
    for (int i = 0; i < LANES; i++) {
        double phi = 0.5 * erfc(-x[i] * 0.70710678118654752440);
        value[i] = x[i] * phi;
        (*slope)[i] = phi + x[i] * 0.39894228040143267794 * exp(-0.5 * x[i] * x[i]);
    }
    return value;
}

#else

/* e^x for x <= 0: 2^n times a polynomial of the rest; below -87 it is 0. */
INLINE vec exp_of_negative(vec x) {
    ivec normal = x > splat(-87.0f);
    x = (vec)((ivec)x & normal);
    vec n = x * splat(1.44269504f) + splat(12582912.0f); /* adding 1.5 * 2^23 rounds to a whole number */
    ivec whole = (ivec)n - (ivec)splat(12582912.0f);
    n -= splat(12582912.0f);
    vec r = x - n * splat(0.693359375f) + n * splat(2.12194440e-4f);
    vec p = splat(1.9875691500e-4f);
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    p = p * r * r + r + splat(1.0f);
    return (vec)(((ivec)p + (whole << 23)) & normal);
}

/* Phi by Abramowitz and Stegun 7.1.26, whose error in erf is below 1.5e-7. */
INLINE vec act_and_slope(vec x, vec *slope) {
    vec z = (vec)((ivec)x & 0x7FFFFFFF) * splat(0.70710678f); /* |x| / sqrt 2 */
    vec bell = exp_of_negative(-z * z);
    vec t = splat(1.0f) / (splat(1.0f) + splat(0.3275911f) * z);
    vec p = splat(1.061405429f);
    p = p * t + splat(-1.453152027f);
    p = p * t + splat(1.421413741f);
    p = p * t + splat(-0.284496736f);
    p = p * t + splat(0.254829592f);
    vec tail = splat(0.5f) * p * t * bell; /* Phi(-|x|) */
    ivec negative = x < 0;
    vec phi = (vec)(((ivec)tail & negative) | ((ivec)(splat(1.0f) - tail) & ~negative));
    *slope = phi + x * splat(0.39894228f) * bell;
    return x * phi;
}

#endif

INLINE vec act(vec x) {
    vec slope;
    return act_and_slope(x, &slope);
}

#endif

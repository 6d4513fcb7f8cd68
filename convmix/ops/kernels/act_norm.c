/* Activation, then BatchNorm over the rows, with an optional residual: forward and backward in two passes each over the saved input.
 *
 * Compiled with -DGELU or -DRELU and -DSTORAGE_<type>. u, y, dy, du: rows,C of the storage type with C contiguous; everything per channel is of the
 * compute type. The activation is computed again in every pass, which costs less than the memory traffic of keeping it.
 */
#include "lanes.h"
#include "activation.h"
#include <stdlib.h>

#define GROUPS 64 /* parts of the rows that are summed on their own: more than any processor of today needs threads */
#define BLOCK 64 /* rows between two additions to a group's sums: short sums are accurate, and their rows stay in the cache */

INLINE vec load_lanes(const stored *p, int64_t lanes) { return lanes == LANES ? load(p) : load_some(p, lanes); }

INLINE void store_lanes(stored *p, vec v, int64_t lanes) {
    if (lanes == LANES)
        store(p, v);
    else
        store_some(p, v, lanes);
}

INLINE vec load_real(const real *p, int64_t lanes) {
    vec v = {0};
    memcpy(&v, p, (size_t)lanes * sizeof *p);
    return v;
}

INLINE void add_to(real *p, vec v, int64_t lanes) {
    vec sum = load_real(p, lanes) + v;
    memcpy(p, &sum, (size_t)lanes * sizeof *p);
}

#define WIDE 4 /* vectors that lie side by side and are done together: whole cache lines, which the processor then fetches ahead */

/* Calls body(from, to, c, lanes, wide) for blocks of rows and `wide` vectors of `lanes` channels each: WIDE whole ones where there are as many,
 * else one, the last of which may be a part. Constants where the body is inlined, so that its loops over vectors are unrolled. */
#define FOR_BLOCKS(first, last, channels, body)                                                   \
    for (int64_t from = (first), to; from < (last); from = to) {                                  \
        int64_t c = 0;                                                                            \
        to = from + BLOCK < (last) ? from + BLOCK : (last);                                       \
        for (; c + WIDE * LANES <= (channels); c += WIDE * LANES) body(from, to, c, LANES, WIDE); \
        for (; c + LANES <= (channels); c += LANES) body(from, to, c, LANES, 1);                  \
        if (c < (channels)) body(from, to, c, (channels) - c, 1);                                 \
    }

/* The mean of act(u) over the first rows. The moments are taken about it: about zero, a mean far above the spread would swallow the spread. */
static void first_mean(const stored *u, real *about, int64_t rows, int64_t channels) {
    int64_t count = rows < BLOCK ? rows : BLOCK;
    for (int64_t c = 0; c < channels; c += LANES) {
        int64_t lanes = channels - c < LANES ? channels - c : LANES;
        vec s = {0};
        for (int64_t r = 0; r < count; r++) s += act(load_lanes(u + r * channels + c, lanes));
        s /= splat((real)count);
        memcpy(about + c, &s, (size_t)lanes * sizeof *about);
    }
}

/* Adds up the groups: out[0,c] and out[1,c] are the means over all rows. */
static void combine(const real *partial, double *out, int64_t rows, int64_t channels, int64_t groups) {
    for (int64_t i = 0; i < 2 * channels; i++) {
        double sum = 0;
        for (int64_t g = 0; g < groups; g++) sum += partial[g * 2 * channels + i];
        out[i] = sum / (double)rows;
    }
}

INLINE void add_moments(const stored *u, const real *about, real *sums, int64_t channels, int64_t from, int64_t to, int64_t c, int64_t lanes,
                        int wide) {
    vec s[WIDE] = {{0}}, q[WIDE] = {{0}}, origin[WIDE];
    for (int i = 0; i < wide; i++) origin[i] = load_real(about + c + i * LANES, lanes);
    for (int64_t r = from; r < to; r++)
        for (int i = 0; i < wide; i++) {
            vec a = act(load_lanes(u + r * channels + c + i * LANES, lanes)) - origin[i];
            s[i] += a;
            q[i] += a * a;
        }
    for (int i = 0; i < wide; i++) {
        add_to(sums + c + i * LANES, s[i], lanes);
        add_to(sums + channels + c + i * LANES, q[i], lanes);
    }
}

/* The sums of a and a^2 for one group of rows, a being act(u) - about. */
static void moments(const stored *u, const real *about, real *sums, int64_t first, int64_t last, int64_t channels) {
    memset(sums, 0, (size_t)(2 * channels) * sizeof *sums);
#define BODY(...) add_moments(u, about, sums, channels, __VA_ARGS__)
    FOR_BLOCKS(first, last, channels, BODY)
#undef BODY
}

INLINE void add_slope_moments(const stored *u, const stored *dy, const real *mean, real *sums, int64_t channels, int64_t from, int64_t to,
                              int64_t c, int64_t lanes, int wide) {
    vec s[WIDE] = {{0}}, p[WIDE] = {{0}}, origin[WIDE];
    for (int i = 0; i < wide; i++) origin[i] = load_real(mean + c + i * LANES, lanes);
    for (int64_t r = from; r < to; r++)
        for (int i = 0; i < wide; i++) {
            int64_t at = r * channels + c + i * LANES;
            vec d = load_lanes(dy + at, lanes);
            s[i] += d;
            p[i] += d * (act(load_lanes(u + at, lanes)) - origin[i]);
        }
    for (int i = 0; i < wide; i++) {
        add_to(sums + c + i * LANES, s[i], lanes);
        add_to(sums + channels + c + i * LANES, p[i], lanes);
    }
}

/* The sums of dy and dy * (act(u) - mean) for one group of rows. */
static void slope_moments(const stored *u, const stored *dy, const real *mean, real *sums, int64_t first, int64_t last, int64_t channels) {
    memset(sums, 0, (size_t)(2 * channels) * sizeof *sums);
#define BODY(...) add_slope_moments(u, dy, mean, sums, channels, __VA_ARGS__)
    FOR_BLOCKS(first, last, channels, BODY)
#undef BODY
}

INLINE void normalise_block(const stored *u, const stored *residual, const real *scale, const real *shift, stored *y, int64_t channels,
                            int64_t from, int64_t to, int64_t c, int64_t lanes, int wide) {
    vec a[WIDE], b[WIDE];
    for (int i = 0; i < wide; i++) a[i] = load_real(scale + c + i * LANES, lanes), b[i] = load_real(shift + c + i * LANES, lanes);
    for (int64_t r = from; r < to; r++)
        for (int i = 0; i < wide; i++) {
            int64_t at = r * channels + c + i * LANES;
            vec v = act(load_lanes(u + at, lanes)) * a[i] + b[i];
            store_lanes(y + at, residual ? v + load_lanes(residual + at, lanes) : v, lanes);
        }
}

/* y = act(u) * scale + shift, and + residual where that is not NULL. */
static void normalise(const stored *u, const stored *residual, const real *scale, const real *shift, stored *y, int64_t first, int64_t last,
                      int64_t channels) {
#define BODY(...) normalise_block(u, residual, scale, shift, y, channels, __VA_ARGS__)
    if (residual) /* known in each loop, so that none asks it for every vector */
        FOR_BLOCKS(first, last, channels, BODY)
    else
        FOR_BLOCKS(first, last, channels, BODY)
#undef BODY
}

INLINE void input_slope_block(const stored *u, const stored *dy, const real *mean, const real *of_dy, const real *of_act, const real *constant,
                              stored *du, int64_t channels, int64_t from, int64_t to, int64_t c, int64_t lanes, int wide) {
    vec p[WIDE], q[WIDE], k[WIDE], origin[WIDE];
    for (int i = 0; i < wide; i++) {
        p[i] = load_real(of_dy + c + i * LANES, lanes), q[i] = load_real(of_act + c + i * LANES, lanes);
        k[i] = load_real(constant + c + i * LANES, lanes), origin[i] = load_real(mean + c + i * LANES, lanes);
    }
    for (int64_t r = from; r < to; r++)
        for (int i = 0; i < wide; i++) {
            int64_t at = r * channels + c + i * LANES;
            vec slope, a = act_and_slope(load_lanes(u + at, lanes), &slope);
            store_lanes(du + at, slope * (p[i] * load_lanes(dy + at, lanes) + q[i] * (a - origin[i]) + k[i]), lanes);
        }
}

/* du = act'(u) * (of_dy * dy + of_act * (act(u) - mean) + constant) */
static void input_slope(const stored *u, const stored *dy, const real *mean, const real *of_dy, const real *of_act, const real *constant,
                        stored *du, int64_t first, int64_t last, int64_t channels) {
#define BODY(...) input_slope_block(u, dy, mean, of_dy, of_act, constant, du, channels, __VA_ARGS__)
    FOR_BLOCKS(first, last, channels, BODY)
#undef BODY
}

/* y = (act(u) - mean) / sqrt(var + eps) * weight + bias, and + residual where that is not NULL; mean and biased var of act(u) over the rows.
 *
 * The rows are cut into GROUPS whatever the number of threads, and summed in a fixed order, so the bits never change. 0, or -1 without memory. */
int forward(const stored *u, const stored *residual, const real *weight, const real *bias, double eps, stored *y, real *mean, real *var,
            int64_t rows, int64_t channels, int threads) {
    real *partial = malloc((size_t)(GROUPS * 2 * channels) * sizeof(real)), *about = malloc((size_t)(3 * channels) * sizeof(real));
    double *means = malloc((size_t)(2 * channels) * sizeof(double));
    int ready = partial && about && means;
    if (ready) {
        real *scale = about + channels, *shift = scale + channels;
        first_mean(u, about, rows, channels);
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(static)
            for (int64_t g = 0; g < GROUPS; g++)
                moments(u, about, partial + g * 2 * channels, g * rows / GROUPS, (g + 1) * rows / GROUPS, channels);
#pragma omp single
            {
                combine(partial, means, rows, channels, GROUPS);
                for (int64_t c = 0; c < channels; c++) {
                    double spread = means[channels + c] - means[c] * means[c];
                    spread = spread < 0 ? 0 : spread;
                    double centre = about[c] + means[c], factor = weight[c] / sqrt(spread + eps);
                    mean[c] = (real)centre;
                    var[c] = (real)spread;
                    scale[c] = (real)factor;
                    shift[c] = (real)(bias[c] - centre * factor);
                }
            }
#pragma omp for schedule(static)
            for (int64_t g = 0; g < GROUPS; g++)
                normalise(u, residual, scale, shift, y, g * rows / GROUPS, (g + 1) * rows / GROUPS, channels);
        }
    }
    free(partial);
    free(about);
    free(means);
    return ready ? 0 : -1;
}

/* The gradients of u, weight and bias from dy; mean and var as `forward` gave them. 0, or -1 without memory. */
int backward(const stored *dy, const stored *u, const real *weight, const real *mean, const real *var, double eps, stored *du, real *dweight,
             real *dbias, int64_t rows, int64_t channels, int threads) {
    real *partial = malloc((size_t)(GROUPS * 2 * channels) * sizeof(real)), *of_dy = malloc((size_t)(3 * channels) * sizeof(real));
    double *means = malloc((size_t)(2 * channels) * sizeof(double));
    int ready = partial && of_dy && means;
    if (ready) {
        real *of_act = of_dy + channels, *constant = of_act + channels;
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(static)
            for (int64_t g = 0; g < GROUPS; g++)
                slope_moments(u, dy, mean, partial + g * 2 * channels, g * rows / GROUPS, (g + 1) * rows / GROUPS, channels);
#pragma omp single
            {
                combine(partial, means, rows, channels, GROUPS);
                for (int64_t c = 0; c < channels; c++) {
                    double inverse = 1 / sqrt(var[c] + eps), of_normed = means[channels + c] * inverse;
                    double factor = weight[c] * inverse;
                    of_dy[c] = (real)factor;
                    of_act[c] = (real)(-factor * inverse * of_normed);
                    constant[c] = (real)(-factor * means[c]);
                    dweight[c] = (real)(of_normed * (double)rows);
                    dbias[c] = (real)(means[c] * (double)rows);
                }
            }
#pragma omp for schedule(static)
            for (int64_t g = 0; g < GROUPS; g++)
                input_slope(u, dy, mean, of_dy, of_act, constant, du, g * rows / GROUPS, (g + 1) * rows / GROUPS, channels);
        }
    }
    free(partial);
    free(of_dy);
    free(means);
    return ready ? 0 : -1;
}

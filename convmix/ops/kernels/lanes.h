/* Channels as SIMD lanes: vectors of the compute type, loaded from and stored to the storage type.
 *
 * Included once per storage type with STORAGE_{F32,BF16,F64} defined. The compute type is float, or double for double storage.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#define INLINE static inline __attribute__((always_inline))

#if defined(STORAGE_F64)
typedef double real;
typedef double stored;
typedef int64_t integer;
#else
typedef float real;
typedef int32_t integer;
#if defined(STORAGE_BF16)
typedef uint16_t stored;
#else
typedef float stored;
#endif
#endif

#define LANES ((int64_t)(VECTOR_BYTES / sizeof(real)))
typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef integer ivec __attribute__((vector_size(VECTOR_BYTES)));

INLINE vec splat(real x) { return x - (vec){0}; }

#if defined(STORAGE_BF16)
typedef uint16_t halves __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint32_t vec_bits __attribute__((vector_size(VECTOR_BYTES)));

/* The bits of the first `lanes` channels, zero-extended. */
INLINE vec_bits load_bits(const stored *p, int64_t lanes) {
    halves h = {0};
    if (lanes == LANES)
        memcpy(&h, p, sizeof h);
    else
        memcpy(&h, p, (size_t)lanes * sizeof *p);
#if defined(__AVX512F__)
    return (vec_bits)_mm512_cvtepu16_epi32((__m256i)h); /* gcc makes three instructions of the conversion below */
#else
    return __builtin_convertvector(h, vec_bits);
#endif
}

INLINE vec load(const stored *p) { return (vec)(load_bits(p, LANES) << 16); }

/* Rounded to nearest even in the upper 16 bits, anything in the lower; a NaN stays one. */
INLINE vec_bits rounded(vec v) {
    vec_bits bits = (vec_bits)v, nan = (vec_bits)(v != v);
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & ~nan) | (nan & 0x7FC00000);
}

INLINE void store(stored *p, vec v) {
#if defined(__AVX512BF16__)
    __m256bh b = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &b, sizeof b);
#else
    halves h = __builtin_convertvector(rounded(v) >> 16, halves);
    memcpy(p, &h, sizeof h);
#endif
}
#else
INLINE vec load(const stored *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(stored *p, vec v) { memcpy(p, &v, sizeof v); }
#endif

/* The first n < LANES channels; the other lanes are zero. */
INLINE vec load_some(const stored *p, int64_t n) {
    stored whole[VECTOR_BYTES / sizeof(real)] = {0};
    memcpy(whole, p, (size_t)n * sizeof *p);
    return load(whole);
}

INLINE void store_some(stored *p, vec v, int64_t n) {
    stored whole[VECTOR_BYTES / sizeof(real)];
    store(whole, v);
    memcpy(p, whole, (size_t)n * sizeof *p);
}

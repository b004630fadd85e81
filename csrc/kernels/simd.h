#pragma once

// Vectors of float32 for the instruction set being compiled: 16 lanes with AVX-512, 8
// with AVX2, 4 with SSE2 and NEON. They are vector extensions of GCC and Clang, whose
// operators work lane by lane, and `a * b + c` contracts to an FMA. Intrinsics serve
// where these extensions have no equivalent, or where GCC 12 compiles it badly.

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace voxfast::VOXFAST_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float f32v __attribute__((vector_size(LANES * 4)));
typedef int32_t i32v __attribute__((vector_size(LANES * 4)));
typedef uint32_t u32v __attribute__((vector_size(LANES * 4)));

// Vectors of the same width of 2 * LANES 16-bit integers.
typedef int16_t i16v __attribute__((vector_size(LANES * 4)));
typedef uint16_t u16v __attribute__((vector_size(LANES * 4)));

// Vectors of the same width of LANES64 float64, and of LANES64 float32.
constexpr int LANES64 = LANES / 2;
typedef double f64v __attribute__((vector_size(LANES * 4)));
typedef float f32h __attribute__((vector_size(LANES * 2)));

// Storage types of half precision.
struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};

#define VOXFAST_INLINE inline __attribute__((always_inline))
#define VOXFAST_NOINLINE __attribute__((noinline))

// ---- scalars ----------------------------------------------------------------------

VOXFAST_INLINE int min(int a, int b) { return a < b ? a : b; }
VOXFAST_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
VOXFAST_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

VOXFAST_INLINE int round_up(int x, int step) { return (x + step - 1) / step * step; }
VOXFAST_INLINE int64_t round_up(int64_t x, int64_t step) {
  return (x + step - 1) / step * step;
}

VOXFAST_INLINE float bits_to_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

VOXFAST_INLINE uint32_t float_to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

VOXFAST_INLINE float to_float(float x) { return x; }
VOXFAST_INLINE float to_float(int8_t x) { return x; }

VOXFAST_INLINE float to_float(bf16 x) {
  return bits_to_float(static_cast<uint32_t>(x.bits) << 16);
}

VOXFAST_INLINE float to_float(f16 x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#elif defined(__aarch64__)
  __fp16 half;
  std::memcpy(&half, &x.bits, sizeof half);
  return static_cast<float>(half);
#else
  uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  uint32_t rest = x.bits & 0x7fffu;
  if (rest >= 0x7c00u) {  // infinity, NaN
    return bits_to_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  }
  // Reading the bits as a float32 exponent and mantissa leaves a factor 2^112, exact for
  // subnormal numbers too.
  return bits_to_float(sign | float_to_bits(bits_to_float(rest << 13) * 0x1p112f));
#endif
}

template <typename T>
VOXFAST_INLINE T from_float(float x);

template <>
VOXFAST_INLINE float from_float<float>(float x) {
  return x;
}

// Rounds to nearest, ties to even; a NaN stays a NaN.
template <>
VOXFAST_INLINE bf16 from_float<bf16>(float x) {
  uint32_t bits = float_to_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  }
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

template <>
VOXFAST_INLINE f16 from_float<f16>(float x) {
#if defined(__F16C__)
  // Not _cvtss_sh, for whose definition Clang warns.
  __m128i halves = _mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT);
  return {static_cast<uint16_t>(_mm_extract_epi16(halves, 0))};
#elif defined(__aarch64__)
  __fp16 half = static_cast<__fp16>(x);
  f16 result;
  std::memcpy(&result.bits, &half, sizeof half);
  return result;
#else
  uint32_t bits = float_to_bits(x);
  uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) {
    return {static_cast<uint16_t>(sign | 0x7e00u)};
  }
  if (bits >= 0x477ff000u) {  // rounds beyond 65504
    return {static_cast<uint16_t>(sign | 0x7c00u)};
  }
  if (bits < 0x38800000u) {  // subnormal: adding 0.5 aligns the mantissa and rounds
    float aligned = bits_to_float(bits) + 0.5f;
    return {static_cast<uint16_t>(sign | (float_to_bits(aligned) - 0x3f000000u))};
  }
  bits += 0xfffu + (bits >> 13 & 1u);
  return {static_cast<uint16_t>(sign | (bits - 0x38000000u) >> 13)};
#endif
}

// ---- vectors ----------------------------------------------------------------------

// An unaligned load.
template <typename T>
VOXFAST_INLINE T read(const void* p) {
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

// Prefetches the cache line at p into L2. L1 has too few line fill buffers to keep as
// many lines in flight as the full bandwidth of memory takes.
VOXFAST_INLINE void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }

// (x - 0 is x for every x, so it compiles to no subtraction; -0 + 0 is not -0.)
VOXFAST_INLINE f32v broadcast(float x) { return x - f32v{}; }

VOXFAST_INLINE f32v load(const float* p) {
  f32v x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

#if defined(__aarch64__)
VOXFAST_INLINE f32v widen(bf16, uint16x4_t x) { return (f32v)vshll_n_u16(x, 16); }
VOXFAST_INLINE f32v widen(f16, uint16x4_t x) {
  return (f32v)vcvt_f32_f16(vreinterpret_f16_u16(x));
}
#endif

VOXFAST_INLINE f32v load(const bf16* p) {
#if defined(__AVX512F__)  // GCC 12 compiles convertvector to several instructions
  __m512i raw = _mm512_maskz_cvtepu16_epi32(
      0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return (f32v)_mm512_maskz_slli_epi32(0xffff, raw, 16);
#elif defined(__AVX2__)
  __m256i raw =
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return (f32v)_mm256_slli_epi32(raw, 16);
#elif defined(__aarch64__)
  return widen(bf16{}, vld1_u16(&p->bits));
#else
  typedef uint16_t u16h __attribute__((vector_size(LANES * 2)));
  u16h raw;
  std::memcpy(&raw, p, sizeof raw);
  return (f32v)(__builtin_convertvector(raw, u32v) << 16);
#endif
}

VOXFAST_INLINE f32v load(const f16* p) {
#if defined(__AVX512F__)
  // The masked form: GCC 12 warns about its own header in the plain one.
  return (f32v)_mm512_maskz_cvtph_ps(
      0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return (f32v)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__aarch64__)
  return widen(f16{}, vld1_u16(&p->bits));
#else
  f32v x;
  for (int i = 0; i < LANES; ++i) {
    x[i] = to_float(p[i]);
  }
  return x;
#endif
}

VOXFAST_INLINE f32v load(const int8_t* p) {
#if defined(__AVX512F__)  // GCC 12 compiles convertvector to several instructions
  i32v x = (i32v)_mm512_maskz_cvtepi8_epi32(0xffff, read<__m128i>(p));
#elif defined(__AVX2__)
  i32v x =
      (i32v)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__x86_64__)
  __m128i bytes = _mm_cvtsi32_si128(read<int32_t>(p));
  __m128i pairs = _mm_unpacklo_epi8(bytes, bytes);
  i32v x = (i32v)_mm_srai_epi32(_mm_unpacklo_epi16(pairs, pairs), 24);
#elif defined(__aarch64__)
  int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(read<int32_t>(p)));
  i32v x = (i32v)vmovl_s16(vget_low_s16(vmovl_s8(bytes)));
#else
  typedef int8_t i8q __attribute__((vector_size(LANES)));
  i32v x = __builtin_convertvector(read<i8q>(p), i32v);
#endif
  return __builtin_convertvector(x, f32v);
}

VOXFAST_INLINE f64v load_f64(const float* p) {
#if defined(__AVX512F__)  // GCC 12 compiles convertvector to several instructions
  return (f64v)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(p));
#elif defined(__AVX2__)
  return (f64v)_mm256_cvtps_pd(_mm_loadu_ps(p));
#elif defined(__x86_64__)
  return (f64v)_mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i*)p)));
#else
  f32h x;
  std::memcpy(&x, p, sizeof x);
  return __builtin_convertvector(x, f64v);
#endif
}

VOXFAST_INLINE void store(float* p, f64v x) {
  f32h rounded = __builtin_convertvector(x, f32h);
  std::memcpy(p, &rounded, sizeof rounded);
}

VOXFAST_INLINE void store(float* p, f32v x) { std::memcpy(p, &x, sizeof x); }

// Rounds as from_float<bf16> does.
VOXFAST_INLINE void store(bf16* p, f32v x) {
  u32v bits = (u32v)x;
  u32v rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  bits = (bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded;
#if defined(__AVX512F__)  // GCC 12 compiles convertvector to several instructions
  __m256i narrow = _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)bits);
#else
  typedef uint16_t u16h __attribute__((vector_size(LANES * 2)));
  u16h narrow = __builtin_convertvector(bits, u16h);
#endif
  std::memcpy(p, &narrow, sizeof narrow);
}

VOXFAST_INLINE void store(f16* p, f32v x) {
#if defined(__AVX512F__)
  __m256i narrow = _mm512_maskz_cvtps_ph(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &narrow, sizeof narrow);
#elif defined(__F16C__)
  __m128i narrow = _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &narrow, sizeof narrow);
#elif defined(__aarch64__)
  float16x4_t narrow = vcvt_f16_f32((float32x4_t)x);
  std::memcpy(p, &narrow, sizeof narrow);
#else
  for (int i = 0; i < LANES; ++i) {
    p[i] = from_float<f16>(x[i]);
  }
#endif
}

// b where either is NaN, as x86's instructions have it; GCC 12 does not emit them for the
// portable form.
VOXFAST_INLINE f32v max(f32v a, f32v b) {
#if defined(__AVX512F__)
  return (f32v)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (f32v)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (f32v)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

VOXFAST_INLINE f32v min(f32v a, f32v b) {
#if defined(__AVX512F__)
  return (f32v)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (f32v)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (f32v)_mm_min_ps((__m128)a, (__m128)b);
#else
  return a < b ? a : b;
#endif
}

// madd: lane i is a[2i] * b[2i] + a[2i + 1] * b[2i + 1].
VOXFAST_INLINE i32v multiply_pairs(i16v a, i16v b) {
#if defined(__AVX512BW__)
  return (i32v)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (i32v)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return (i32v)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else  // each 32-bit lane holds a pair
  i32v x = (i32v)a, y = (i32v)b;
  return (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
#endif
}

// Returns x. The compiler can neither move its computation across this nor fuse it with
// what follows.
template <typename V>
VOXFAST_INLINE V value_barrier(V x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__x86_64__)
  asm("" : "+x"(x));
#elif defined(__aarch64__)
  asm("" : "+w"(x));
#endif
  return x;
}

// The sum of the lanes, added by halves. (For AVX-512's reductions GCC 12 warns about its
// own header.)
VOXFAST_INLINE float reduce_sum(f32v x) {
  float lanes[LANES];
  std::memcpy(lanes, &x, sizeof lanes);
  for (int half = LANES / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) {
      lanes[i] += lanes[i + half];
    }
  }
  return lanes[0];
}

VOXFAST_INLINE float reduce_max(f32v x) {
  float lanes[LANES];
  std::memcpy(lanes, &x, sizeof lanes);
  for (int half = LANES / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) {
      lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    }
  }
  return lanes[0];
}

// Lanes of a and b in turn: of their lower halves, and of their upper halves.
VOXFAST_INLINE f32v interleave_low(f32v a, f32v b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7,
                                 23);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}

VOXFAST_INLINE f32v interleave_high(f32v a, f32v b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14,
                                 30, 15, 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

// Transposes [N, LANES] to [LANES, N] in place, N a power of two. Each of the log2(N)
// perfect shuffles moves one bit of the row index below the column index.
template <int N>
VOXFAST_INLINE void transpose(f32v (&rows)[N]) {
  for (int done = 1; done < N; done *= 2) {
    f32v next[N];
    for (int i = 0; i < N / 2; ++i) {
      next[2 * i] = interleave_low(rows[i], rows[i + N / 2]);
      next[2 * i + 1] = interleave_high(rows[i], rows[i + N / 2]);
    }
    for (int i = 0; i < N; ++i) {
      rows[i] = next[i];
    }
  }
}

// ---- quads: four neighbouring lanes -------------------------------------------------

constexpr int QUAD = 4;

// The quad at p, in all quads.
VOXFAST_INLINE f32v broadcast_quad(const char* p) {
#if defined(__AVX512F__)
  return (f32v)_mm512_maskz_broadcast_f32x4(0xffff, read<__m128>(p));
#elif defined(__AVX2__)
  return (f32v)_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
#else
  return read<f32v>(p);
#endif
}

#if defined(__AVX512F__)
#define VOXFAST_QUADS(a, b, which) \
  (f32v) _mm512_maskz_shuffle_f32x4(0xffff, (__m512)(a), (__m512)(b), which)
#endif

// Transposes a matrix of quads in place: x[i] becomes quad i of every vector.
VOXFAST_INLINE void transpose_quads(f32v (&x)[LANES / QUAD]) {
#if defined(__AVX512F__)
  f32v low = VOXFAST_QUADS(x[0], x[1], 0x44), high = VOXFAST_QUADS(x[0], x[1], 0xee);
  f32v low2 = VOXFAST_QUADS(x[2], x[3], 0x44), high2 = VOXFAST_QUADS(x[2], x[3], 0xee);
  x[0] = VOXFAST_QUADS(low, low2, 0x88);
  x[1] = VOXFAST_QUADS(low, low2, 0xdd);
  x[2] = VOXFAST_QUADS(high, high2, 0x88);
  x[3] = VOXFAST_QUADS(high, high2, 0xdd);
#elif defined(__AVX2__)
  f32v first = x[0];
  x[0] = (f32v)_mm256_permute2f128_ps((__m256)first, (__m256)x[1], 0x20);
  x[1] = (f32v)_mm256_permute2f128_ps((__m256)first, (__m256)x[1], 0x31);
#endif
}

#undef VOXFAST_QUADS

// e^x within 2 units in the last place; 0 below -87.3, so that -infinity gives 0. Range
// reduction by ln 2 in two parts, then the degree-6 polynomial of Cephes' expf (S.
// Moshier, netlib.org/cephes).
VOXFAST_INLINE f32v exp(f32v x) {
  const f32v lowest = broadcast(-87.33654f);
  const f32v shifter = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds
  f32v y = max(min(x, broadcast(88.37626f)), lowest);
  f32v n = (y * 1.44269504f + shifter) - shifter;
  f32v r = y - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  f32v p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  i32v exponent = (__builtin_convertvector(n, i32v) + 127) << 23;
  return x < lowest ? f32v{} : p * (f32v)exponent;
}

// Natural logarithm of positive, normal numbers, within 2 units in the last place
// (Cephes' logf).
VOXFAST_INLINE f32v log(f32v x) {
  i32v bits = (i32v)x;
  i32v exponent = (bits >> 23) - 126;
  f32v m = (f32v)((bits & 0x007fffff) | 0x3f000000);  // in [0.5, 1)
  i32v small = m < broadcast(0.707106781f);           // -1 where true
  f32v e = __builtin_convertvector(exponent + small, f32v);
  m = (small ? m + m : m) - 1.0f;
  f32v z = m * m;
  f32v p = m * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  p = p * m * z;
  p = p + e * -2.12194440e-4f;
  p = p - z * 0.5f;
  return m + p + e * 0.693359375f;
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

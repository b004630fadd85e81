#pragma once

// Horizontal sums of several vectors at once: log2(WIDTH) steps for WIDTH vectors,
// instead of a reduction for each.

#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

#if defined(__AVX512F__)
#define VOXFAST_HALVES_16(a, b)                                                        \
  (__builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22,   \
                           23) +                                                       \
   __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, \
                           30, 31))
#define VOXFAST_HALVES_8(a, b)                                                           \
  (__builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26,   \
                           27) +                                                         \
   __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, \
                           31))
#elif defined(__AVX2__)
#define VOXFAST_HALVES_8(a, b)                               \
  (__builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + \
   __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#define VOXFAST_HALVES_4(a, b)                               \
  (__builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + \
   __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15))
#define VOXFAST_HALVES_2(a, b)                                \
  (__builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + \
   __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15))
#else
#define VOXFAST_HALVES_4(a, b) \
  (__builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7))
#define VOXFAST_HALVES_2(a, b) \
  (__builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7))
#endif

// Sums of WIDTH neighbouring lanes of each of WIDTH vectors, [LANES / WIDTH, WIDTH]: the
// sum of the first WIDTH lanes of every vector, then of the next WIDTH lanes, ... . A
// step adds the halves of two vectors' lanes and leaves half as many vectors.
#if defined(__aarch64__)  // ADDP
template <int WIDTH>
VOXFAST_INLINE f32v horizontal_sums(f32v* x) {
  auto pairwise = [](f32v a, f32v b) __attribute__((always_inline)) {
    return (f32v)vpaddq_f32((float32x4_t)a, (float32x4_t)b);
  };
  return pairwise(pairwise(x[0], x[1]), pairwise(x[2], x[3]));
}

template <int WIDTH>
VOXFAST_INLINE i32v horizontal_sums(i32v* x) {
  auto pairwise = [](i32v a, i32v b) __attribute__((always_inline)) {
    return (i32v)vpaddq_s32((int32x4_t)a, (int32x4_t)b);
  };
  return pairwise(pairwise(x[0], x[1]), pairwise(x[2], x[3]));
}
#else
#if defined(__AVX512F__)
// Unpacking takes half as long as the shuffles that GCC 12 makes of HALVES_4 and _2.
template <typename V>
VOXFAST_INLINE V quads_of_four(V* x) {
  typedef int64_t pairs __attribute__((vector_size(64)));
  V sums[2];
  for (int i = 0; i < 2; ++i) {
    V a = x[2 * i], b = x[2 * i + 1];
    sums[i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12,
                                      28, 13, 29) +
              __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27,
                                      14, 30, 15, 31);
  }
  auto a = (pairs)sums[0], b = (pairs)sums[1];
  return (V)__builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) +
         (V)__builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
}
#else
template <typename V>
VOXFAST_INLINE V quads_of_four(V* x) {
  for (int i = 0; i < 2; ++i) {
    x[i] = VOXFAST_HALVES_4(x[i], x[i + 2]);
  }
  return VOXFAST_HALVES_2(x[0], x[1]);
}
#endif

template <int WIDTH, typename V>
VOXFAST_INLINE V horizontal_sums(V* x) {
#if defined(__AVX512F__)
  for (int i = 0; WIDTH == 16 && i < 8; ++i) {
    x[i] = VOXFAST_HALVES_16(x[i], x[i + 8]);
  }
#endif
#if defined(__AVX2__)
  for (int i = 0; WIDTH >= 8 && i < 4; ++i) {
    x[i] = VOXFAST_HALVES_8(x[i], x[i + 4]);
  }
#endif
  return quads_of_four(x);
}
#endif

// Sums of quads, [QUAD, LANES / QUAD]: those of x[0], then those of x[1], ... .
VOXFAST_INLINE f32v quad_sums(f32v (&x)[QUAD]) {
  f32v mixed = horizontal_sums<QUAD>(x);
#if defined(__AVX512F__)
  return __builtin_shufflevector(mixed, mixed, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3,
                                 7, 11, 15);
#elif defined(__AVX2__)
  return __builtin_shufflevector(mixed, mixed, 0, 4, 1, 5, 2, 6, 3, 7);
#else
  return mixed;
#endif
}

#undef VOXFAST_HALVES_16
#undef VOXFAST_HALVES_8
#undef VOXFAST_HALVES_4
#undef VOXFAST_HALVES_2

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// The inner step of linear_packed_gemm.h: STEP_CODES codes of a panel times a row of x.
// Glossary: linear.h.

#include "kernels/linear_packed_common.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int GEMM_VECTORS = 2;  // of outputs

// The codes of a step. Unpacked, lane i of w[l][v] has codes of output v * LANES + i.
typedef u32v StepCodes[STEP_LANES][GEMM_VECTORS];
typedef i32v StepDots[GEMM_VECTORS][DIGITS];

#if defined(VOXFAST_DIGIT_PAIRS)

// SMMLA multiplies two rows of eight bytes with two others. Rows of w are outputs; rows
// of x are its high and low digits.
VOXFAST_INLINE void arrange_step(StepCodes& w) {
  for (int v = 0; v < GEMM_VECTORS; ++v) {
    u32v first = w[0][v], second = w[1][v];
    w[0][v] = (u32v)vzip1q_u32((uint32x4_t)first, (uint32x4_t)second);
    w[1][v] = (u32v)vzip2q_u32((uint32x4_t)first, (uint32x4_t)second);
  }
}

VOXFAST_INLINE void add_step(StepDots& dots, const StepCodes& w, const char* p) {
  auto x = read<i32v>(p);
#pragma GCC unroll 2
  for (int v = 0; v < GEMM_VECTORS; ++v) {
#pragma GCC unroll 2
    for (int pair = 0; pair < 2; ++pair) {  // of outputs
      add_pair(dots[v][pair], w[pair][v], x);
    }
  }
}

VOXFAST_INLINE i32v combine_step(const i32v (&pairs)[DIGITS]) {
  return combine_pairs(pairs);
}

#elif defined(__ARM_FEATURE_DOTPROD)

VOXFAST_INLINE void arrange_step(StepCodes&) {}

// From lane LANE of x on: high digits, then low ones.
template <int LANE = 0>
VOXFAST_INLINE void add_lanes(StepDots& dots, const StepCodes& w, i32v x) {
  if constexpr (LANE < LANES) {
#pragma GCC unroll 2
    for (int v = 0; v < GEMM_VECTORS; ++v) {
      asm("sdot %0.4s, %1.16b, %2.4b[%3]"
          : "+w"(dots[v][LANE / STEP_LANES])
          : "w"(w[LANE % STEP_LANES][v]), "w"(x), "i"(LANE));
    }
    add_lanes<LANE + 1>(dots, w, x);
  }
}

VOXFAST_INLINE void add_step(StepDots& dots, const StepCodes& w, const char* p) {
  add_lanes(dots, w, read<i32v>(p));
}

#elif defined(__aarch64__)

// SMLAL multiplies int16 of eight outputs with one integer of x: w[l][e] becomes code e
// of lane l of all outputs.
VOXFAST_INLINE void arrange_step(StepCodes& w) {
  for (auto& lane : w) {
    auto first = (uint16x8_t)lane[0], second = (uint16x8_t)lane[1];
    lane[0] = (u32v)vuzp1q_u16(first, second);
    lane[1] = (u32v)vuzp2q_u16(first, second);
  }
}

template <int CODE = 0>
VOXFAST_INLINE void add_codes(StepDots& dots, const StepCodes& w, int16x8_t x) {
  if constexpr (CODE < STEP_CODES) {
    auto codes = (int16x8_t)w[CODE / 2][CODE % 2];
    dots[0][0] =
        (i32v)vmlal_laneq_s16((int32x4_t)dots[0][0], vget_low_s16(codes), x, CODE);
    dots[1][0] = (i32v)vmlal_high_laneq_s16((int32x4_t)dots[1][0], codes, x, CODE);
    add_codes<CODE + 1>(dots, w, x);
  }
}

VOXFAST_INLINE void add_step(StepDots& dots, const StepCodes& w, const char* p) {
  add_codes(dots, w, read<int16x8_t>(p));
}

#else

VOXFAST_INLINE void arrange_step(StepCodes&) {}

VOXFAST_INLINE void add_step(StepDots& dots, const StepCodes& w, const char* p) {
#pragma GCC unroll 2
  for (int d = 0; d < DIGITS; ++d) {
    i32v x = broadcast_lane(p + 4 * d);
#pragma GCC unroll 2
    for (int v = 0; v < GEMM_VECTORS; ++v) {
      dots[v][d] = add_dot(dots[v][d], w[0][v], x);
    }
  }
}

#endif

#if !defined(VOXFAST_DIGIT_PAIRS)
VOXFAST_INLINE i32v combine_step(const i32v (&digits)[DIGITS]) {
  return combine_digits(digits);
}
#endif

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

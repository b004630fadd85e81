#pragma once

// linear with packed w: quantizes x, unpacks codes into 32-bit lanes and multiplies them.
// A lane has four codes as bytes, multiplied with four int8 digits of x (AVX-512 VNNI,
// NEON SDOT), or two codes as int16, multiplied with two integers of x (madd, NEON
// SMLAL). Glossary: linear.h.

#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

#if (defined(__AVX512VNNI__) && defined(__AVX512VBMI__)) || defined(__ARM_FEATURE_DOTPROD)
#define VOXFAST_BYTE_DOTS

// An integer of x is two digits: 256 * high + low.
constexpr int CODES_PER_LANE = 4, DIGITS = 2;
#else
constexpr int CODES_PER_LANE = 2, DIGITS = 1;
#endif

// What is subtracted from codes before they are multiplied. SDOT takes signed bytes,
// which hold codes of 8 bits only so; the bias of a group makes up for it.
#if defined(__ARM_FEATURE_DOTPROD)
constexpr int code_offset(int bits) { return bits == 8 ? 128 : 0; }
#else
constexpr int code_offset(int) { return 0; }
#endif

// Adds the dot product of the elements of each lane, or, with SMLAL, of elements that are
// half a vector apart: for sums of all lanes. (GCC 12 copies sums around the intrinsics
// of dot products, hence the assembly.)
VOXFAST_INLINE i32v add_dot(i32v sum, u32v w, i32v x) {
#if defined(__ARM_FEATURE_DOTPROD)
  asm("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(w), "w"(x));
  return sum;
#elif defined(VOXFAST_BYTE_DOTS)
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
  return sum;
#elif defined(__aarch64__)
  auto codes = (int16x8_t)w, integers = (int16x8_t)x;
  auto low = vmlal_s16((int32x4_t)sum, vget_low_s16(codes), vget_low_s16(integers));
  return (i32v)vmlal_high_s16(low, codes, integers);
#else
  // Without the barrier GCC 12 reorders the sums, and spills registers.
  return value_barrier(sum + multiply_pairs((i16v)w, (i16v)x));
#endif
}

// The lane of x at p, in all lanes.
VOXFAST_INLINE i32v broadcast_lane(const char* p) {
#if defined(__AVX512F__)
  return (i32v)_mm512_maskz_set1_epi32(0xffff, read<int32_t>(p));
#else
  return i32v{} + read<int32_t>(p);
#endif
}

// The dots with integers, from those with their digits.
VOXFAST_INLINE i32v combine_digits(const i32v (&dots)[DIGITS]) {
#if defined(__ARM_FEATURE_DOTPROD)  // GCC 12 makes a shift and an addition of vmlaq_n_s32
  i32v sum = dots[1];
  asm("mla %0.4s, %1.4s, %2.4s" : "+w"(sum) : "w"(dots[0]), "w"(i32v{} + 256));
  return sum;
#else
  return DIGITS == 2 ? (i32v)(((u32v)dots[0] << 8) + (u32v)dots[DIGITS - 1]) : dots[0];
#endif
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
#define VOXFAST_DIGIT_PAIRS

// Adds the dots of eight codes of two outputs, w, with both digits of eight integers, x:
// [digit, output].
VOXFAST_INLINE void add_pair(i32v& sum, u32v w, i32v x) {
  asm("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(x), "w"(w));
}

// The dots of four outputs with integers, from those of two pairs with digits.
VOXFAST_INLINE i32v combine_pairs(const i32v (&pairs)[2]) {
  auto first = (int64x2_t)pairs[0], second = (int64x2_t)pairs[1];
  return combine_digits(
      {(i32v)vzip1q_s64(first, second), (i32v)vzip2q_s64(first, second)});
}
#endif

constexpr int ELEMENT_BITS = 32 / CODES_PER_LANE;

// The gemm's inner loop takes STEP_LANES lanes, and their digits, at once: on arm64 a
// vector of x, whose parts instructions select, elsewhere one lane, which is broadcast.
#if defined(__aarch64__)
constexpr int STEP_LANES = 4 / DIGITS;
#else
constexpr int STEP_LANES = 1;
#endif
constexpr int STEP_CODES = STEP_LANES * CODES_PER_LANE;

// MLX packs the codes of a row without gaps, lowest bits first: a block of 32 codes is
// `bits` words.
constexpr int BLOCK_CODES = 32;

// Whether codes never straddle elements. Then a shift and a mask of a word make a lane,
// with one code from the same bits of each element, and x is permuted to match. Else the
// codes of a lane are neighbours.
constexpr bool fits_element(int bits) { return ELEMENT_BITS % bits == 0; }

// The input, counted within its block, that an element of a lane holds.
constexpr int input_of(int bits, int lane, int element) {
  if (!fits_element(bits)) {
    return lane * CODES_PER_LANE + element;
  }
  int lanes_per_word = ELEMENT_BITS / bits;
  return (lane / lanes_per_word * CODES_PER_LANE + element) * lanes_per_word +
         lane % lanes_per_word;
}

// `bits` in every element of a lane.
constexpr uint32_t in_every_element(uint32_t bits) {
  uint32_t all = 0;
  for (int element = 0; element < CODES_PER_LANE; ++element) {
    all |= bits << element * ELEMENT_BITS;
  }
  return all;
}

// Unpacks one lane of a block, `packed` being its BITS words, of LANES rows of w at once.
template <int BITS>
VOXFAST_INLINE u32v unpack_lane(const u32v* packed, int lane) {
  constexpr uint32_t MASK = (1u << BITS) - 1;
  if constexpr (fits_element(BITS)) {
    constexpr int LANES_PER_WORD = ELEMENT_BITS / BITS;
    u32v codes = packed[lane / LANES_PER_WORD] >> lane % LANES_PER_WORD * BITS &
                 in_every_element(MASK);
    return codes ^ in_every_element(code_offset(BITS));
  } else {
    constexpr int WIDTH = CODES_PER_LANE * BITS;
    int first = lane * WIDTH / 32, begin = lane * WIDTH % 32;
    u32v window = packed[first] >> begin;
    if (begin + WIDTH > 32) {
      window |= packed[first + 1] << (32 - begin);
    }
    u32v codes = window & MASK;
    for (int element = 1; element < CODES_PER_LANE; ++element) {
      codes |= window << element * (ELEMENT_BITS - BITS) & MASK << element * ELEMENT_BITS;
    }
    return codes;
  }
}

// Quantizes a group of a row of x: x = integer * scale, rounded. `sum` is the sum of the
// integers, times scale. If any x is NaN or infinite, the scale is NaN.
struct QuantizedGroup {
  float scale = 0, sum;

  QuantizedGroup(const LinearArguments& a, int64_t m, int64_t group, int32_t* integers) {
    float x[128];
    load_floats(a.x, a.x_type, a.x_row_offsets[m] + group * a.group_size * a.x_stride,
                a.x_stride, a.group_size, x);
    f32v max_abs{}, nan_unless_finite{};
    for (int i = 0; i < a.group_size; i += LANES) {
      f32v v = load(x + i);
      max_abs = max(max_abs, max(v, -v));
      nan_unless_finite = nan_unless_finite + v * 0.0f;  // NaN if v is infinite
    }
    float max_x = reduce_max(max_abs), factor = 0;
    if (!(reduce_sum(nan_unless_finite) == 0.0f)) {
      scale = __builtin_nanf("");
    } else if (max_x > 0x1p-100f) {
      // max_x * 1.004 < 2^(exponent - 126) = 2^15 * scale. The factor 1.004 keeps high
      // digits at 127 or below.
      uint32_t exponent = float_to_bits(max_x * 1.004f) >> 23;
      scale = bits_to_float((exponent - 14) << 23);
      factor = bits_to_float((254 + 14 - exponent) << 23);
    }
    const f32v shifter = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds
    i32v total{};
    for (int i = 0; i < a.group_size; i += LANES) {
      f32v scaled = factor == 0 ? f32v{} : load(x + i) * factor;
      i32v rounded = (i32v)(scaled + shifter) - (i32v)shifter;
      std::memcpy(integers + i, &rounded, sizeof rounded);
      total += rounded;
    }
    int32_t lanes[LANES], sum_of_integers = 0;
    std::memcpy(lanes, &total, sizeof lanes);
    for (int32_t lane : lanes) {
      sum_of_integers += lane;
    }
    sum = scale * static_cast<float>(sum_of_integers);
  }
};

// What groups add to outputs. The second product is rounded by itself rather than fused,
// so that gemv and gemm get the same bits.
VOXFAST_INLINE f32v group_terms(f32v dots, f32v w_scales, f32v x_scales, f32v w_biases,
                                f32v x_sums) {
  return dots * (w_scales * x_scales) + value_barrier(w_biases * x_sums);
}

// The bias for codes from which `offset` was subtracted.
VOXFAST_INLINE f32v bias_of_codes(f32v bias, f32v scale, int offset) {
  return offset == 0 ? bias : bias + scale * static_cast<float>(offset);
}

// Calls f<BITS>().
template <typename F>
VOXFAST_INLINE void with_bits(int bits, F f) {
  switch (bits) {
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    case 4:
      return f.template operator()<4>();
    case 5:
      return f.template operator()<5>();
    case 6:
      return f.template operator()<6>();
    default:
      return f.template operator()<8>();
  }
}

// Calls f<BITS, GROUP>().
template <typename F>
VOXFAST_INLINE void with_format(const LinearArguments& a, F f) {
  with_bits(a.bits, [&]<int BITS>() {
    switch (a.group_size) {
      case 32:
        return f.template operator()<BITS, 32>();
      case 64:
        return f.template operator()<BITS, 64>();
      default:
        return f.template operator()<BITS, 128>();
    }
  });
}

// Several rows of x, prepared. Per row: the integers in the order of the kernel; the
// x_scales of its groups; the sums of each group's integers, times x_scale.
struct PreparedRow {
  char* integers;
  float *x_scales, *x_sums;

  VOXFAST_INLINE PreparedRow(const LinearArguments& a, int64_t m) {
    integers = a.prepared + m * a.prepared_stride;
    x_scales = reinterpret_cast<float*>(integers + 2 * a.k);
    x_sums = x_scales + a.groups;
  }

  static int64_t bytes(const LinearArguments& a) { return 2 * a.k + 8 * a.groups; }
};

// arrange(integers, k, out) writes integers k ... k + 31 of a row that begins at `out`.
template <typename F>
VOXFAST_INLINE void prepare_row(const LinearArguments& a, int64_t m, F arrange) {
  const PreparedRow out(a, m);
  for (int64_t g = 0; g < a.groups; ++g) {
    int32_t integers[128];
    const QuantizedGroup group(a, m, g, integers);
    out.x_scales[g] = group.scale;
    out.x_sums[g] = group.sum;
    for (int i = 0; i < a.group_size; i += BLOCK_CODES) {
      arrange(integers + i, g * a.group_size + i, out.integers);
    }
  }
}

#if defined(VOXFAST_BYTE_DOTS)
// The lowest byte of each lane.
VOXFAST_INLINE void store_low_bytes(char* p, i32v x) {
#if defined(__AVX512F__)
  auto bytes = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)x);
#else
  typedef int8_t i8q __attribute__((vector_size(LANES)));
  i8q bytes = __builtin_convertvector(x, i8q);
#endif
  std::memcpy(p, &bytes, sizeof bytes);
}

// out[i] = bytes[order[i]].
VOXFAST_INLINE void shuffle_64_bytes(const char* bytes, const uint8_t* order, char* out) {
#if defined(__AVX512F__)
  __m512i ordered = _mm512_maskz_permutexvar_epi8(~0ULL, _mm512_load_si512(order),
                                                  _mm512_load_si512(bytes));
  std::memcpy(out, &ordered, sizeof ordered);
#else
  auto table = read<uint8x16x4_t>(bytes);
  for (int i = 0; i < 64; i += 16) {
    uint8x16_t ordered = vqtbl4q_u8(table, vld1q_u8(order + i));
    std::memcpy(out + i, &ordered, sizeof ordered);
  }
#endif
}

// Writes the digits of 32 integers of x in the given order: i means the high digit of
// integer i, 32 + i its low digit.
VOXFAST_INLINE void split_digits(const int32_t* integers, const uint8_t* order,
                                 char* out) {
  alignas(64) char bytes[64];
  for (int i = 0; i < 32; i += LANES) {
    auto x = read<i32v>(integers + i);
    i32v high = (x + 128) >> 8;
    store_low_bytes(bytes + i, high);
    store_low_bytes(bytes + 32 + i, x - (high << 8));
  }
  shuffle_64_bytes(bytes, order, out);
}
#endif

// The inputs of a block in the order of its lanes, as split_digits takes it: of each
// STEP_LANES lanes the elements' high digits, then their low digits.
template <int BITS>
struct LaneOrder {
  alignas(64) uint8_t from[BLOCK_CODES * DIGITS] = {};

  constexpr LaneOrder() {
    for (int i = 0; i < BLOCK_CODES; ++i) {
      auto input =
          static_cast<uint8_t>(input_of(BITS, i / CODES_PER_LANE, i % CODES_PER_LANE));
      int to = i / STEP_CODES * DIGITS * STEP_CODES + i % STEP_CODES;
      from[to] = input;
      if (DIGITS == 2) {
        from[to + STEP_CODES] = static_cast<uint8_t>(BLOCK_CODES + input);
      }
    }
  }
};

template <int BITS>
constexpr LaneOrder<BITS> LANE_ORDER;

// Writes the 32 integers of a block of x as lanes to multiply with unpack_lane's; with
// two digits, two lanes for each.
template <int BITS>
VOXFAST_INLINE void arrange_x(const int32_t* integers, char* out) {
#if defined(VOXFAST_BYTE_DOTS)
  split_digits(integers, LANE_ORDER<BITS>.from, out);
#else
  for (int i = 0; i < BLOCK_CODES; ++i) {
    auto narrow = static_cast<int16_t>(integers[LANE_ORDER<BITS>.from[i]]);
    std::memcpy(out + 2 * i, &narrow, sizeof narrow);
  }
#endif
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

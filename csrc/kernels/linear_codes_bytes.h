#pragma once

// linear: packed weights for processors that multiply bytes and add up the products
// (AVX-512 VNNI) and pick any bits of a vector (VBMI). It offers what linear_codes.h
// does: codes are unpacked to bytes, in the order that they lie in, and a 16-bit integer
// of x meets them as two digits to the base 256.

#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

typedef uint8_t Code;
typedef uint8_t Codes __attribute__((vector_size(64)));
constexpr int VECTOR_CODES = 64;
constexpr int BLOCK_CODES = 64;

// Inputs whose products are added up as integers. Each of the 16 sums is of 4 inputs, so
// the first half of them is of the first 32 inputs.
template <int GROUP>
constexpr int SECTION = 64;

// What the sums of section s are worth, given what each group's are.
template <int GROUP>
VOXFAST_INLINE f32v worth_of(const float* worth, int64_t s) {
  if constexpr (GROUP == 32) {
    __m512 first = _mm512_set1_ps(worth[2 * s]);
    return (f32v)_mm512_mask_broadcastss_ps(first, 0xff00,
                                            _mm_load_ss(worth + 2 * s + 1));
  } else {
    return broadcast(worth[s * 64 / GROUP]);
  }
}

// How 8 codes are cut out of as many bytes as their width.
template <int BITS>
struct Cuts {
  // Which bytes of a block are brought into each 64-bit word, and the bit of the word
  // that each code begins at.
  alignas(64) uint8_t bytes[64] = {}, first_bits[64] = {};

  constexpr Cuts() {
    for (int i = 0; i < 64; ++i) {
      bytes[i] = static_cast<uint8_t>((i / 8 * BITS + i % 8) & 63);
      first_bits[i] = static_cast<uint8_t>(i % 8 * BITS);
    }
  }
};

template <int BITS>
alignas(64) constexpr Cuts<BITS> CUTS;

// The codes of a block of `count`, then zeros.
template <int BITS>
VOXFAST_INLINE Codes codes(const char* block, int, int64_t count) {
  int64_t n_bytes = (count < 64 ? count : 64) * BITS / 8;
  __m512i x = _mm512_maskz_loadu_epi8(~0ULL >> (64 - n_bytes), block);
  if constexpr (BITS < 8) {
    x = _mm512_maskz_permutexvar_epi8(~0ULL, _mm512_load_si512(CUTS<BITS>.bytes), x);
    x = _mm512_maskz_multishift_epi64_epi8(~0ULL,
                                           _mm512_load_si512(CUTS<BITS>.first_bits), x);
    x = (__m512i)((Codes)x & static_cast<uint8_t>((1 << BITS) - 1));
  }
  return (Codes)x;
}

// A vector's inputs: value = 256 * high + low.
struct Inputs {
  __m512i high, low;
};

VOXFAST_INLINE Inputs inputs_at(const char* block, int) {
  return {_mm512_loadu_si512(block), _mm512_loadu_si512(block + 64)};
}

// Lays out `count` integers of x, those of a group, the first being input k of `row`.
VOXFAST_INLINE void lay_out(int, int64_t k, int count, const int32_t* integers,
                            char* row) {
  for (int i = 0; i < count; i += LANES) {
    i32v x;
    std::memcpy(&x, integers + i, sizeof x);
    i32v high = (x + 128) >> 8;
    char* to = row + (k + i) / 64 * 128 + (k + i) % 64;
    __m128i digits = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)high);
    std::memcpy(to, &digits, sizeof digits);
    digits = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)(x - (high << 8)));
    std::memcpy(to + 64, &digits, sizeof digits);
  }
}

// Sums of the products of a section's only vector: there are none before.
VOXFAST_INLINE i32v add_products(i32v, bool, Codes w, Inputs x) {
  __m512i dots = _mm512_dpbusd_epi32(__m512i{}, (__m512i)w, x.high);
  dots = (__m512i)((i32v)dots << 8);
  return (i32v)_mm512_dpbusd_epi32(dots, (__m512i)w, x.low);
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// linear: one row of x and packed weights that are used as they are read, for processors
// that multiply bytes (AVX-512 VNNI) and pick any bits of a vector (VBMI).

#include "kernels/linear_words.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

typedef uint8_t Bytes __attribute__((vector_size(64)));

// A block of a row is what one load of 64 bytes, or of 64 codes, gives. Where bytes are
// whole codes, plane p is the p-th code of every byte, input i of the block therefore in
// plane i % planes at byte i / planes; elsewhere one plane has all codes.
constexpr int planes_of(int bits, int group_size) {
  // Fewer than 4 lanes of a group could not be added up with those of 4 rows of w.
  return 8 % bits == 0 && group_size * bits / 8 >= 16 ? 8 / bits : 1;
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

// Plane p of a block.
template <int BITS, int PLANES>
VOXFAST_INLINE __m512i codes_of(__m512i block, int p) {
  if constexpr (PLANES == 1 && BITS < 8) {
    block =
        _mm512_maskz_permutexvar_epi8(~0ULL, _mm512_load_si512(CUTS<BITS>.bytes), block);
    block = _mm512_maskz_multishift_epi64_epi8(
        ~0ULL, _mm512_load_si512(CUTS<BITS>.first_bits), block);
  } else if (p > 0) {
    block = (__m512i)((u32v)block >> p * BITS);
  }
  if constexpr (BITS < 8) {
    block = (__m512i)((Bytes)block & static_cast<uint8_t>((1 << BITS) - 1));
  }
  return block;
}

// By planes: which of 32 integers' digits follow each other.
template <int PLANES>
struct PlaneOrder {
  alignas(64) uint8_t from[64] = {};

  constexpr PlaneOrder() {
    for (int i = 0; i < 32; ++i) {
      int input = i % (32 / PLANES) * PLANES + i / (32 / PLANES);
      from[i] = static_cast<uint8_t>(input);
      from[32 + i] = static_cast<uint8_t>(32 + input);
    }
  }
};

template <int PLANES>
constexpr PlaneOrder<PLANES> PLANE_ORDER;

// A block of a row of w times its inputs of x; `rest` bytes of the row are left.
template <int BITS, int GROUP>
struct RowBlock {
  static constexpr int PLANES = planes_of(BITS, GROUP), INPUTS = 64 * PLANES;
  static constexpr int RUN = GROUP < INPUTS ? GROUP / (4 * PLANES) : LANES;

  VOXFAST_INLINE static void add(const char* w, int64_t rest, const char* x,
                                 i32v (&sums)[DIGITS]) {
    __mmask64 mask = rest >= 64 ? ~0ULL : rest > 0 ? ~(~0ULL << rest) : 0;
    __m512i block = _mm512_maskz_loadu_epi8(mask, w);
#pragma GCC unroll 4
    for (int p = 0; p < PLANES; ++p) {
      auto codes = (u32v)codes_of<BITS, PLANES>(block, p);
      sums[0] = add_products(sums[0], codes, read<i32v>(x + 64 * p));
      sums[1] = add_products(sums[1], codes, read<i32v>(x + INPUTS + 64 * p));
    }
  }

  // Lays out 32 integers of x, the first being input k: of each block the planes of high
  // digits, then those of low ones.
  static void lay_out(const int32_t* integers, int64_t k, char* row) {
    constexpr int RUN_BYTES = 32 / PLANES;
    char digits[64];
    digits_of(integers, PLANE_ORDER<PLANES>.from, digits);
    char* to = row + k / INPUTS * 2 * INPUTS + k % INPUTS / PLANES;
    for (int p = 0; p < PLANES; ++p) {
      std::memcpy(to + 64 * p, digits + p * RUN_BYTES, RUN_BYTES);
      std::memcpy(to + INPUTS + 64 * p, digits + 32 + p * RUN_BYTES, RUN_BYTES);
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// linear: one row of x and packed weights that are used as they are read, for processors
// that multiply bytes (AVX-512 VNNI) and pick any bits of a vector (VBMI).

#include "kernels/linear_packed_common.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// A block of a row is 64 bytes, each with PLANES codes: bytes of the row where they hold
// whole codes, elsewhere bytes that are cut out of it. Plane p is the p-th code of every
// byte, so input i of a block is in plane i % PLANES at byte i / PLANES.
constexpr int planes_of(int bits, int group_size) {
  // Fewer than 4 lanes of a group could not be added up with those of 4 rows of w.
  int most = group_size / 16;
  return 8 / bits < most ? 8 / bits : most;
}

// How 64 bytes are cut out of a block of which 8 begin `width` bytes after 8 others; the
// block begins `start` bytes after what was loaded.
template <int PACKED_BITS, int PAD>
struct Unpack {
  // Which bytes are brought into each 64-bit word, and the bit of the word that each byte
  // begins at.
  alignas(64) uint8_t bytes[64] = {}, bit_offsets[64] = {};

  constexpr Unpack() {
    for (int i = 0; i < 64; ++i) {
      bytes[i] = static_cast<uint8_t>((PAD + i / 8 * PACKED_BITS + i % 8) & 63);
      bit_offsets[i] = static_cast<uint8_t>(i % 8 * PACKED_BITS);
    }
  }
};

template <int PACKED_BITS, int PAD>
alignas(64) constexpr Unpack<PACKED_BITS, PAD> UNPACK;

// By planes: which of 32 integers' digits follow each other.
template <int PLANES>
struct PlaneOrder {
  alignas(64) uint8_t order[64] = {};

  constexpr PlaneOrder() {
    for (int i = 0; i < 32; ++i) {
      int input = i % (32 / PLANES) * PLANES + i / (32 / PLANES);
      order[i] = static_cast<uint8_t>(input);
      order[32 + i] = static_cast<uint8_t>(32 + input);
    }
  }
};

template <int PLANES>
constexpr PlaneOrder<PLANES> PLANE_ORDER;

// A block of some rows of w times its inputs of x.
template <int BITS, int GROUP>
struct RowChunk {
  static constexpr int PLANES = planes_of(BITS, GROUP), PACKED_BITS = PLANES * BITS;
  static constexpr int INPUTS = 64 * PLANES, BYTES = 8 * PACKED_BITS;
  static constexpr int LOAD_BYTES = 64;
  static constexpr int LANES_PER_GROUP = GROUP < INPUTS ? GROUP / (4 * PLANES) : LANES;

  // The block begins `at` bytes after each row. What is loaded begins there, too, or, if
  // it is the last block, ends where it ends.
  template <int ROWS>
  VOXFAST_INLINE static void add(const char* const (&rows)[ROWS], int64_t at,
                                 bool is_last, const char* x,
                                 i32v (&sums)[ROWS][DIGITS]) {
    constexpr int PAD = LOAD_BYTES - BYTES;
    __m512i blocks[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      blocks[r] = read<__m512i>(rows[r] + at - (is_last ? PAD : 0));
      if constexpr (PACKED_BITS < 8) {
        const uint8_t* bytes =
            is_last ? UNPACK<PACKED_BITS, PAD>.bytes : UNPACK<PACKED_BITS, 0>.bytes;
        blocks[r] =
            _mm512_maskz_permutexvar_epi8(~0ULL, _mm512_load_si512(bytes), blocks[r]);
        blocks[r] = _mm512_maskz_multishift_epi64_epi8(
            ~0ULL, _mm512_load_si512(UNPACK<PACKED_BITS, 0>.bit_offsets), blocks[r]);
      }
    }
    // Plane by plane, so that sums that depend on each other lie far apart.
#pragma GCC unroll 4
    for (int p = 0; p < PLANES; ++p) {
      auto high = read<i32v>(x + 64 * p), low = read<i32v>(x + INPUTS + 64 * p);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) {
        u32v codes = (u32v)blocks[r] >> p * BITS;
        if constexpr (BITS < 8) {
          codes &= 0x01010101u * ((1 << BITS) - 1);
        }
        sums[r][0] = add_dot(sums[r][0], codes, high);
        sums[r][1] = add_dot(sums[r][1], codes, low);
      }
    }
  }

  // Lays out 32 integers of x, the first being input k: of each block the planes of high
  // digits, then those of low ones.
  static void arrange_x(const int32_t* integers, int64_t k, char* row) {
    constexpr int PLANE_BYTES = 32 / PLANES;
    char digits[64];
    split_digits(integers, PLANE_ORDER<PLANES>.order, digits);
    char* to = row + k / INPUTS * 2 * INPUTS + k % INPUTS / PLANES;
    for (int p = 0; p < PLANES; ++p) {
      std::memcpy(to + 64 * p, digits + p * PLANE_BYTES, PLANE_BYTES);
      std::memcpy(to + INPUTS + 64 * p, digits + 32 + p * PLANE_BYTES, PLANE_BYTES);
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// The inner loop of linear_packed_gemv.h with AVX-512 VNNI, which multiplies bytes, and
// VBMI, which extracts bytes at any bit offset. Glossary: linear.h.

#include "kernels/linear_packed_common.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// A chunk is a vector of 64 bytes with `planes` codes each. If codes do not fill bytes of
// w, each byte is extracted from it. Plane p is code p of every byte: input i of a chunk
// is in plane i % planes, byte i / planes.
constexpr int planes_of(int bits, int group_size) {
  // horizontal_sums needs at least 4 lanes (16 bytes) per group.
  int max_planes = group_size / 16;
  return 8 / bits < max_planes ? 8 / bits : max_planes;
}

// How 64 bytes of PACKED_BITS bits each are extracted from a chunk in memory. The chunk
// begins PAD bytes into the loaded vector.
template <int PACKED_BITS, int PAD>
struct Unpack {
  // For vpermb: the 8 bytes of memory that hold bytes 8 i ... 8 i + 7. For
  // vpmultishiftqb: where each byte begins in those 64 bits.
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

// The order of the digits of 32 integers, as split_digits takes it: plane by plane.
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

// A chunk of each of some rows of w times its inputs of x.
template <int BITS, int GROUP>
struct RowChunk {
  static constexpr int PLANES = planes_of(BITS, GROUP), PACKED_BITS = PLANES * BITS;
  static constexpr int INPUTS = 64 * PLANES, BYTES = 8 * PACKED_BITS;
  static constexpr int LOAD_BYTES = 64;
  static constexpr int LANES_PER_GROUP = GROUP < INPUTS ? GROUP / (4 * PLANES) : LANES;

  // The chunk begins `at` bytes into each row. A load from there may go beyond the chunk;
  // with is_last the load ends at the end of the chunk instead.
  template <int ROWS>
  VOXFAST_INLINE static void add(const char* const (&w)[ROWS], int64_t at, bool is_last,
                                 const char* x, i32v (&sums)[ROWS][DIGITS]) {
    constexpr int PAD = LOAD_BYTES - BYTES;
    __m512i chunks[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      chunks[r] = read<__m512i>(w[r] + at - (is_last ? PAD : 0));
      if constexpr (PACKED_BITS < 8) {
        const uint8_t* bytes =
            is_last ? UNPACK<PACKED_BITS, PAD>.bytes : UNPACK<PACKED_BITS, 0>.bytes;
        chunks[r] =
            _mm512_maskz_permutexvar_epi8(~0ULL, _mm512_load_si512(bytes), chunks[r]);
        chunks[r] = _mm512_maskz_multishift_epi64_epi8(
            ~0ULL, _mm512_load_si512(UNPACK<PACKED_BITS, 0>.bit_offsets), chunks[r]);
      }
    }
    // The loop over planes is the outer one, to have independent sums between dependent
    // ones.
#pragma GCC unroll 4
    for (int p = 0; p < PLANES; ++p) {
      auto high = read<i32v>(x + 64 * p), low = read<i32v>(x + INPUTS + 64 * p);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) {
        u32v codes = (u32v)chunks[r] >> p * BITS;
        if constexpr (BITS < 8) {
          codes &= 0x01010101u * ((1 << BITS) - 1);
        }
        sums[r][0] = add_dot(sums[r][0], codes, high);
        sums[r][1] = add_dot(sums[r][1], codes, low);
      }
    }
  }

  // Writes inputs k ... k + 31 of x. Per chunk: the planes of high digits, then those of
  // low digits.
  static void arrange_x(const int32_t* integers, int64_t k, char* out) {
    constexpr int PLANE_BYTES = 32 / PLANES;
    char digits[64];
    split_digits(integers, PLANE_ORDER<PLANES>.order, digits);
    char* to = out + k / INPUTS * 2 * INPUTS + k % INPUTS / PLANES;
    for (int p = 0; p < PLANES; ++p) {
      std::memcpy(to + 64 * p, digits + p * PLANE_BYTES, PLANE_BYTES);
      std::memcpy(to + INPUTS + 64 * p, digits + 32 + p * PLANE_BYTES, PLANE_BYTES);
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

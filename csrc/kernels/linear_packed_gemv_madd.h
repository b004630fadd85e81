#pragma once

// linear: one row of x and packed weights that are used as they are read, for processors
// without products of bytes. A block of 32 codes is 4 * BITS bytes; codes are unpacked to
// 16-bit numbers.

#include "kernels/linear_packed_common.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int LANES16 = 2 * LANES;
constexpr int CHUNK_VECTORS = BLOCK_CODES / LANES16;

// Codes that never cross a 16-bit word: each word of the block holds 16 / bits of them.
constexpr bool fits_16_bits(int bits) { return 16 % bits == 0; }

// Which code of its block lane `lane` of vector `v` holds. The activations are laid out
// to match: where codes stay in words, each vector takes some places of every word, so
// that no byte has to be moved.
constexpr int code_of_lane(int bits, int v, int lane) {
  int i = LANES16 * v + lane, words = 2 * bits;
  return fits_16_bits(bits) ? i % words * (16 / bits) + i / words : i;
}

// How the vectors of a block are cut out of it. A lane gets the word that its code lies
// in, is multiplied so that the code reaches the top, and shifted down.
template <int BITS>
struct Unpack {
  // Bytes that are loaded at once, and repeated over the vector: all words of the block,
  // or, where codes cross words, enough for 16 codes.
  static constexpr int LOAD_BYTES = fits_16_bits(BITS) ? 4 * BITS : BITS < 4 ? 8 : 16;

  alignas(64) uint16_t factors[CHUNK_VECTORS][LANES16] = {};
  // For byte shuffles: where the two bytes are that hold the code of each lane.
  alignas(64) uint8_t bytes[CHUNK_VECTORS][2 * LANES16] = {};

  // Where the bytes for codes 16 half ... 16 half + 15 begin; they lie within the block.
  static constexpr int offset(int half) {
    int first = 2 * BITS * half, last = 4 * BITS - LOAD_BYTES;
    return first < last ? first : last;
  }

  constexpr Unpack() {
    for (int v = 0; v < CHUNK_VECTORS; ++v) {
      for (int lane = 0; lane < LANES16; ++lane) {
        int code = code_of_lane(BITS, v, lane), bit = code * BITS;
        if (!fits_16_bits(BITS)) {
          bit -= 8 * offset(code / 16);
          bytes[v][2 * lane] = static_cast<uint8_t>(bit / 8);
          bytes[v][2 * lane + 1] =
              static_cast<uint8_t>(bit % 8 + BITS > 8 ? bit / 8 + 1 : 0x80);
        }
        int place = fits_16_bits(BITS) ? bit % 16 : bit % 8;
        factors[v][lane] = static_cast<uint16_t>(1 << (16 - BITS - place));
      }
    }
  }
};

template <int BITS>
alignas(64) constexpr Unpack<BITS> UNPACK;

#if defined(__AVX512BW__)
// COUNT bytes at p over and over.
template <int COUNT>
VOXFAST_INLINE u16v broadcast_bytes(const char* p) {
  if constexpr (COUNT == 8) {
    return (u16v)_mm512_set1_epi64(read<int64_t>(p));
  } else if constexpr (COUNT == 16) {
    return (u16v)_mm512_maskz_broadcast_i32x4(0xffff, read<__m128i>(p));
  } else {
    return (u16v)_mm512_maskz_broadcast_i64x4(0xff, read<__m256i>(p));
  }
}

// The words around the codes of the block, one in each lane.
template <int BITS>
VOXFAST_INLINE u16v gather_codes(const char* block, int) {
  constexpr const Unpack<BITS>& unpack = UNPACK<BITS>;
  const char *low = block + unpack.offset(0), *high = block + unpack.offset(1);
  __m512i x;
  if constexpr (unpack.LOAD_BYTES == 8) {
    x = _mm512_mask_set1_epi64(_mm512_set1_epi64(read<int64_t>(low)), 0xf0,
                               read<int64_t>(high));
  } else {
    x = _mm512_mask_broadcast_i32x4((__m512i)broadcast_bytes<16>(low), 0xff00,
                                    read<__m128i>(high));
  }
  return (u16v)_mm512_shuffle_epi8(x, _mm512_load_si512(unpack.bytes[0]));
}
#elif defined(__AVX2__)
template <int COUNT>
VOXFAST_INLINE u16v broadcast_bytes(const char* p) {
  if constexpr (COUNT == 8) {
    return (u16v)_mm256_set1_epi64x(read<int64_t>(p));
  } else {
    return (u16v)_mm256_broadcastsi128_si256(read<__m128i>(p));
  }
}

template <int BITS>
VOXFAST_INLINE u16v gather_codes(const char* block, int v) {
  constexpr const Unpack<BITS>& unpack = UNPACK<BITS>;
  auto x = (__m256i)broadcast_bytes<unpack.LOAD_BYTES>(block + unpack.offset(v));
  return (u16v)_mm256_shuffle_epi8(x, _mm256_load_si256((const __m256i*)unpack.bytes[v]));
}
#else
template <int COUNT>
VOXFAST_INLINE u16v broadcast_bytes(const char* p) {
  static_assert(COUNT == 8);
  auto half = read<int64_t>(p);
  int64_t both[2] = {half, half};
  return read<u16v>(both);
}

template <int BITS>
VOXFAST_INLINE u16v gather_codes(const char* block, int v) {
  constexpr const Unpack<BITS>& unpack = UNPACK<BITS>;
  auto* p = reinterpret_cast<const uint8_t*>(block + unpack.offset(v * LANES16 / 16));
  u16v x;
  for (int lane = 0; lane < LANES16; ++lane) {
    int second = unpack.bytes[v][2 * lane + 1];
    int high = second < 0x80 ? p[second] : 0;
    x[lane] = static_cast<uint16_t>(p[unpack.bytes[v][2 * lane]] | high << 8);
  }
  return x;
}
#endif

// The codes of vector v of the block.
template <int BITS>
VOXFAST_INLINE i16v unpack_codes(const char* block, int v) {
  constexpr const Unpack<BITS>& unpack = UNPACK<BITS>;
  u16v x;
  if constexpr (!fits_16_bits(BITS)) {
    x = gather_codes<BITS>(block, v);
  } else if constexpr (unpack.LOAD_BYTES < sizeof x) {
    x = broadcast_bytes<unpack.LOAD_BYTES>(block);
  } else {
    x = read<u16v>(block + 2 * (v * LANES16 % (2 * BITS)));
  }
  return (i16v)(x * read<u16v>(unpack.factors[v]) >> (16 - BITS));
}

// A block of some rows of w times its inputs of x.
template <int BITS, int GROUP>
struct RowChunk {
  static constexpr int INPUTS = BLOCK_CODES;
  static constexpr int BYTES = INPUTS / 8 * BITS, LOAD_BYTES = BYTES;
  static constexpr int LANES_PER_GROUP = LANES;  // lanes that a group's products lie in

  // The block begins `at` bytes after each row.
  template <int ROWS>
  VOXFAST_INLINE static void add(const char* const (&rows)[ROWS], int64_t at, bool,
                                 const char* x, i32v (&sums)[ROWS][DIGITS]) {
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < CHUNK_VECTORS; ++v) {
        sums[r][0] = add_dot(sums[r][0], (u32v)unpack_codes<BITS>(rows[r] + at, v),
                             read<i32v>(x + v * static_cast<int>(sizeof(i32v))));
      }
    }
  }

  // Lays out 32 integers of x, the first being input k, in the order of the codes' lanes.
  static void arrange_x(const int32_t* integers, int64_t k, char* row) {
    auto* to = reinterpret_cast<int16_t*>(row) + k;
    for (int i = 0; i < BLOCK_CODES; ++i) {
      to[i] =
          static_cast<int16_t>(integers[code_of_lane(BITS, i / LANES16, i % LANES16)]);
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

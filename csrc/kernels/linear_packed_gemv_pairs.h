#pragma once

// The inner loop of linear_packed_gemv.h without dot products of bytes: codes are
// unpacked to int16 and multiplied with madd, on arm64 with SMLAL. A chunk is a block, 32
// codes in 4 * BITS bytes. Glossary: linear.h.

#include "kernels/linear_packed_common.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int ELEMENTS = 2 * LANES;  // of a vector
constexpr int CHUNK_VECTORS = BLOCK_CODES / ELEMENTS;

// The code of a chunk that is unpacked to an element of vector v; x is permuted to match.
// If codes fit elements, a vector takes codes at the same bits of all 16-bit parts of the
// chunk, so that no byte has to move.
constexpr int code_of_element(int bits, int v, int element) {
  int i = ELEMENTS * v + element, parts = 2 * bits;
  return fits_element(bits) ? i % parts * (16 / bits) + i / parts : i;
}

// How a chunk is unpacked. Each element gets the 16 bits around its code, which move to
// the left until the code is in the highest bits (USHL, or a product with a power of
// two), and back to the right.
template <int BITS>
struct Unpack {
  // Bytes to load and repeat over the vector: the whole chunk if codes fit elements, else
  // enough for 16 codes.
  static constexpr int LOAD_BYTES = fits_element(BITS) ? 4 * BITS : BITS < 4 ? 8 : 16;

  alignas(64) uint16_t factors[CHUNK_VECTORS][ELEMENTS] = {};
  alignas(64) int16_t shifts[CHUNK_VECTORS][ELEMENTS] = {};
  // For byte shuffles: the two bytes that hold the code of each element.
  alignas(64) uint8_t bytes[CHUNK_VECTORS][2 * ELEMENTS] = {};

  // Where to load codes 16 half ... 16 half + 15 from, without reading beyond the chunk.
  static constexpr int offset(int half) {
    int first = 2 * BITS * half, last = 4 * BITS - LOAD_BYTES;
    return first < last ? first : last;
  }

  constexpr Unpack() {
    for (int v = 0; v < CHUNK_VECTORS; ++v) {
      for (int element = 0; element < ELEMENTS; ++element) {
        int code = code_of_element(BITS, v, element), bit = code * BITS;
        if (!fits_element(BITS)) {
          bit -= 8 * offset(code / 16);
          bytes[v][2 * element] = static_cast<uint8_t>(bit / 8);
          bytes[v][2 * element + 1] =
              static_cast<uint8_t>(bit % 8 + BITS > 8 ? bit / 8 + 1 : 0x80);
        }
        int shift = 16 - BITS - bit % (fits_element(BITS) ? 16 : 8);
        shifts[v][element] = static_cast<int16_t>(shift);
        factors[v][element] = static_cast<uint16_t>(1 << shift);
      }
    }
  }
};

template <int BITS>
alignas(64) constexpr Unpack<BITS> UNPACK;

#if defined(__AVX512BW__)
// The COUNT bytes at p, repeated over the vector.
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

// The 16 bits around the code of each element.
template <int BITS>
VOXFAST_INLINE u16v gather_codes(const char* chunk, int) {
  constexpr const Unpack<BITS>& unpack = UNPACK<BITS>;
  const char *low = chunk + unpack.offset(0), *high = chunk + unpack.offset(1);
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
VOXFAST_INLINE u16v gather_codes(const char* chunk, int v) {
  constexpr const Unpack<BITS>& unpack = UNPACK<BITS>;
  auto x = (__m256i)broadcast_bytes<unpack.LOAD_BYTES>(chunk + unpack.offset(v));
  return (u16v)_mm256_shuffle_epi8(x, _mm256_load_si256((const __m256i*)unpack.bytes[v]));
}
#else
template <int COUNT>
VOXFAST_INLINE u16v broadcast_bytes(const char* p) {
  static_assert(COUNT == 8);
  typedef int64_t i64x2 __attribute__((vector_size(16)));
  return (u16v)(i64x2{} + read<int64_t>(p));
}

template <int BITS>
VOXFAST_INLINE u16v gather_codes(const char* chunk, int v) {
  constexpr const Unpack<BITS>& unpack = UNPACK<BITS>;
  auto* p = reinterpret_cast<const uint8_t*>(chunk + unpack.offset(v * ELEMENTS / 16));
#if defined(__aarch64__)
  uint8x16_t x;
  if constexpr (unpack.LOAD_BYTES == 8) {
    x = vcombine_u8(vld1_u8(p), vdup_n_u8(0));
  } else {
    x = vld1q_u8(p);
  }
  return (u16v)vqtbl1q_u8(x, vld1q_u8(unpack.bytes[v]));
#else
  u16v x;
  for (int element = 0; element < ELEMENTS; ++element) {
    int second = unpack.bytes[v][2 * element + 1];
    int high = second < 0x80 ? p[second] : 0;
    x[element] = static_cast<uint16_t>(p[unpack.bytes[v][2 * element]] | high << 8);
  }
  return x;
#endif
}
#endif

// The codes of vector v of the chunk.
template <int BITS>
VOXFAST_INLINE i16v unpack_codes(const char* chunk, int v) {
  constexpr const Unpack<BITS>& unpack = UNPACK<BITS>;
  u16v x;
  if constexpr (!fits_element(BITS)) {
    x = gather_codes<BITS>(chunk, v);
  } else if constexpr (unpack.LOAD_BYTES < sizeof x) {
    x = broadcast_bytes<unpack.LOAD_BYTES>(chunk);
  } else {
    x = read<u16v>(chunk + 2 * (v * ELEMENTS % (2 * BITS)));
  }
#if defined(__aarch64__)
  x = (u16v)vshlq_u16((uint16x8_t)x, vld1q_s16(unpack.shifts[v]));
#else
  x *= read<u16v>(unpack.factors[v]);
#endif
  return (i16v)(x >> (16 - BITS));
}

// A chunk of each of some rows of w times its inputs of x.
template <int BITS, int GROUP>
struct RowChunk {
  static constexpr int INPUTS = BLOCK_CODES;
  static constexpr int BYTES = INPUTS / 8 * BITS, LOAD_BYTES = BYTES;
  static constexpr int LANES_PER_GROUP = LANES;

  template <int ROWS>
  using Sums = i32v[ROWS][DIGITS];

  // The chunk begins `at` bytes into each row.
  template <int ROWS>
  VOXFAST_INLINE static void add(const char* const (&w)[ROWS], int64_t at, bool,
                                 const char* x, Sums<ROWS>& sums) {
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < CHUNK_VECTORS; ++v) {
        sums[r][0] = add_dot(sums[r][0], (u32v)unpack_codes<BITS>(w[r] + at, v),
                             read<i32v>(x + v * static_cast<int>(sizeof(i32v))));
      }
    }
  }

  // Writes inputs k ... k + 31 of x in the order of code_of_element.
  static void arrange_x(const int32_t* integers, int64_t k, char* out) {
    auto* to = reinterpret_cast<int16_t*>(out) + k;
    for (int i = 0; i < BLOCK_CODES; ++i) {
      to[i] = static_cast<int16_t>(
          integers[code_of_element(BITS, i / ELEMENTS, i % ELEMENTS)]);
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// The inner loop of linear_packed_gemv.h with dot products of bytes: AVX-512 VNNI with
// VBMI, NEON SDOT and SMMLA. Glossary: linear.h.

#include "kernels/linear_packed_common.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int VECTOR_BYTES = 4 * LANES;

// A chunk is a vector of bytes with `planes` codes each. If codes do not fill bytes of w,
// each byte is extracted from it. Plane p is code p of every byte: input i of a chunk is
// in plane i % planes, byte i / planes.
constexpr int planes_of(int bits, int group_size) {
  // horizontal_sums needs at least 4 lanes (16 bytes) per group.
  int max_planes = group_size / 16;
  return 8 / bits < max_planes ? 8 / bits : max_planes;
}

#if defined(__AVX512F__)
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

// Bytes to load for a chunk.
constexpr int load_bytes(int) { return VECTOR_BYTES; }

// Extracts the bytes of a chunk, whose bits above PACKED_BITS may be anything. The chunk
// ends at the end of the vector if is_last, else it begins at its begin.
template <int PACKED_BITS>
VOXFAST_INLINE u32v extract_bytes(__m512i x, bool is_last) {
  constexpr int PAD = VECTOR_BYTES - VECTOR_BYTES / 8 * PACKED_BITS;
  if constexpr (PACKED_BITS < 8) {
    const uint8_t* bytes =
        is_last ? UNPACK<PACKED_BITS, PAD>.bytes : UNPACK<PACKED_BITS, 0>.bytes;
    x = _mm512_maskz_permutexvar_epi8(~0ULL, _mm512_load_si512(bytes), x);
    x = _mm512_maskz_multishift_epi64_epi8(
        ~0ULL, _mm512_load_si512(UNPACK<PACKED_BITS, 0>.bit_offsets), x);
  }
  return (u32v)x;
}

// Loads a chunk and extracts its bytes. A load may go beyond the chunk; with is_last it
// ends at the end of the chunk instead.
template <int PACKED_BITS>
VOXFAST_INLINE u32v load_chunk_bytes(const char* p, bool is_last) {
  constexpr int PAD = VECTOR_BYTES - VECTOR_BYTES / 8 * PACKED_BITS;
  return extract_bytes<PACKED_BITS>(read<__m512i>(p - (is_last ? PAD : 0)), is_last);
}

// Code `plane` of every byte.
template <int BITS>
VOXFAST_INLINE u32v plane_codes(u32v bytes, int plane) {
  u32v codes = bytes >> plane * BITS;
  return BITS < 8 ? codes & 0x01010101u * ((1 << BITS) - 1) : codes;
}
#else
// How 16 bytes of PACKED_BITS bits each are extracted from a chunk in memory, in halves.
template <int PACKED_BITS>
struct Unpack {
  // For TBL: the two bytes of memory that hold each byte. For USHL: by how much to shift
  // them to the left.
  alignas(16) uint8_t bytes[2][16] = {};
  alignas(16) int16_t shifts[8] = {};

  // Where to load 8 bytes for a half from, without reading beyond the chunk.
  static constexpr int offset(int half) { return half * (2 * PACKED_BITS - 8); }

  constexpr Unpack() {
    for (int i = 0; i < 16; ++i) {
      int bit = i * PACKED_BITS - 8 * offset(i / 8), byte = bit / 8;
      bytes[i / 8][i % 8 * 2] = static_cast<uint8_t>(byte);
      bytes[i / 8][i % 8 * 2 + 1] = static_cast<uint8_t>(byte + 1);
      shifts[i % 8] = static_cast<int16_t>(-(bit % 8));
    }
  }
};

template <int PACKED_BITS>
constexpr Unpack<PACKED_BITS> UNPACK;

constexpr int load_bytes(int packed_bits) { return VECTOR_BYTES / 8 * packed_bits; }

// Extracts half of a chunk's bytes as 16-bit numbers, of which more than PACKED_BITS bits
// may be anything.
template <int PACKED_BITS>
VOXFAST_INLINE uint8x16_t load_half(const char* p, int half) {
  constexpr const Unpack<PACKED_BITS>& unpack = UNPACK<PACKED_BITS>;
  auto x = read<uint8x8_t>(p + unpack.offset(half));
  uint8x16_t pairs =
      vqtbl1q_u8(vcombine_u8(x, vdup_n_u8(0)), vld1q_u8(unpack.bytes[half]));
  return (uint8x16_t)vshlq_u16((uint16x8_t)pairs, vld1q_s16(unpack.shifts));
}

#if defined(VOXFAST_DIGIT_PAIRS)
// Loads a chunk of each of two rows and extracts its bytes, whose bits above PACKED_BITS
// may be anything: the first halves of both chunks, then the second halves.
template <int PACKED_BITS>
VOXFAST_INLINE void load_pair_bytes(const char* p, const char* q, u32v (&out)[2]) {
  if constexpr (PACKED_BITS == 8) {
    auto first = read<uint64x2_t>(p), second = read<uint64x2_t>(q);
    out[0] = (u32v)vzip1q_u64(first, second);
    out[1] = (u32v)vzip2q_u64(first, second);
  } else {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      out[i] =
          (u32v)vuzp1q_u8(load_half<PACKED_BITS>(p, i), load_half<PACKED_BITS>(q, i));
    }
  }
}
#else
// Loads a chunk and extracts its bytes, whose bits above PACKED_BITS may be anything.
template <int PACKED_BITS>
VOXFAST_INLINE u32v load_chunk_bytes(const char* p, bool) {
  if constexpr (PACKED_BITS == 8) {
    return read<u32v>(p);
  } else {
    return (u32v)vuzp1q_u8(load_half<PACKED_BITS>(p, 0), load_half<PACKED_BITS>(p, 1));
  }
}
#endif

// Code `plane` of every byte, less code_offset.
template <int BITS>
VOXFAST_INLINE u32v plane_codes(u32v bytes, int plane) {
  typedef uint8_t u8v __attribute__((vector_size(VECTOR_BYTES)));
  u8v codes = (u8v)bytes >> plane * BITS;
  if ((plane + 1) * BITS < 8) {  // else the shift leaves nothing above
    codes &= static_cast<uint8_t>((1 << BITS) - 1);
  }
  return (u32v)(codes ^ static_cast<uint8_t>(code_offset(BITS)));
}
#endif

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
  static constexpr int INPUTS = VECTOR_BYTES * PLANES;
  static constexpr int BYTES = VECTOR_BYTES / 8 * PACKED_BITS;
  static constexpr int LOAD_BYTES = load_bytes(PACKED_BITS);
  static constexpr int LANES_PER_GROUP = GROUP < INPUTS ? GROUP / (4 * PLANES) : LANES;

#if defined(VOXFAST_DIGIT_PAIRS)
  static constexpr int DIGIT_BYTES = VECTOR_BYTES / 2;

  template <int ROWS>
  using Sums = i32v[ROWS / 2][2];  // of two rows, of each half of their chunks

  // The chunk begins `at` bytes into each row.
  template <int ROWS>
  VOXFAST_INLINE static void add(const char* const (&w)[ROWS], int64_t at, bool,
                                 const char* x, Sums<ROWS>& sums) {
    u32v chunks[ROWS / 2][2];
#pragma GCC unroll 2
    for (int r = 0; r < ROWS; r += 2) {
      load_pair_bytes<PACKED_BITS>(w[r] + at, w[r + 1] + at, chunks[r / 2]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2 * PLANES; ++i, x += VECTOR_BYTES) {
      auto digits = read<i32v>(x);
#pragma GCC unroll 2
      for (int r = 0; r < ROWS / 2; ++r) {
        add_pair(sums[r][i % 2], plane_codes<BITS>(chunks[r][i % 2], i / 2), digits);
      }
    }
  }
#else
  static constexpr int DIGIT_BYTES = VECTOR_BYTES;

  template <int ROWS>
  using Sums = i32v[ROWS][DIGITS];

  // The chunk begins `at` bytes into each row.
  template <int ROWS>
  VOXFAST_INLINE static void add(const char* const (&w)[ROWS], int64_t at, bool is_last,
                                 const char* x, Sums<ROWS>& sums) {
    u32v chunks[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      chunks[r] = load_chunk_bytes<PACKED_BITS>(w[r] + at, is_last);
    }
    // The loop over planes is the outer one, to have independent sums between dependent
    // ones.
#pragma GCC unroll 4
    for (int p = 0; p < PLANES; ++p, x += 2 * VECTOR_BYTES) {
      auto high = read<i32v>(x), low = read<i32v>(x + VECTOR_BYTES);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) {
        u32v codes = plane_codes<BITS>(chunks[r], p);
        sums[r][0] = add_dot(sums[r][0], codes, high);
        sums[r][1] = add_dot(sums[r][1], codes, low);
      }
    }
  }
#endif

  // Writes inputs k ... k + 31 of x. Per chunk and plane, for each DIGIT_BYTES inputs:
  // their high digits, then their low digits.
  static void arrange_x(const int32_t* integers, int64_t k, char* out) {
    constexpr int PLANE_BYTES = 32 / PLANES;
    constexpr int PIECE = PLANE_BYTES < DIGIT_BYTES ? PLANE_BYTES : DIGIT_BYTES;
    char digits[64];
    split_digits(integers, PLANE_ORDER<PLANES>.order, digits);
    for (int i = 0; i < 32; i += PIECE) {
      int64_t plane = i / PLANE_BYTES, input = k + i % PLANE_BYTES * PLANES;
      int64_t at = input % INPUTS / PLANES;  // within the plane
      char* to = out + 2 * (input / INPUTS * INPUTS + VECTOR_BYTES * plane) +
                 at / DIGIT_BYTES * 2 * DIGIT_BYTES + at % DIGIT_BYTES;
      std::memcpy(to, digits + i, PIECE);
      std::memcpy(to + DIGIT_BYTES, digits + 32 + i, PIECE);
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// linear: packed weights. MLX packs the codes of a row as one string of bits, lowest bits
// first, so a block of 32 codes is 4 * BITS bytes; every group is whole blocks.

#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int BLOCK_CODES = 32;
constexpr int BLOCK_VECTORS = BLOCK_CODES / LANES;

// Which code of its block lane `lane` of vector `v` holds. The activations are laid out
// to match, so that unpacking needs no shuffle where that can be helped.
constexpr int code_of_lane(int bits, int v, int lane) {
  if (LANES == 16 && bits == 4) {
    return 16 * v + 8 * (lane % 2) + lane / 2;
  }
  return LANES * v + lane;
}

// How the vectors of a block are cut out of it: LOADED bytes from an offset on, which lie
// within the block, are repeated over the vector; each lane shifts its code down.
template <int BITS>
struct Windows {
  static constexpr int LOADED = LANES * BITS <= 32 ? 4 : LANES * BITS <= 64 ? 8 : 16;

  int offset[BLOCK_VECTORS] = {};
  alignas(64) int32_t shifts[BLOCK_VECTORS][LANES] = {};
  // For byte shuffles: brings the two bytes around the code into the lane.
  alignas(64) uint8_t bytes[BLOCK_VECTORS][4 * LANES] = {};

  constexpr Windows() {
    for (int v = 0; v < BLOCK_VECTORS; ++v) {
      int first = v * LANES * BITS / 8, last = 4 * BITS - LOADED;
      offset[v] = first < last ? first : last;
      for (int lane = 0; lane < LANES; ++lane) {
        int bit = code_of_lane(BITS, v, lane) * BITS - 8 * offset[v];
        bool shuffled = SHUFFLED;
        shifts[v][lane] = shuffled ? bit % 8 : bit % 32;
        bytes[v][4 * lane] = static_cast<uint8_t>(bit / 8);
        bytes[v][4 * lane + 1] =
            static_cast<uint8_t>(bit % 8 + BITS > 8 ? bit / 8 + 1 : 0x80);
        bytes[v][4 * lane + 2] = bytes[v][4 * lane + 3] = 0x80;
      }
    }
  }

  // Whether lanes need other bytes than their share of the repeated ones.
  static constexpr bool SHUFFLED = LOADED > 4 && !(LANES == 16 && BITS == 4);
};

template <int BITS>
alignas(64) constexpr Windows<BITS> WINDOWS;

template <typename T>
VOXFAST_INLINE T read(const uint8_t* p) {
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

VOXFAST_INLINE i32v shift_right(i32v x, const int32_t* by) {
  typedef uint32_t u32v __attribute__((vector_size(LANES * 4)));
  u32v shifts;
  std::memcpy(&shifts, by, sizeof shifts);
  return (i32v)((u32v)x >> shifts);
}

// The codes of vector v of the block, in the low BITS bits of each lane. What stands
// above them is left there, but for 8 bits.
template <int BITS>
VOXFAST_INLINE i32v raw_codes(const uint8_t* block, int v) {
  constexpr const Windows<BITS>& windows = WINDOWS<BITS>;
  const uint8_t* p = block + windows.offset[v];
#if defined(__AVX512F__)
  if constexpr (BITS == 8) {
    return (i32v)_mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128((const __m128i*)p));
  } else {
    __m512i x;
    if constexpr (windows.LOADED == 16) {
      x = _mm512_maskz_broadcast_i32x4(0xffff, _mm_loadu_si128((const __m128i*)p));
    } else if constexpr (windows.LOADED == 8) {
      x = _mm512_set1_epi64(read<int64_t>(p));
    } else {
      x = _mm512_set1_epi32(read<int32_t>(p));
    }
    if constexpr (windows.SHUFFLED) {
      x = _mm512_shuffle_epi8(x, _mm512_load_si512(windows.bytes[v]));
    }
    return shift_right((i32v)x, windows.shifts[v]);
  }
#elif defined(__AVX2__)
  if constexpr (BITS == 8) {
    return (i32v)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  } else if constexpr (windows.SHUFFLED) {
    __m256i x = _mm256_shuffle_epi8(_mm256_set1_epi64x(read<int64_t>(p)),
                                    _mm256_load_si256((const __m256i*)windows.bytes[v]));
    return shift_right((i32v)x, windows.shifts[v]);
  } else {
    return shift_right((i32v)_mm256_set1_epi32(read<int32_t>(p)), windows.shifts[v]);
  }
#else
  return shift_right(i32v{} + read<int32_t>(p), windows.shifts[v]);
#endif
}

// Scale and bias of one group of one row; gives its weights, code * scale + bias in
// float32.
template <int BITS>
class Group {
 public:
  Group() = default;

  VOXFAST_INLINE Group(float scale, float bias)
      : scale_(broadcast(scale)), bias_(broadcast(bias)) {
    for (int t = 0; t < TABLES; ++t) {
      i32v codes;
      for (int lane = 0; lane < LANES; ++lane) {
        codes[lane] = (t * LANES + lane) & MASK;
      }
      table_[t] = __builtin_convertvector(codes, f32v) * scale_ + bias_;
    }
  }

  // Vector v of the block.
  VOXFAST_INLINE f32v weights(const uint8_t* block, int v) const {
    i32v codes = raw_codes<BITS>(block, v);
#if defined(__AVX512F__)
    if constexpr (TABLES == 1) {
      return (f32v)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)codes, (__m512)table_[0]);
    } else if constexpr (TABLES == 2) {
      return (f32v)_mm512_permutex2var_ps((__m512)table_[0], (__m512i)codes,
                                          (__m512)table_[1]);
    }
#endif
    if constexpr (BITS < 8 || LANES == 4) {
      codes &= MASK;
    }
    return __builtin_convertvector(codes, f32v) * scale_ + bias_;
  }

 private:
  static constexpr int MASK = (1 << BITS) - 1;
  // Of few bits, a group's weights are a table in one or two vectors of 16.
  static constexpr int TABLES = LANES < 16 ? 0 : BITS <= 4 ? 1 : BITS == 5 ? 2 : 0;

  f32v scale_, bias_;
  f32v table_[TABLES > 0 ? TABLES : 1];
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

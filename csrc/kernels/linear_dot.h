#pragma once

// linear by dot products in float32: lanes along K, so rows of w are read as they lie.
//
// What one output is does not depend on what is computed beside it: for every K_BLOCK
// inputs one vector accumulates in order and its lanes are added up, and these sums are
// added in order. Few rows of x unpack each weight in registers as they meet it; for many
// rows a panel of weights is first unpacked into cached memory, to the same numbers.

#include "kernels/linear_arguments.h"
#include "kernels/linear_codes.h"
#include "kernels/linear_rows.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int64_t K_BLOCK = 1024;
constexpr int64_t M_BLOCK = 128;
constexpr int64_t N_BLOCK = 24;  // a multiple of TILE_N, whatever it is
constexpr int64_t MAX_GROUPS = K_BLOCK / BLOCK_CODES;
constexpr int FEW_ROWS = 4;

// Rows of x by rows of w in the registers: of many rows of x, and of few.
constexpr int TILE_M = LANES == 8 ? 3 : 4;
constexpr int TILE_N = LANES == 16 ? 6 : 4;
constexpr int FEW_N = 4;

// One register tile: MR rows of x by NR rows of w, over `count` inputs.
template <int MR, int NR>
struct DotTile {
  const float* x;  // [MR], x_stride floats apart
  int64_t x_stride;
  const char* w[NR];
  int64_t count;
  float* sums;  // [MR, N_BLOCK], added to

  VOXFAST_INLINE void finish(const f32v (&total)[NR][MR]) const {
    for (int m = 0; m < MR; ++m) {
      for (int r = 0; r < NR; ++r) {
        sums[m * N_BLOCK + r] += sum_halves(total[r][m]);
      }
    }
  }
};

template <typename T, int MR, int NR>
void multiply_floats(const DotTile<MR, NR>& tile) {
  f32v total[NR][MR] = {};
  auto step = [&](int64_t k, auto load_w) __attribute__((always_inline)) {
    f32v x[MR];
    for (int m = 0; m < MR; ++m) {
      x[m] = load(tile.x + m * tile.x_stride + k);
    }
    for (int r = 0; r < NR; ++r) {
      f32v w = load_w(reinterpret_cast<const T*>(tile.w[r]) + k);
      for (int m = 0; m < MR; ++m) {
        total[r][m] = w * x[m] + total[r][m];
      }
    }
  };
  int64_t whole = tile.count / LANES * LANES;
  for (int64_t k = 0; k < whole; k += LANES) {
    step(k, [](const T* p) { return load(p); });
  }
  if (whole < tile.count) {
    step(whole, [&](const T* p) { return load_first(p, tile.count - whole); });
  }
  tile.finish(total);
}

// scales and biases: [NR, MAX_GROUPS], of the groups that the tile's inputs lie in.
template <int BITS, int MR, int NR>
void multiply_codes(const DotTile<MR, NR>& tile, int group_size, const float* scales,
                    const float* biases) {
  f32v total[NR][MR] = {};
  const float* x = tile.x;
  int64_t offset = 0;
  for (int64_t g = 0; g * group_size < tile.count; ++g) {
    Group<BITS> groups[NR];
    for (int r = 0; r < NR; ++r) {
      groups[r] = Group<BITS>(scales[r * MAX_GROUPS + g], biases[r * MAX_GROUPS + g]);
    }
    for (int k = 0; k < group_size; k += BLOCK_CODES, offset += 4 * BITS) {
#pragma GCC unroll 8
      for (int v = 0; v < BLOCK_VECTORS; ++v, x += LANES) {
        f32v xs[MR];
        for (int m = 0; m < MR; ++m) {
          xs[m] = load(x + m * tile.x_stride);
        }
        for (int r = 0; r < NR; ++r) {
          auto* block = reinterpret_cast<const uint8_t*>(tile.w[r]) + offset;
          f32v w = groups[r].weights(block, v);
          for (int m = 0; m < MR; ++m) {
            total[r][m] = w * xs[m] + total[r][m];
          }
        }
      }
    }
  }
  tile.finish(total);
}

// At most K_BLOCK inputs of some rows of w, and what their codes are worth.
struct Stretch {
  int64_t first, count;
  const char* w[N_BLOCK];  // rows that do not exist repeat the last one
  float scales[N_BLOCK * MAX_GROUPS], biases[N_BLOCK * MAX_GROUPS];
};

void take_stretch(const LinearArguments& a, int64_t n, int64_t rows, int64_t first,
                  Stretch& s) {
  s.first = first;
  s.count = smallest(a.k - first, K_BLOCK);
  int64_t skip = a.bits > 0 ? first / 8 * a.bits : first * float_size(a.w_type);
  for (int64_t r = 0; r < rows; ++r) {
    int64_t row = smallest(n + r, a.n - 1);
    s.w[r] = a.w + row * a.w_stride + skip;
    if (a.bits > 0) {
      int64_t group = first / a.group_size, count = s.count / a.group_size;
      load_floats(a.scales, a.scale_type, row * a.scale_stride + group, 1, count,
                  s.scales + r * MAX_GROUPS);
      load_floats(a.biases, a.scale_type, row * a.bias_stride + group, 1, count,
                  s.biases + r * MAX_GROUPS);
    }
  }
}

template <int BITS>
void unpack_codes(const LinearArguments& a, const Stretch& s, int64_t r, float* out) {
  auto* block = reinterpret_cast<const uint8_t*>(s.w[r]);
  for (int64_t g = 0; g * a.group_size < s.count; ++g) {
    Group<BITS> group(s.scales[r * MAX_GROUPS + g], s.biases[r * MAX_GROUPS + g]);
    for (int k = 0; k < a.group_size; k += BLOCK_CODES, block += 4 * BITS) {
#pragma GCC unroll 8
      for (int v = 0; v < BLOCK_VECTORS; ++v, out += LANES) {
        store(out, group.weights(block, v));
      }
    }
  }
}

// Unpacks row r of a stretch.
void unpack_row(const LinearArguments& a, const Stretch& s, int64_t r, float* out) {
  switch (a.bits) {
    case 2:
      return unpack_codes<2>(a, s, r, out);
    case 3:
      return unpack_codes<3>(a, s, r, out);
    case 4:
      return unpack_codes<4>(a, s, r, out);
    case 5:
      return unpack_codes<5>(a, s, r, out);
    case 6:
      return unpack_codes<6>(a, s, r, out);
    case 8:
      return unpack_codes<8>(a, s, r, out);
    default:
      return load_floats(s.w[r], a.w_type, 0, 1, s.count, out);
  }
}

// MR rows of x by FEW_N rows of w.
template <int MR>
void multiply_few(const LinearArguments& a, const Stretch& s, const float* x,
                  int64_t x_stride, float* sums) {
  DotTile<MR, FEW_N> tile{x, x_stride, {}, s.count, sums};
  std::memcpy(tile.w, s.w, sizeof tile.w);
  auto codes = [&](auto multiply) { multiply(tile, a.group_size, s.scales, s.biases); };
  switch (a.bits) {
    case 2:
      return codes(multiply_codes<2, MR, FEW_N>);
    case 3:
      return codes(multiply_codes<3, MR, FEW_N>);
    case 4:
      return codes(multiply_codes<4, MR, FEW_N>);
    case 5:
      return codes(multiply_codes<5, MR, FEW_N>);
    case 6:
      return codes(multiply_codes<6, MR, FEW_N>);
    case 8:
      return codes(multiply_codes<8, MR, FEW_N>);
    default:
      break;
  }
  switch (a.w_type) {
    case FloatType::float32:
      return multiply_floats<float>(tile);
    case FloatType::float16:
      return multiply_floats<f16>(tile);
    case FloatType::bfloat16:
      return multiply_floats<bf16>(tile);
  }
}

// MR rows of x by `rows` rows of float32 w, a multiple of TILE_N.
template <int MR>
void multiply_many(const char* const* w, int64_t rows, int64_t count, const float* x,
                   int64_t x_stride, float* sums) {
  for (int64_t r = 0; r < rows; r += TILE_N) {
    DotTile<MR, TILE_N> tile{x, x_stride, {}, count, sums + r};
    std::memcpy(tile.w, w + r, sizeof tile.w);
    multiply_floats<float>(tile);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// linear with packed weights: products of integers, exact, summed up in 32 bits over each
// group, then in float32 over groups.
//
// Each group of a row of x is rounded to integers of 15 bits and sign with a power of two
// as its unit: 2^-15 of the greatest number in the group is about the most that any
// number loses, and those of half precision lose nothing unless they are much smaller
// than it. With codes c worth c * scale + bias, a group adds
//   scale * unit * (sum of c * integer) + bias * unit * (sum of integers).
//
// Lanes are outputs. Of a panel of rows of w, some inputs at a time are transposed into
// words (linear_words.h) in the first cache; every row of x then meets them with nothing
// to be added up across lanes. Groups are added in their order, so what a row of x
// becomes does not depend on the rows beside it.

#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/linear_packed_common.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

struct PackedGemm {
  static constexpr int VECTORS = 2;  // of outputs, in a panel
  static constexpr int64_t PANEL = VECTORS * LANES;
  static constexpr int64_t KC = 512;
  static constexpr int64_t MAX_GROUPS = KC / 32;
  static constexpr int MAX_MR = 6;

  static int64_t panel(const LinearArguments&) { return PANEL; }
  static bool is_gemv(const LinearArguments&) { return false; }

  // Prepared x, of each row: the integers as words; then of each group the unit, and the
  // sum of its integers times the unit.
  static int64_t prepared_stride(const LinearArguments& a) {
    return round_up<int64_t>(2 * a.k + 8 * a.groups, 64);
  }

  struct PreparedRow {
    char* integers;
    float *x_scales, *sums;

    VOXFAST_INLINE PreparedRow(const LinearArguments& a, int64_t row) {
      integers = a.prepared + row * a.prepared_stride;
      x_scales = reinterpret_cast<float*>(integers + 2 * a.k);
      sums = x_scales + a.groups;
    }
  };

  static void prepare(const LinearArguments& a, int64_t row) {
    PreparedRow out(a, row);
    with_bits(a.bits, [&]<int BITS>() {
      for (int64_t g = 0; g < a.groups; ++g) {
        int32_t integers[128];
        const QuantizedGroup group(a, row, g, integers);
        out.x_scales[g] = group.scale;
        out.sums[g] = group.sum;
        for (int i = 0; i < a.group_size; i += BLOCK_CODES) {
          arrange_x<BITS>(integers + i, out.integers + 2 * (g * a.group_size + i));
        }
      }
    });
  }

  static void multiply(const LinearArguments& a, int64_t task) {
    gemm_task<PANEL>(a, task,
                     [&](int64_t first, int64_t k, int64_t m, int64_t rows, float* sums) {
                       const PanelSlice slice(a, first, k);
                       for (int64_t i = 0; i < rows; i += MAX_MR) {
                         add_tile<MAX_MR>(a, slice, m + i, rows - i, sums + i * PANEL);
                       }
                     });
  }

 private:
  // A stretch of inputs of a panel, lanes across: vector v of each is of outputs
  // v * LANES ... .
  struct PanelSlice {
    int64_t first, first_group, groups;
    alignas(64) u32v codes[KC / CODES_PER_LANE][VECTORS];
    f32v scales[MAX_GROUPS][VECTORS], biases[MAX_GROUPS][VECTORS];

    PanelSlice(const LinearArguments& a, int64_t n, int64_t first_)
        : first(first_), first_group(first_ / a.group_size) {
      int64_t count = min(a.k - first, a.slice);
      groups = count / a.group_size;
      const PanelPointers pointers(a, {n, PANEL, 1, a.n - 1, PANEL}, first);
      for (int v = 0; v < VECTORS; ++v) {
        with_bits(a.bits, [&]<int BITS>() {
          unpack<BITS>(pointers.current + v * LANES, pointers.prefetch + v * LANES, count,
                       v);
        });
        with_type(a.scale_type, [&]<typename T>(T*) __attribute__((always_inline)) {
          load_groups<T>(a, n + v * LANES, v);
        });
      }
    }

   private:
    template <int BITS>
    void unpack(const char* const* rows, const char* const* prefetch, int64_t count,
                int v) {
      constexpr int BLOCK_LANES = BLOCK_CODES / CODES_PER_LANE;
      u32v packed[KC / 32 * BITS + LANES];
      transpose_columns(rows, prefetch, count / 32 * BITS, packed);
      for (int64_t b = 0; b < count / BLOCK_CODES; ++b) {
#pragma GCC unroll 16
        for (int i = 0; i < BLOCK_LANES; ++i) {
          codes[b * BLOCK_LANES + i][v] = unpack_lane<BITS>(packed + b * BITS, i);
        }
      }
    }

    template <typename T>
    void load_groups(const LinearArguments& a, int64_t n, int v) {
      // Of each row its scales, then its biases; a whole vector may be written beyond.
      constexpr int64_t WIDTH = 2 * MAX_GROUPS + LANES;
      float rows[LANES][WIDTH];
      const char* pointers[LANES];
      int64_t rest = a.groups - first_group;
      for (int r = 0; r < LANES; ++r) {
        int64_t row = min(n + r, a.n - 1);
        const T* s = static_cast<const T*>(a.scales) + row * a.scale_stride + first_group;
        const T* b = static_cast<const T*>(a.biases) + row * a.bias_stride + first_group;
        load_row(s, rest, rows[r]);
        load_row(b, rest, rows[r] + groups);
        pointers[r] = reinterpret_cast<const char*>(rows[r]);
      }
      u32v columns[2 * MAX_GROUPS + LANES];
      transpose_columns(pointers, pointers, 2 * groups, columns);
      for (int64_t g = 0; g < groups; ++g) {
        scales[g][v] = (f32v)columns[g];
        biases[g][v] = (f32v)columns[groups + g];
      }
    }

    // The stretch's groups of a row of which there are `rest`.
    template <typename T>
    VOXFAST_INLINE void load_row(const T* row, int64_t rest, float* out) {
      for (int64_t g = 0; g < groups; g += LANES) {
        store(out + g, load_n(row + g, rest - g));
      }
    }
  };

  // Columns of 32-bit numbers of LANES rows: out[c] is that of number c, of whole vectors
  // of them. What `later` points at is fetched meanwhile.
  VOXFAST_INLINE static void transpose_columns(const char* const* rows,
                                               const char* const* prefetch, int64_t count,
                                               u32v* out) {
    auto transpose_vector = [&](int64_t c, auto load_row) __attribute__((always_inline)) {
      f32v x[LANES];
#pragma GCC unroll 16
      for (int r = 0; r < LANES; ++r) {
        prefetch_l2(prefetch[r] + 4 * c);
        x[r] = load_row(reinterpret_cast<const float*>(rows[r]) + c);
      }
      transpose(x);
#pragma GCC unroll 16
      for (int i = 0; i < LANES; ++i) {
        out[c + i] = (u32v)x[i];
      }
    };
    int64_t whole = count / LANES * LANES;
    for (int64_t c = 0; c < whole; c += LANES) {
      transpose_vector(
          c, [](const float* p) __attribute__((always_inline)) { return load(p); });
    }
    if (whole < count) {
      transpose_vector(whole,
                       [&](const float* p) { return load_partial(p, count - whole); });
    }
  }

  // Adds what a stretch contributes to rows of x from `row` on, MR of them or, where
  // there are less, `rows`.
  template <int MR>
  static void add_tile(const LinearArguments& a, const PanelSlice& s, int64_t row,
                       int64_t rows, float* sums) {
    if constexpr (MR > 1) {
      if (rows < MR) {
        return add_tile<MR - 1>(a, s, row, rows, sums);
      }
    }
    const char* integers[MR];
    const float *x_scales[MR], *x_sums[MR];
    for (int m = 0; m < MR; ++m) {
      const PreparedRow x(a, row + m);
      integers[m] = x.integers + 2 * s.first;
      x_scales[m] = x.x_scales + s.first_group;
      x_sums[m] = x.sums + s.first_group;
    }
    const int64_t steps = a.group_size / CODES_PER_LANE;
    const u32v(*w)[VECTORS] = s.codes;
    for (int64_t g = 0; g < s.groups; ++g) {
      i32v dots[MR][VECTORS][DIGITS];
#pragma GCC unroll 6
      for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS * DIGITS; ++i) {
          dots[m][i / DIGITS][i % DIGITS] = i32v{};
        }
      }
      for (int64_t i = 0; i < steps; ++i, ++w) {
#pragma GCC unroll 6
        for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 2
          for (int d = 0; d < DIGITS; ++d) {
            i32v x = broadcast_lane(integers[m] + 4 * (DIGITS * i + d));
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; ++v) {
              dots[m][v][d] = add_dot(dots[m][v][d], (*w)[v], x);
            }
          }
        }
      }
#pragma GCC unroll 6
      for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) {
          float* to = sums + m * PANEL + v * LANES;
          f32v value = __builtin_convertvector(combine_digits(dots[m][v]), f32v);
          f32v terms = group_terms(value, s.scales[g][v], broadcast(x_scales[m][g]),
                                   s.biases[g][v], broadcast(x_sums[m][g]));
          store(to, load(to) + terms);
        }
        integers[m] += 2 * a.group_size;
      }
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// linear with packed w and several rows of x. Products are exact integers; they are
// summed in int32 over a group, then in float32 over groups. Glossary: linear.h.
//
// x is quantized group by group (block floating point): the error of an input is at most
// about 2^-15 of the largest input of its group, and half-precision inputs are exact
// unless much smaller than that one. A group adds to an output
//   w_scale * x_scale * (sum of code * integer) + w_bias * x_scale * (sum of integers).
//
// Each lane is an output. A slice of a panel is transposed and unpacked into L1;
// multiplying it with a row of x then needs no horizontal sums. Groups are added in
// order, so a row's result does not depend on the other rows.

#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/linear_packed_common.h"
#include "kernels/linear_packed_gemm_step.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

struct PackedGemm {
  static constexpr int VECTORS = GEMM_VECTORS;
  static constexpr int64_t PANEL = VECTORS * LANES;
  static constexpr int64_t KC = 512;
  static constexpr int64_t MAX_GROUPS = KC / 32;
  static constexpr int MAX_MR = 6;

  static int64_t panel(const LinearArguments&) { return PANEL; }
  static bool has_strips(const LinearArguments&) { return false; }

  static int64_t prepared_stride(const LinearArguments& a) {
    return round_up(PreparedRow::bytes(a), int64_t{64});
  }

  static void prepare(const LinearArguments& a, int64_t m) {
    with_bits(a.bits, [&]<int BITS>() {
      prepare_row(a, m, [](const int32_t* integers, int64_t k, char* out) {
        arrange_x<BITS>(integers, out + 2 * k);
      });
    });
  }

  static void multiply(const LinearArguments& a, int64_t task) {
    gemm_task<PANEL>(
        a, task,
        [&](int64_t n, int64_t k, int64_t m, int64_t m_count, float (*sums)[PANEL]) {
          const PanelSlice slice(a, n, k);
          for (int64_t i = 0; i < m_count; i += MAX_MR) {
            add_tile<MAX_MR>(a, slice, m + i, m_count - i, sums[i]);
          }
        });
  }

 private:
  // A slice of a panel, transposed: lane i of vector v is output v * LANES + i of the
  // panel.
  struct PanelSlice {
    int64_t first, first_group, groups;
    alignas(64) StepCodes steps[KC / STEP_CODES];
    f32v scales[MAX_GROUPS][VECTORS], biases[MAX_GROUPS][VECTORS];

    PanelSlice(const LinearArguments& a, int64_t n, int64_t first_)
        : first(first_), first_group(first_ / a.group_size) {
      int64_t count = min(a.k - first, a.slice);
      groups = count / a.group_size;
      const PanelPointers pointers(a, neighbours<PANEL>(a, n), first);
      for (int v = 0; v < VECTORS; ++v) {
        with_bits(a.bits, [&]<int BITS>() {
          unpack<BITS>(pointers.current + v * LANES, pointers.prefetch + v * LANES, count,
                       v);
        });
        with_type(a.scale_type, [&]<typename T>(T*) __attribute__((always_inline)) {
          load_groups<T>(a, n + v * LANES, v);
        });
      }
      for (int64_t i = 0; i < count / STEP_CODES; ++i) {
        arrange_step(steps[i]);
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
          auto& step = steps[b * BLOCK_LANES / STEP_LANES + i / STEP_LANES];
          step[i % STEP_LANES][v] = unpack_lane<BITS>(packed + b * BITS, i);
        }
      }
    }

    template <typename T>
    void load_groups(const LinearArguments& a, int64_t n, int v) {
      // Per row its scales, then its biases. load_groups_of_row writes whole vectors.
      constexpr int64_t WIDTH = 2 * MAX_GROUPS + LANES;
      float rows[LANES][WIDTH];
      const char* pointers[LANES];
      int64_t rest = a.groups - first_group;
      for (int r = 0; r < LANES; ++r) {
        int64_t w_row = min(n + r, a.n - 1);
        const T* s =
            static_cast<const T*>(a.scales) + w_row * a.scale_stride + first_group;
        const T* b =
            static_cast<const T*>(a.biases) + w_row * a.bias_stride + first_group;
        load_groups_of_row(s, rest, rows[r]);
        load_groups_of_row(b, rest, rows[r] + groups);
        pointers[r] = reinterpret_cast<const char*>(rows[r]);
      }
      u32v columns[2 * MAX_GROUPS + LANES];
      transpose_columns(pointers, pointers, 2 * groups, columns);
      for (int64_t g = 0; g < groups; ++g) {
        scales[g][v] = (f32v)columns[g];
        biases[g][v] =
            bias_of_codes((f32v)columns[groups + g], scales[g][v], code_offset(a.bits));
      }
    }

    // Loads the slice's groups of a row. `rest` groups remain in the row.
    template <typename T>
    VOXFAST_INLINE void load_groups_of_row(const T* row, int64_t rest, float* out) {
      for (int64_t g = 0; g < groups; g += LANES) {
        store(out + g, load_n(row + g, rest - g));
      }
    }
  };

  // Transposes LANES rows of `count` 32-bit numbers: lane r of out[c] is number c of row
  // r. out is padded to a multiple of LANES. Prefetches as many bytes from `prefetch`.
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

  // Adds the slice's products with rows [first_m, first_m + min(MR, m_count)) of x.
  template <int MR>
  static void add_tile(const LinearArguments& a, const PanelSlice& s, int64_t first_m,
                       int64_t m_count, float* sums) {
    if constexpr (MR > 1) {
      if (m_count < MR) {
        return add_tile<MR - 1>(a, s, first_m, m_count, sums);
      }
    }
    const char* integers[MR];
    const float *x_scales[MR], *x_sums[MR];
    for (int m = 0; m < MR; ++m) {
      const PreparedRow x(a, first_m + m);
      integers[m] = x.integers + 2 * s.first;
      x_scales[m] = x.x_scales + s.first_group;
      x_sums[m] = x.x_sums + s.first_group;
    }
    const int64_t steps = a.group_size / STEP_CODES;
    const StepCodes* w = s.steps;
    for (int64_t g = 0; g < s.groups; ++g) {
      StepDots dots[MR];
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
          add_step(dots[m], *w, integers[m] + 2 * STEP_CODES * i);
        }
      }
#pragma GCC unroll 6
      for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) {
          float* to = sums + m * PANEL + v * LANES;
          f32v value = __builtin_convertvector(combine_step(dots[m][v]), f32v);
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

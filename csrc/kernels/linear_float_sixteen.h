#pragma once

// linear with float w and about 16 rows of x, with AVX-512. Glossary: linear.h.
//
// Each lane is a row of x, and 32 bits of w are broadcast from where they lie: w is
// neither transposed nor converted. An output has the four partial sums of
// linear_float.h, each in a vector of its own, and they are added in the same order, so a
// row's result does not depend on the kernel.

#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/linear_float.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

template <typename Lane>
struct FloatSixteen {
  using Kernel = FloatKernel<Lane>;
  using PanelSlice = typename Kernel::PanelSlice;
  static constexpr int ROWS = LANES;  // of x; absent ones are 0
  static constexpr int PANEL = LANES;
  // With fewer rows of x, transposing w costs less than lanes that are 0.
  static constexpr int MIN_M = 13, MAX_M = ROWS;
  static constexpr int64_t KC = Kernel::KC;
  static constexpr int64_t VECTOR_BYTES = 4 * ROWS;  // a lane of all rows

  static int64_t panel(const LinearArguments&) { return PANEL; }
  static bool has_strips(const LinearArguments&) { return false; }

  // Prepared x: [lanes, ROWS].
  static int64_t prepared_stride(const LinearArguments& a) {
    return (a.padded_k / Lane::INPUTS * VECTOR_BYTES + a.m - 1) / a.m;
  }
  static char* x_lanes(const LinearArguments& a, int64_t first) {
    return a.prepared + first / Lane::INPUTS * VECTOR_BYTES;
  }

  // Prepares a share of the inputs, not row m: rows share cache lines.
  static void prepare(const LinearArguments& a, int64_t m) {
    constexpr int64_t BLOCK = LANES * Lane::INPUTS;
    int64_t blocks = (a.k + BLOCK - 1) / BLOCK;
    for (int64_t b = blocks * m / a.m; b < blocks * (m + 1) / a.m; ++b) {
      f32v lanes[ROWS] = {};
      for (int64_t r = 0; r < a.m; ++r) {
        for_spans(a, r, b * BLOCK, min(a.k - b * BLOCK, BLOCK),
                  [&](int64_t from, int64_t length, int64_t done) {
                    char* row = reinterpret_cast<char*>(lanes + r);
                    Kernel::copy_inputs(a, from, length,
                                        row + Kernel::INPUT_BYTES * done);
                  });
      }
      transpose(lanes);
      std::memcpy(x_lanes(a, b * BLOCK), lanes, sizeof lanes);
    }
  }

  static void multiply(const LinearArguments& a, int64_t task) {
    gemm_task<PANEL>(a, task,
                     [&](int64_t n, int64_t k, int64_t, int64_t, float (*sums)[PANEL]) {
                       const PanelSlice slice(a, neighbours<PANEL>(a, n), k);
                       f32v outputs[PANEL];
                       add_part<0, 6>(slice, x_lanes(a, k), outputs);
                       add_part<6, 5>(slice, x_lanes(a, k), outputs);
                       add_part<11, 5>(slice, x_lanes(a, k), outputs);
                       transpose(outputs);
                       for (int64_t m = 0; m < a.m; ++m) {
                         store(sums[m], load(sums[m]) + outputs[m]);
                       }
                     });
  }

 private:
  // A slice's products with rows [FIRST, FIRST + PART) of the panel, whose sums are in
  // registers.
  template <int FIRST, int PART>
  [[gnu::noinline]] static void add_part(const PanelSlice& s, const char* x,
                                         f32v (&out)[PANEL]) {
    const char* const* w = s.w.current + FIRST;
    f32v sums[PART][QUAD] = {};
    int64_t at = 0;
    for (; at + LANES <= s.lanes; at += LANES) {
      for (int r = 0; r < PART; ++r) {
        prefetch_l2(s.w.prefetch[FIRST + r] + 4 * at);
      }
#pragma GCC unroll 4
      for (int i = 0; i < LANES; i += QUAD, x += QUAD * VECTOR_BYTES) {
        add_quad(w, at + i, QUAD, x, sums);
      }
    }
    for (; at < s.lanes; at += QUAD, x += QUAD * VECTOR_BYTES) {
      add_quad(w, at, min(s.lanes - at, int64_t{QUAD}), x, sums);
    }
#pragma GCC unroll 8
    for (int r = 0; r < PART; ++r) {
      out[FIRST + r] = (sums[r][0] + sums[r][2]) + (sums[r][1] + sums[r][3]);
    }
  }

  // Adds the products of `count` lanes of a quad.
  template <int PART>
  VOXFAST_INLINE static void add_quad(const char* const* w, int64_t at, int64_t count,
                                      const char* x, f32v (&sums)[PART][QUAD]) {
    f32v lanes[QUAD];
#pragma GCC unroll 4
    for (int i = 0; i < QUAD; ++i) {
      lanes[i] = value_barrier(read<f32v>(x + i * VECTOR_BYTES));
    }
#pragma GCC unroll 8
    for (int r = 0; r < PART; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < QUAD; ++i) {
        if (i < count) {
          sums[r][i] = Lane::add_broadcast(sums[r][i], w[r] + 4 * (at + i), lanes[i]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// The kernels of linear; see kernels.h.

#include "kernels/linear_arguments.h"
#include "kernels/linear_floats.h"
#include "kernels/linear_packed.h"
#include "kernels/linear_rows.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// Of few rows of x, all of them with FEW_N rows of w.
template <typename Weights, int MR = Weights::FEW_ROWS>
void add_few(const LinearArguments& a, const typename Weights::Stretch& s, float* out) {
  if (a.m == MR) {
    return Weights::template add_few<MR>(a, s, out);
  }
  if constexpr (MR > 1) {
    add_few<Weights, MR - 1>(a, s, out);
  }
}

// Of many rows of x, `rows` of them from `row` on with N_BLOCK rows of w. A tile's rows
// of w stay in the first cache while those of x pass by.
template <typename Weights>
void add_many(const LinearArguments& a, const typename Weights::Stretch& s, int64_t row,
              int64_t rows, float* out) {
  constexpr int TILE_M = Weights::TILE_M;
  for (int64_t r = 0; r < N_BLOCK; r += Weights::TILE_N) {
    const typename Weights::Panel panel(a, s, r);
    float* to = out + r;
    int64_t m = 0;
    for (; m + TILE_M <= rows; m += TILE_M) {
      Weights::template add_many<TILE_M>(a, s, panel, row + m, r, to + m * N_BLOCK);
    }
    for (; m < rows; ++m) {
      Weights::template add_many<1>(a, s, panel, row + m, r, to + m * N_BLOCK);
    }
  }
}

// Outputs n ... n + width - 1 for all rows of x.
template <typename Weights>
void multiply_panel(const LinearArguments& a, int64_t n, int64_t width) {
  float sums[M_BLOCK * N_BLOCK];
  for (int64_t m = 0; m < a.m; m += M_BLOCK) {
    int64_t rows = smallest(a.m - m, M_BLOCK);
    std::memset(sums, 0, static_cast<size_t>(rows * N_BLOCK) * sizeof(float));
    for (int64_t k = 0; k < a.k; k += a.stretch) {
      if (a.m <= Weights::FEW_ROWS) {
        add_few<Weights>(a, typename Weights::Stretch(a, n, FEW_N, k), sums);
      } else {
        add_many<Weights>(a, typename Weights::Stretch(a, n, N_BLOCK, k), m, rows, sums);
      }
    }
    for (int64_t i = 0; i < rows; ++i) {
      finish_outputs(a, m + i, n, width, sums + i * N_BLOCK);
    }
  }
}

// ---- the table's entries ----------------------------------------------------------

int64_t panel_width(const LinearArguments& a) {
  return a.m <= (a.bits > 0 ? PackedWeights::FEW_ROWS : FloatWeights::FEW_ROWS) ? FEW_N
                                                                                : N_BLOCK;
}

void linear_plan(LinearArguments& a, int threads) {
  // Stretches of one length, so that fetching as much ahead as is computed fetches all.
  int64_t most = a.bits > 0 ? PackedWeights::K_BLOCK : FloatWeights::K_BLOCK;
  int64_t stretches = (a.k + most - 1) / most;
  a.stretch = round_up_to((a.k + stretches - 1) / stretches, 128);
  // As long as memory takes to answer; not so much that it falls out of the cache again.
  constexpr int64_t AHEAD_BYTES = 8192;
  int64_t bits = a.bits > 0 ? a.bits : 8 * float_size(a.w_type);
  int64_t panel_bytes = panel_width(a) * a.stretch * bits / 8;
  a.ahead = (AHEAD_BYTES + panel_bytes - 1) / panel_bytes;
  (a.bits > 0 ? PackedWeights::plan : FloatWeights::plan)(a);
  a.prepared_bytes = a.m * a.prepared_stride;
  int64_t wanted = 8 * threads;  // tasks, so that a delayed thread holds up little
  a.task_rows = round_up_to((a.n + wanted - 1) / wanted, panel_width(a));
  a.tasks = (a.n + a.task_rows - 1) / a.task_rows;
}

void linear_prepare(const LinearArguments& a, int64_t row) {
  (a.bits > 0 ? PackedWeights::prepare : FloatWeights::prepare)(a, row);
}

void linear_multiply(const LinearArguments& a, int64_t task) {
  int64_t end = smallest((task + 1) * a.task_rows, a.n);
  for (int64_t n = task * a.task_rows; n < end; n += panel_width(a)) {
    int64_t width = smallest(end - n, panel_width(a));
    (a.bits > 0 ? multiply_panel<PackedWeights> : multiply_panel<FloatWeights>)(a, n,
                                                                                width);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// The kernels of linear; see kernels.h.

#include "kernels/linear_arguments.h"
#include "kernels/linear_floats.h"
#include "kernels/linear_packed.h"
#include "kernels/linear_rows.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// Of few rows of x, all of them with FEW_N rows of w.
template <typename Weights>
void add_few(const LinearArguments& a, const typename Weights::Stretch& s, float* out) {
  switch (a.m) {
    case 1:
      return Weights::template add_few<1>(a, s, 0, out);
    case 2:
      return Weights::template add_few<2>(a, s, 0, out);
    case 3:
      return Weights::template add_few<3>(a, s, 0, out);
    default:
      return Weights::template add_few<4>(a, s, 0, out);
  }
}

// Of many rows of x, `rows` of them from `row` on with N_BLOCK rows of w. A tile's rows
// of w stay in the first cache while those of x pass by.
template <typename Weights>
void add_many(const LinearArguments& a, const typename Weights::Stretch& s, int64_t row,
              int64_t rows, float* out) {
  constexpr int TILE_M = Weights::TILE_M;
  const typename Weights::Panel panel(a, s);
  for (int64_t r = 0; r < N_BLOCK; r += Weights::TILE_N) {
    int64_t m = 0;
    for (; m + TILE_M <= rows; m += TILE_M) {
      Weights::template add_many<TILE_M>(a, s, panel, row + m, r, out + m * N_BLOCK);
    }
    for (; m < rows; ++m) {
      Weights::template add_many<1>(a, s, panel, row + m, r, out + m * N_BLOCK);
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
    for (int64_t k = 0; k < a.k; k += K_BLOCK) {
      if (a.m <= FEW_ROWS) {
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
  return a.m <= FEW_ROWS ? FEW_N : N_BLOCK;
}

void linear_plan(LinearArguments& a, int threads) {
  a.prepared_bytes = a.m * (a.bits > 0 ? PackedWeights::prepared_bytes(a)
                                       : FloatWeights::prepared_bytes(a));
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

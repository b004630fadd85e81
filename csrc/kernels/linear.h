#pragma once

// The kernels of linear; see kernels.h.

#include "kernels/linear_arguments.h"
#include "kernels/linear_floats.h"
#include "kernels/linear_packed.h"
#include "kernels/linear_rows.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// Whether so few that weights are used as they are read.
bool few_rows(const LinearArguments& a) {
  return a.m <= (a.bits > 0 ? PackedWeights::FEW_ROWS : FloatWeights::FEW_ROWS);
}

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
    const typename Weights::Widened widened(a, s, r);
    float* to = out + r;
    int64_t m = 0;
    for (; m + TILE_M <= rows; m += TILE_M) {
      Weights::template add_many<TILE_M>(a, s, widened, row + m, r, to + m * N_BLOCK);
    }
    for (; m < rows; ++m) {
      Weights::template add_many<1>(a, s, widened, row + m, r, to + m * N_BLOCK);
    }
  }
}

// Outputs n ... n + width - 1, FEW_TASK at most, for few rows of x. The rows of w of one
// panel lie a quarter of them apart: each quarter is read from its beginning to its end,
// which is what the processor's own fetching ahead expects.
template <typename Weights>
void multiply_few(const LinearArguments& a, int64_t n, int64_t width) {
  float sums[Weights::FEW_ROWS][FEW_TASK];
  int64_t spacing = (width + FEW_N - 1) / FEW_N;
  for (int64_t i = 0; i < spacing; ++i) {
    float tile[Weights::FEW_ROWS * N_BLOCK] = {};
    for (int64_t k = 0; k < a.k; k += a.stretch) {
      add_few<Weights>(a, typename Weights::Stretch(a, {n + i, FEW_N, spacing, 1}, k),
                       tile);
    }
    for (int64_t m = 0; m < a.m; ++m) {
      for (int64_t r = 0; r < FEW_N; ++r) {
        sums[m][r * spacing + i] = tile[m * N_BLOCK + r];
      }
    }
  }
  for (int64_t m = 0; m < a.m; ++m) {
    finish_outputs(a, m, n, width, sums[m]);
  }
}

// The same for many rows of x, by panels of neighbouring rows of w.
template <typename Weights>
void multiply_many(const LinearArguments& a, int64_t n, int64_t width) {
  float sums[M_BLOCK * N_BLOCK];
  for (int64_t end = n + width; n < end; n += N_BLOCK) {
    for (int64_t m = 0; m < a.m; m += M_BLOCK) {
      int64_t rows = smallest(a.m - m, M_BLOCK);
      std::memset(sums, 0, static_cast<size_t>(rows * N_BLOCK) * sizeof(float));
      for (int64_t k = 0; k < a.k; k += a.stretch) {
        typename Weights::Stretch stretch(a, {n, N_BLOCK, 1, N_BLOCK}, k);
        add_many<Weights>(a, stretch, m, rows, sums);
      }
      for (int64_t i = 0; i < rows; ++i) {
        finish_outputs(a, m + i, n, smallest(end - n, N_BLOCK), sums + i * N_BLOCK);
      }
    }
  }
}

template <typename Weights>
void multiply(const LinearArguments& a, int64_t n, int64_t width) {
  (few_rows(a) ? multiply_few<Weights> : multiply_many<Weights>)(a, n, width);
}

// ---- the table's entries ----------------------------------------------------------

void linear_plan(LinearArguments& a, int threads) {
  // Stretches of one length, so that fetching as much ahead as is computed fetches all.
  int64_t most = a.bits > 0 ? PackedWeights::K_BLOCK : FloatWeights::K_BLOCK;
  int64_t stretches = (a.k + most - 1) / most;
  a.stretch = round_up_to((a.k + stretches - 1) / stretches, 128);
  // As long as memory takes to answer; not so much that it falls out of the cache again.
  constexpr int64_t AHEAD_BYTES = 8192;
  int64_t bits = a.bits > 0 ? a.bits : 8 * float_size(a.w_type);
  int64_t width = few_rows(a) ? FEW_N : N_BLOCK;
  int64_t panel_bytes = width * a.stretch * bits / 8;
  a.ahead = (AHEAD_BYTES + panel_bytes - 1) / panel_bytes;
  (a.bits > 0 ? PackedWeights::plan : FloatWeights::plan)(a);
  a.prepared_bytes = a.m * a.prepared_stride;
  int64_t wanted = 8 * threads;  // tasks, so that a delayed thread holds up little
  a.task_rows = round_up_to((a.n + wanted - 1) / wanted, width);
  if (few_rows(a)) {
    a.task_rows = smallest(a.task_rows, FEW_TASK);
  }
  a.tasks = (a.n + a.task_rows - 1) / a.task_rows;
}

void linear_prepare(const LinearArguments& a, int64_t row) {
  (a.bits > 0 ? PackedWeights::prepare : FloatWeights::prepare)(a, row);
}

void linear_multiply(const LinearArguments& a, int64_t task) {
  int64_t n = task * a.task_rows, width = smallest(a.n - n, a.task_rows);
  (a.bits > 0 ? multiply<PackedWeights> : multiply<FloatWeights>)(a, n, width);
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

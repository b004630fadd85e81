#pragma once

// The kernels of linear; see kernels.h.

#include "kernels/linear_arguments.h"
#include "kernels/linear_dot.h"
#include "kernels/linear_rows.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// ---- float32 dot products ---------------------------------------------------------

// Prepared x: [M, K rounded up to vectors] floats, codes' lanes in the order in which
// they are unpacked.
VOXFAST_INLINE int64_t prepared_stride(const LinearArguments& a) {
  return round_up_to(a.k, LANES);
}

void prepare_floats(const LinearArguments& a, int64_t row) {
  int64_t stride = prepared_stride(a);
  float* out = reinterpret_cast<float*>(a.prepared) + row * stride;
  load_floats(a.x, a.x_type, a.x_rows[row], a.x_stride, a.k, out);
  for (int64_t k = a.k; k < stride; ++k) {
    out[k] = 0;
  }
  if (a.bits == 0 || code_of_lane(a.bits, 0, 1) == 1) {
    return;
  }
  for (int64_t k = 0; k < a.k; k += BLOCK_CODES) {
    float block[BLOCK_CODES];
    std::memcpy(block, out + k, sizeof block);
    for (int i = 0; i < BLOCK_CODES; ++i) {
      out[k + i] = block[code_of_lane(a.bits, i / LANES, i % LANES)];
    }
  }
}

// Adds the products of `ms` rows of x (at most FEW_ROWS) with FEW_N rows of w.
void add_few(const LinearArguments& a, const Stretch& s, int64_t ms, const float* x,
             float* sums) {
  int64_t stride = prepared_stride(a);
  switch (ms) {
    case 1:
      return multiply_few<1>(a, s, x, stride, sums);
    case 2:
      return multiply_few<2>(a, s, x, stride, sums);
    case 3:
      return multiply_few<3>(a, s, x, stride, sums);
    default:
      return multiply_few<4>(a, s, x, stride, sums);
  }
}

// The same of any number of rows of x with N_BLOCK rows of w.
void add_many(const LinearArguments& a, const Stretch& s, int64_t ms, const float* x,
              float* sums) {
  alignas(64) float panel[N_BLOCK * K_BLOCK];
  const char* unpacked[N_BLOCK];
  bool as_is = a.bits == 0 && a.w_type == FloatType::float32;
  for (int64_t r = 0; r < N_BLOCK && !as_is; ++r) {
    unpack_row(a, s, r, panel + r * K_BLOCK);
    unpacked[r] = reinterpret_cast<const char*>(panel + r * K_BLOCK);
  }
  const char* const* w = as_is ? s.w : unpacked;
  int64_t stride = prepared_stride(a), m = 0;
  for (; m + TILE_M <= ms; m += TILE_M) {
    multiply_many<TILE_M>(w, N_BLOCK, s.count, x + m * stride, stride,
                          sums + m * N_BLOCK);
  }
  for (; m < ms; ++m) {
    multiply_many<1>(w, N_BLOCK, s.count, x + m * stride, stride, sums + m * N_BLOCK);
  }
}

// Outputs n ... n + rows - 1 for all rows of x.
void multiply_panel(const LinearArguments& a, int64_t n, int64_t rows) {
  float sums[M_BLOCK * N_BLOCK];
  int64_t stride = prepared_stride(a);
  for (int64_t m = 0; m < a.m; m += M_BLOCK) {
    int64_t ms = smallest(a.m - m, M_BLOCK);
    const float* x = reinterpret_cast<const float*>(a.prepared) + m * stride;
    std::memset(sums, 0, static_cast<size_t>(ms * N_BLOCK) * sizeof(float));
    for (int64_t k = 0; k < a.k; k += K_BLOCK) {
      Stretch s;
      bool few = a.m <= FEW_ROWS;
      take_stretch(a, n, few ? FEW_N : N_BLOCK, k, s);
      (few ? add_few : add_many)(a, s, ms, x + k, sums);
    }
    for (int64_t i = 0; i < ms; ++i) {
      finish_outputs(a, m + i, n, rows, sums + i * N_BLOCK);
    }
  }
}

// ---- the table's entries ----------------------------------------------------------

void linear_plan(LinearArguments& a, int threads) {
  int64_t panel = a.m <= FEW_ROWS ? FEW_N : N_BLOCK;
  a.prepared_bytes = a.m * prepared_stride(a) * static_cast<int64_t>(sizeof(float));
  int64_t wanted = 8 * threads;  // tasks, so that a delayed thread holds up little
  a.task_rows = round_up_to((a.n + wanted - 1) / wanted, panel);
  a.tasks = (a.n + a.task_rows - 1) / a.task_rows;
}

void linear_prepare(const LinearArguments& a, int64_t row) { prepare_floats(a, row); }

void linear_multiply(const LinearArguments& a, int64_t task) {
  int64_t panel = a.m <= FEW_ROWS ? FEW_N : N_BLOCK;
  int64_t end = smallest((task + 1) * a.task_rows, a.n);
  for (int64_t n = task * a.task_rows; n < end; n += panel) {
    multiply_panel(a, n, smallest(end - n, panel));
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

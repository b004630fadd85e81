#pragma once

// The kernels of linear; see kernels.h.

#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/linear_float.h"
#include "kernels/linear_packed_gemm.h"
#include "kernels/linear_packed_gemv.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// Calls f<Kernel>() for the one that computes these arguments.
template <typename F>
void with_kernel(const LinearArguments& a, F f) {
  if (a.bits == 0) {
    return multiplies_pairs(a) ? f.template operator()<FloatWeights<InputPair>>()
                               : f.template operator()<FloatWeights<SingleInput>>();
  }
  if (a.m == 1) {
    return f.template operator()<PackedRow>();
  }
  return f.template operator()<PackedWeights>();
}

template <typename Kernel>
void plan(LinearArguments& a, int64_t tasks, int64_t threads) {
  // Stretches of one length, so that fetching as much ahead as is computed fetches all.
  int64_t stretches = (a.k + Kernel::K_BLOCK - 1) / Kernel::K_BLOCK;
  a.stretch = round_up_to((a.k + stretches - 1) / stretches, 128);
  stretches = (a.k + a.stretch - 1) / a.stretch;
  // As long as memory takes to answer; not so much that it falls out of the cache again.
  constexpr int64_t AHEAD_BYTES = 8192;
  int64_t bits = a.bits > 0 ? a.bits : 8 * float_size(a.w_type);
  int64_t panel = Kernel::panel(a), panel_bytes = panel * a.stretch * bits / 8;
  int64_t ahead = (AHEAD_BYTES + panel_bytes - 1) / panel_bytes;
  a.whole_k = stretches * a.stretch;
  a.panels_ahead = ahead / stretches;
  a.inputs_ahead = ahead % stretches * a.stretch;
  a.prepared_stride = Kernel::prepared_stride(a);
  a.prepared_bytes = a.m * a.prepared_stride;
  int64_t rows = a.n;  // that tasks divide: of all w, or of each run
  a.segments = 1;
  if (Kernel::is_few(a)) {
    a.segments = smallest(threads, (a.n + panel - 1) / panel);
    // An odd number of rows: runs that begin multiples of 4 KB apart would drive each
    // other out of the first cache.
    rows = (a.n + a.segments * panel - 1) / (a.segments * panel) | 1;
    tasks = (tasks + a.segments - 1) / a.segments;
  }
  a.run = rows;
  a.task_rows = (rows + tasks - 1) / tasks;
  a.task_rows = Kernel::is_few(a) ? smallest(a.task_rows, FEW_TASK)
                                  : round_up_to(a.task_rows, panel);
  a.tasks = a.segments * ((rows + a.task_rows - 1) / a.task_rows);
}

// ---- the table's entries ----------------------------------------------------------

void linear_plan(LinearArguments& a, int64_t tasks, int64_t threads) {
  with_kernel(a, [&]<typename Kernel>() { plan<Kernel>(a, tasks, threads); });
}

void linear_prepare(const LinearArguments& a, int64_t row) {
  with_kernel(a, [&]<typename Kernel>() { Kernel::prepare(a, row); });
}

void linear_multiply(const LinearArguments& a, int64_t task) {
  with_kernel(a, [&]<typename Kernel>() { Kernel::multiply(a, task); });
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

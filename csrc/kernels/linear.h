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
    return uses_bf16_pairs(a) ? f.template operator()<FloatKernel<Bf16PairLane>>()
                              : f.template operator()<FloatKernel<FloatLane>>();
  }
  if (a.m == 1) {
    return f.template operator()<PackedGemv>();
  }
  return f.template operator()<PackedGemm>();
}

template <typename Kernel>
void plan(LinearArguments& a, int64_t tasks, int64_t threads) {
  // Stretches of one length, so that fetching as much ahead as is computed fetches all.
  int64_t slices = (a.k + Kernel::KC - 1) / Kernel::KC;
  a.slice = round_up<int64_t>((a.k + slices - 1) / slices, 128);
  slices = (a.k + a.slice - 1) / a.slice;
  // As long as memory takes to answer; not so much that it falls out of the cache again.
  constexpr int64_t AHEAD_BYTES = 8192;
  int64_t bits = a.bits > 0 ? a.bits : 8 * float_size(a.w_type);
  int64_t panel = Kernel::panel(a), panel_bytes = panel * a.slice * bits / 8;
  int64_t ahead = (AHEAD_BYTES + panel_bytes - 1) / panel_bytes;
  a.padded_k = slices * a.slice;
  a.prefetch_panels = ahead / slices;
  a.prefetch_inputs = ahead % slices * a.slice;
  a.prepared_stride = Kernel::prepared_stride(a);
  a.prepared_bytes = a.m * a.prepared_stride;
  int64_t rows = a.n;  // that tasks divide: of all w, or of each run
  a.splits = 1;
  if (Kernel::is_gemv(a)) {
    a.splits = min(threads, (a.n + panel - 1) / panel);
    // An odd number of rows: runs that begin multiples of 4 KB apart would drive each
    // other out of the first cache.
    rows = (a.n + a.splits * panel - 1) / (a.splits * panel) | 1;
    tasks = (tasks + a.splits - 1) / a.splits;
  }
  a.strip = rows;
  a.task_outputs = (rows + tasks - 1) / tasks;
  a.task_outputs = Kernel::is_gemv(a) ? min(a.task_outputs, MAX_GEMV_TASK)
                                      : round_up(a.task_outputs, panel);
  a.tasks = a.splits * ((rows + a.task_outputs - 1) / a.task_outputs);
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

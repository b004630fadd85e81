#pragma once

// The arguments of linear. Plain data: see kernels.h. Glossary: linear.h.

#include <cstdint>

#include "kernels/kernels.h"

namespace voxfast {

// y[m][n] = sum over k of x[m][k] * w[n][k], plus bias[n]: M rows, N outputs, K inputs.
struct LinearArguments {
  int64_t m, n, k;

  // A row of x consists of spans of x_span inputs, x_stride apart. Span j of row m begins
  // at element x_row_offsets[m] + x_span_offsets[j]. Offsets and strides are in elements.
  const void* x;
  FloatType x_type;
  const int64_t *x_row_offsets, *x_span_offsets;
  int64_t x_span, x_stride;

  // bits = 0: [N, K] of w_type. Otherwise K codes per row, packed lowest bits first. Rows
  // are contiguous, and w_stride bytes apart.
  const char* w;
  FloatType w_type;
  int64_t w_stride;
  int bits, group_size;
  int64_t groups;  // per row
  // [N, groups], rows contiguous. Strides between rows are in elements.
  const void *scales, *biases;
  FloatType scale_type;
  int64_t scale_stride, bias_stride;

  const void* bias;  // [N], contiguous, or null
  FloatType bias_type;
  void* out;  // [M, N], contiguous
  FloatType out_type;

  // The plan, written by linear_plan. The caller allocates `prepared`, calls
  // linear_prepare for every row of x, then linear_multiply for every task.
  int64_t prepared_bytes;
  int64_t task_outputs;  // outputs per task; gemv: per task and strip
  int64_t tasks;
  int64_t splits, strip;    // gemv: number of splits, rows of w per strip
  int64_t slice;            // inputs per slice
  int64_t padded_k;         // K rounded up to whole slices
  int64_t prefetch_panels;  // prefetch distance: panels,
  int64_t prefetch_inputs;  // plus inputs, a multiple of `slice`
  int64_t prepared_stride;  // bytes from one row of x to the next
  char* prepared;
};

}  // namespace voxfast

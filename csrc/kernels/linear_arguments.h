#pragma once

// One call of linear, as the kernels see it. Plain data: see kernels.h.

#include <cstdint>

#include "kernels/kernels.h"

namespace voxfast {

// y[m][n] = sum over k of x[m][k] * w[n][k], plus bias[n]: M rows, N outputs, K inputs.
struct LinearArguments {
  int64_t m, n, k;

  // A row is made of parts of x_part inputs: part j of row i begins at
  // x + x_rows[i] + x_parts[j]. Offsets and strides of x count elements.
  const void* x;
  FloatType x_type;
  const int64_t *x_row_offsets, *x_span_offsets;
  int64_t x_span, x_stride;

  // [N, K] of w_type, or, if bits is not 0, rows of K codes of so many bits, lowest bits
  // first, worth code * scale + bias of their group. Rows lie w_stride bytes apart.
  const char* w;
  FloatType w_type;
  int64_t w_stride;
  int bits, group_size;
  int64_t groups;  // of a row
  // [N, K / group_size] with dense rows; the strides between rows count elements.
  const void *scales, *biases;
  FloatType scale_type;
  int64_t scale_stride, bias_stride;

  const void* bias;  // [N], dense, or null
  FloatType bias_type;
  void* out;  // [M, N], dense
  FloatType out_type;

  // Written by linear_plan. `prepared` is memory for x as the kernel reads it;
  // linear_prepare is called for every row, then linear_multiply for every task, which
  // computes task_rows outputs (rows of w) for all rows of x. Few rows of x read w in
  // runs of `run` rows, some runs side by side, a segment; their tasks take task_rows
  // rows of each run of a segment, and go on where the segment's last task ended.
  int64_t prepared_bytes, task_outputs, tasks;
  int64_t splits, strip;
  int64_t slice;            // inputs that are summed up at a time
  int64_t padded_k;         // K in whole stretches
  int64_t prefetch_panels;  // weights are fetched so far ahead: panels,
  int64_t prefetch_inputs;  // and inputs in whole stretches
  int64_t prepared_stride;  // bytes from one row of x to the next
  char* prepared;
};

}  // namespace voxfast

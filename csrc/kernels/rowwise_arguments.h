#pragma once

// Ops whose rows, the last dimension, are independent: what their kernels are given.

#include <cstdint>

#include "kernels/kernels.h"

namespace voxfast {

struct RowwiseArguments {
  int64_t rows, columns;
  // rms_norm: x, weight [columns]; swiglu: gate, up; gelu, greedy: x alone
  const void *x, *y;
  void *out, *probability;  // greedy: a token and a probability of each row
  FloatType x_type, y_type, out_type;
  float eps;  // rms_norm
};

}  // namespace voxfast

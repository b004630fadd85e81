#pragma once

// The arguments of ops that work on each row (the last dimension) by itself. Plain data:
// see kernels.h.

#include <cstdint>

#include "kernels/kernels.h"

namespace voxfast {

struct RowwiseArguments {
  int64_t rows, columns;
  // rms_norm: x, weight [columns]; swiglu: gate, up; gelu, greedy: x alone
  const void *x, *y;
  void *out, *probability;  // greedy: token and probability per row
  FloatType x_type, y_type, out_type;
  float eps;  // rms_norm
};

}  // namespace voxfast

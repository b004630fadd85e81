#pragma once

// Kernels of rms_norm and swiglu: one call computes some rows, in float32.

#include "kernels/rowwise.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

template <typename A, typename B, typename C>
void rms_norm_row(const A* x, const B* weight, C* out, int64_t columns, float eps) {
  f32v squares{};
  int64_t i = 0;
  for (; i + LANES <= columns; i += LANES) {
    f32v value = load(x + i);
    squares = squares + value * value;
  }
  float total = sum(squares);
  for (; i < columns; ++i) {
    total += to_float(x[i]) * to_float(x[i]);
  }
  float factor = 1.0f / __builtin_sqrtf(total / static_cast<float>(columns) + eps);
  for (i = 0; i + LANES <= columns; i += LANES) {
    store(out + i, load(x + i) * factor * load(weight + i));
  }
  for (; i < columns; ++i) {
    out[i] = from_float<C>(to_float(x[i]) * factor * to_float(weight[i]));
  }
}

template <typename T>
void swiglu_row(const T* gate, const T* up, T* out, int64_t columns) {
  const f32v one = broadcast(1.0f);
  int64_t i = 0;
  for (; i + LANES <= columns; i += LANES) {
    f32v g = load(gate + i);
    store(out + i, g / (one + exp(-g)) * load(up + i));
  }
  for (; i < columns; ++i) {
    float g = to_float(gate[i]);
    out[i] = from_float<T>(g / (1.0f + exp(broadcast(-g))[0]) * to_float(up[i]));
  }
}

void rms_norm(const RowwiseArguments& a, int64_t first, int64_t last) {
  with_type(a.first_type, [&]<typename A>(A*) {
    with_type(a.second_type, [&]<typename B>(B*) {
      with_type(a.out_type, [&]<typename C>(C*) {
        for (int64_t r = first; r < last; ++r) {
          rms_norm_row(static_cast<const A*>(a.first) + r * a.columns,
                       static_cast<const B*>(a.second),
                       static_cast<C*>(a.out) + r * a.columns, a.columns, a.eps);
        }
      });
    });
  });
}

void swiglu(const RowwiseArguments& a, int64_t first, int64_t last) {
  with_type(a.first_type, [&]<typename T>(T*) {
    int64_t at = first * a.columns, count = (last - first) * a.columns;
    swiglu_row(static_cast<const T*>(a.first) + at, static_cast<const T*>(a.second) + at,
               static_cast<T*>(a.out) + at, count);
  });
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

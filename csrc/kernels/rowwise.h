#pragma once

// rms_norm, swiglu, gelu and greedy, computed in float32.

#include "kernels/rowwise_arguments.h"
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
  float total = reduce_sum(squares);
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

// x * P(X <= x) for a standard normal X. erfc(z), z >= 0, is exp(-z^2) times a polynomial
// in 1 / (1 + 0.3275911 z), within 1.5e-7 (Abramowitz and Stegun, 7.1.26).
VOXFAST_INLINE f32v gelu(f32v x) {
  const f32v zero = broadcast(0.0f), one = broadcast(1.0f);
  f32v z = x < zero ? -x : x;
  f32v t = one / (one + 0.3275911f * 0.70710678f * z);
  f32v p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  f32v upper_tail = 0.5f * p * t * exp(-0.5f * z * z);  // P(X > |x|)
  return x * (x < zero ? upper_tail : one - upper_tail);
}

template <typename T>
void gelu_row(const T* x, T* out, int64_t columns) {
  int64_t i = 0;
  for (; i + LANES <= columns; i += LANES) {
    store(out + i, gelu(load(x + i)));
  }
  for (; i < columns; ++i) {
    out[i] = from_float<T>(gelu(broadcast(to_float(x[i])))[0]);
  }
}

// The first index of the largest logit, which is max_logit. 0 and -infinity if all are
// NaN.
template <typename T>
uint32_t argmax(const T* x, int64_t columns, float& max_logit) {
  constexpr float NONE = -__builtin_inff();
  f32v max_lanes = broadcast(NONE);
  int64_t i = 0;
  for (; i + LANES <= columns; i += LANES) {
    max_lanes = max(load(x + i), max_lanes);
  }
  max_logit = reduce_max(max_lanes);
  for (; i < columns; ++i) {
    max_logit = to_float(x[i]) > max_logit ? to_float(x[i]) : max_logit;
  }
  for (i = 0; i < columns; ++i) {
    if (to_float(x[i]) == max_logit) {
      return static_cast<uint32_t>(i);
    }
  }
  return 0;
}

VOXFAST_INLINE f32v exp_or_nan(f32v x) { return x == x ? exp(x) : x; }

// The sum of exp(x - max_logit); NaN if any x is. Rows are long, so blocks are added in
// float64.
template <typename T>
double sum_of_exponentials(const T* x, int64_t columns, float max_logit) {
  constexpr int64_t BLOCK = 256 * LANES;
  double total = 0;
  int64_t i = 0;
  while (i + LANES <= columns) {
    int64_t end = columns - i < BLOCK ? columns : i + BLOCK;
    f32v block{};
    for (; i + LANES <= end; i += LANES) {
      block = block + exp_or_nan(load(x + i) - max_logit);
    }
    total += reduce_sum(block);
  }
  for (; i < columns; ++i) {
    total += exp_or_nan(broadcast(to_float(x[i]) - max_logit))[0];
  }
  return total;
}

void rms_norm(const RowwiseArguments& a, int64_t first, int64_t last) {
  with_type(a.x_type, [&]<typename A>(A*) {
    with_type(a.y_type, [&]<typename B>(B*) {
      with_type(a.out_type, [&]<typename C>(C*) {
        for (int64_t r = first; r < last; ++r) {
          rms_norm_row(static_cast<const A*>(a.x) + r * a.columns,
                       static_cast<const B*>(a.y), static_cast<C*>(a.out) + r * a.columns,
                       a.columns, a.eps);
        }
      });
    });
  });
}

void swiglu(const RowwiseArguments& a, int64_t first, int64_t last) {
  with_type(a.x_type, [&]<typename T>(T*) {
    int64_t at = first * a.columns, count = (last - first) * a.columns;
    swiglu_row(static_cast<const T*>(a.x) + at, static_cast<const T*>(a.y) + at,
               static_cast<T*>(a.out) + at, count);
  });
}

void gelu(const RowwiseArguments& a, int64_t first, int64_t last) {
  with_type(a.x_type, [&]<typename T>(T*) {
    int64_t at = first * a.columns, count = (last - first) * a.columns;
    gelu_row(static_cast<const T*>(a.x) + at, static_cast<T*>(a.out) + at, count);
  });
}

void greedy(const RowwiseArguments& a, int64_t first, int64_t last) {
  with_type(a.x_type, [&]<typename T>(T*) {
    for (int64_t r = first; r < last; ++r) {
      const T* x = static_cast<const T*>(a.x) + r * a.columns;
      float max_logit;
      static_cast<uint32_t*>(a.out)[r] = argmax(x, a.columns, max_logit);
      static_cast<float*>(a.probability)[r] =
          static_cast<float>(1.0 / sum_of_exponentials(x, a.columns, max_logit));
    }
  });
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

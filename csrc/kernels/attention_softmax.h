#pragma once

// sliding_attention: online softmax (arXiv 1805.02867). Lane i of a vector of scores
// belongs to query i % Q.
//
// The bits of a query's sums do not depend on Q. LANES chains add the weights: key p goes
// to chain p % LANES. They are added by halves once a split ends.

#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// Lane i of the result is lane i ^ H of x.
template <int H>
VOXFAST_INLINE f32v swap_lanes(f32v x) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(x, x, 0 ^ H, 1 ^ H, 2 ^ H, 3 ^ H, 4 ^ H, 5 ^ H, 6 ^ H,
                                 7 ^ H, 8 ^ H, 9 ^ H, 10 ^ H, 11 ^ H, 12 ^ H, 13 ^ H,
                                 14 ^ H, 15 ^ H);
#elif defined(__AVX2__)
  return __builtin_shufflevector(x, x, 0 ^ H, 1 ^ H, 2 ^ H, 3 ^ H, 4 ^ H, 5 ^ H, 6 ^ H,
                                 7 ^ H);
#else
  return __builtin_shufflevector(x, x, 0 ^ H, 1 ^ H, 2 ^ H, 3 ^ H);
#endif
}

// Lane i of the result is lane i / Q of x.
template <int Q>
VOXFAST_INLINE f32v repeat_lanes(f32v x) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(x, x, 0 / Q, 1 / Q, 2 / Q, 3 / Q, 4 / Q, 5 / Q, 6 / Q,
                                 7 / Q, 8 / Q, 9 / Q, 10 / Q, 11 / Q, 12 / Q, 13 / Q,
                                 14 / Q, 15 / Q);
#elif defined(__AVX2__)
  return __builtin_shufflevector(x, x, 0 / Q, 1 / Q, 2 / Q, 3 / Q, 4 / Q, 5 / Q, 6 / Q,
                                 7 / Q);
#else
  return __builtin_shufflevector(x, x, 0 / Q, 1 / Q, 2 / Q, 3 / Q);
#endif
}

// Combines the lanes of each query by halves; all of its lanes get the result.
template <int Q, int H = LANES / 2, typename F>
VOXFAST_INLINE f32v combine_lanes(f32v x, F&& combine) {
  if constexpr (H >= Q) {
    return combine_lanes<Q, H / 2>(combine(x, swap_lanes<H>(x)), combine);
  } else {
    return x;
  }
}

template <int Q>
struct Softmax {
  f32v max_score;      // largest so far, in all lanes of a query
  f32v weight_sum[Q];  // chain c is in vector c * Q / LANES

  void reset() {
    max_score = broadcast(-INF);
    for (f32v& sum : weight_sum) {
      sum = f32v{};
    }
  }

  // Replaces `vectors` of scores, a multiple of Q from a multiple of LANES keys on, by
  // weights exp2(score - max_score). Returns the factor of earlier weights.
  VOXFAST_INLINE f32v add(f32v* scores, int vectors) {
    f32v largest = max_score;
    for (int j = 0; j < vectors; ++j) {
      largest = max(largest, scores[j]);
    }
    largest = combine_lanes<Q>(largest, [](f32v a, f32v b) { return max(a, b); });
    f32v base = largest == broadcast(-INF) ? f32v{} : largest;
    f32v factor = exp2_nonpositive(max_score - base);
    max_score = largest;
    for (int i = 0; i < Q; ++i) {
      f32v sum = value_barrier(weight_sum[i] * factor);
      for (int j = i; j < vectors; j += Q) {
        scores[j] = exp2_nonpositive(scores[j] - base);
        sum += scores[j];
      }
      weight_sum[i] = sum;
    }
    return factor;
  }

  // The sum of the weights of each query, in all of its lanes.
  VOXFAST_INLINE f32v total() const {
    f32v sum[Q];
    for (int i = 0; i < Q; ++i) {
      sum[i] = weight_sum[i];
    }
    for (int half = Q / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) {
        sum[i] += sum[i + half];
      }
    }
    return combine_lanes<Q>(sum[0], [](f32v a, f32v b) { return a + b; });
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

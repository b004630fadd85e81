#pragma once

// sliding_attention: products of a few queries with keys, and of their weights with
// values. Every key and value is loaded once, converted in registers and multiplied with
// Q queries. The lanes run along the head.
//
// The bits of a score depend on the head size alone. Lane i adds the products of elements
// i, i + LANES, ... of query and key, in this order, and horizontal_sums adds the lanes.

#include "kernels/attention_tile.h"
#include "kernels/horizontal_sums.h"

namespace voxfast::VOXFAST_ISA {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ACCUMULATORS = 16;  // of 32 registers
#else
constexpr int ACCUMULATORS = 8;  // of 16 registers
#endif

// Keys that are multiplied with Q queries at once.
template <int Q>
constexpr int STEP_KEYS = ACCUMULATORS / Q;

template <bool, typename A, typename>
struct Conditional {
  typedef A type;
};
template <typename A, typename B>
struct Conditional<false, A, B> {
  typedef B type;
};

template <typename T>
VOXFAST_INLINE void prefetch_chunk(const T* p) {
  for (int i = 0; i < CHUNK; i += 64 / static_cast<int>(sizeof(T))) {
    prefetch_l2(p + i);
  }
}

// Scores [N / Q keys, Q queries], N a multiple of LANES. Only `count` keys are read,
// `stride` apart; further ones repeat the score of the last. FETCH: prefetches as many
// rows from `prefetch` on.
template <bool FETCH, int N, typename U, int Q>
VOXFAST_INLINE void score_keys(const float* q, const U* keys, const U* prefetch,
                               int64_t stride, int size, int count, f32v* scores) {
  f32v sum[N] = {};
  for (int d = 0; d < size; d += CHUNK) {
    const U* key = keys + d;
    for (int k = 0; k < N / Q; ++k) {
      f32v x, y;
      load_chunk(key, x, y);
      if constexpr (FETCH) {
        prefetch_chunk(prefetch + (key - keys));
      }
      key += k + 1 < count ? stride : 0;
      for (int r = 0; r < Q; ++r) {
        sum[k * Q + r] += x * load(q + r * size + d);
        sum[k * Q + r] += y * load(q + r * size + d + LANES);
      }
    }
  }
  for (int i = 0; i < N; i += LANES) {
    scores[i / LANES] = horizontal_sums<LANES>(sum + i);
  }
}

// weighted [Q, size] += weights [count, Q] . values [count, size], `stride` apart, for V
// vectors of the head from dimension d on.
template <bool FETCH, typename U, int Q, int V>
VOXFAST_INLINE void add_values_at(int d, const float* weights, const U* values,
                                  const U* prefetch, int64_t stride, int size, int count,
                                  float* weighted) {
  f32v sum[Q][V];
  for (int r = 0; r < Q; ++r) {
    for (int i = 0; i < V; ++i) {
      sum[r][i] = load(weighted + r * size + d + i * LANES);
    }
  }
  for (int k = 0; k < count; ++k) {
    for (int i = 0; i < V; i += 2) {
      f32v x, y;
      load_chunk(values + k * stride + d + i * LANES, x, y);
      if constexpr (FETCH) {
        prefetch_chunk(prefetch + k * stride + d + i * LANES);
      }
      for (int r = 0; r < Q; ++r) {
        sum[r][i] += x * weights[k * Q + r];
        sum[r][i + 1] += y * weights[k * Q + r];
      }
    }
  }
  for (int r = 0; r < Q; ++r) {
    for (int i = 0; i < V; ++i) {
      store(weighted + r * size + d + i * LANES, sum[r][i]);
    }
  }
}

template <bool FETCH, typename U, int Q>
VOXFAST_INLINE void add_values(const float* weights, const U* values, const U* prefetch,
                               int64_t stride, int size, int count, float* weighted) {
  constexpr int V = ACCUMULATORS / Q < 8 ? ACCUMULATORS / Q : 8;
  int d = 0;
  for (; d + V * LANES <= size; d += V * LANES) {
    add_values_at<FETCH, U, Q, V>(d, weights, values, prefetch, stride, size, count,
                                  weighted);
  }
  for (; d < size; d += CHUNK) {
    add_values_at<FETCH, U, Q, 2>(d, weights, values, prefetch, stride, size, count,
                                  weighted);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

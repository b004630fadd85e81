#pragma once

// alignment_frame: scores as in attention_products.h. Each lane keeps the best score
// of its keys.

#include "kernels/alignment_frame_arguments.h"
#include "kernels/attention_products.h"
#include "kernels/attention_softmax.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int MAX_QUERIES = LANES / 2;  // of a call of score_keys

static_assert(MAX_QUERIES <= MAX_ALIGNMENT_QUERIES);

// The best score so far and its key. Lane i belongs to query i % Q. Comparisons with NaN
// are false, so a NaN is never the best.
template <int Q>
struct BestKey {
  f32v score = broadcast(-INF);
  i32v key = {};

  // scores: as score_keys returns them, for keys from `first` on.
  void add(f32v scores, int32_t first) {
    i32v keys;
    for (int i = 0; i < LANES; ++i) {
      keys[i] = first + i / Q;
    }
    i32v better = scores > score;
    score = better ? scores : score;
    key = better ? keys : key;
  }

  // The best key of query r; of equal scores the first.
  int32_t key_of(int r) const {
    int best = r;
    for (int i = r + Q; i < LANES; i += Q) {
      if (score[i] > score[best] || (score[i] == score[best] && key[i] < key[best])) {
        best = i;
      }
    }
    return key[best];
  }
};

// The scales of `count` quantized keys, as score_keys orders its scores.
template <int Q>
f32v scales_of(const AlignmentTile& t, const int8_t* keys, int count) {
  float scales[LANES] = {};
  for (int k = 0; k < count; ++k) {
    scales[k] = scale_of(keys + k * t.key_stride, t.head_size, t.key_element_stride);
  }
  for (int k = count; k < LANES / Q; ++k) {
    scales[k] = scales[count - 1];
  }
  return repeat_lanes<Q>(load(scales));
}

// R is the type of the keys. WIDENED: keys whose size or stride score_keys cannot read
// are converted to float32 first.
template <typename R, int Q, bool WIDENED>
void align_queries(const AlignmentTile& t) {
  typedef typename Conditional<WIDENED, float, R>::type U;
  constexpr int KEYS = LANES / Q,
                PREFETCH_VECTORS = 4;  // prefetch distance in vectors of scores
  int size = round_up(t.head_size, CHUNK);
  alignas(64) float q[Q * MAX_HEAD_SIZE], row[MAX_HEAD_SIZE];
  alignas(64) float widened[WIDENED ? KEYS * MAX_HEAD_SIZE : 1];
  std::memset(q, 0, sizeof(float) * Q * size);
  for (int r = 0; r < t.n_queries; ++r) {
    with_type(t.type, [&]<typename T>(T*) {
      load_row(static_cast<const T*>(t.queries[r]), t.query_element_stride, t.head_size,
               row);
    });
    for (int d = 0; d < t.head_size; ++d) {
      q[r * size + chunk_index<U>(d, t.head_size)] = row[d];
    }
  }
  const R* keys = static_cast<const R*>(t.keys);
  BestKey<Q> best;
  if constexpr (WIDENED) {
    std::memset(widened, 0, sizeof(float) * KEYS * size);
  }
  // score_keys repeats the last key, which cannot beat itself.
  for (int64_t first = 0; first < t.count; first += KEYS) {
    int count = static_cast<int>(min(t.count - first, int64_t{KEYS}));
    const R* block = keys + first * t.key_stride;
    f32v scores;
    if constexpr (WIDENED) {
      for (int k = 0; k < count; ++k) {
        load_row(block + k * t.key_stride, t.key_element_stride, t.head_size,
                 widened + k * size);
      }
      score_keys<false, LANES, float, Q>(q, widened, widened, size, size, count, &scores);
    } else {
      const R* prefetch =
          keys + min(first + PREFETCH_VECTORS * KEYS, t.count - count) * t.key_stride;
      score_keys<true, LANES, R, Q>(q, block, prefetch, t.key_stride, size, count,
                                    &scores);
    }
    if constexpr (QUANTIZED<R>) {
      scores *= scales_of<Q>(t, block, count);
    }
    best.add(scores, static_cast<int32_t>(first));
  }
  for (int r = 0; r < t.n_queries; ++r) {
    *t.frames[r] = best.key_of(r);
  }
}

template <typename R, int Q>
void align_queries(const AlignmentTile& t) {
  if (t.head_size % CHUNK == 0 && t.key_element_stride == 1) {
    align_queries<R, Q, false>(t);
  } else {
    align_queries<R, Q, true>(t);
  }
}

template <typename R>
void align_queries(const AlignmentTile& t) {
  if (t.n_queries == 1) {
    align_queries<R, 1>(t);
  } else if (t.n_queries == 2) {
    align_queries<R, 2>(t);
#if defined(__AVX512F__)
  } else if (t.n_queries <= 4) {
    align_queries<R, 4>(t);
#endif
  } else {
    align_queries<R, MAX_QUERIES>(t);
  }
}

void alignment_frame(const AlignmentTile& t) {
  with_ring_type(t, [&]<typename R>(R*) { align_queries<R>(t); });
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// alignment_frame: scores as in attention_products.h. Each lane keeps the best score
// of its keys.

#include "kernels/alignment_frame_arguments.h"
#include "kernels/attention_products.h"
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

// WIDENED: keys whose size or stride score_keys cannot read are converted to float32
// first.
template <typename T, int Q, bool WIDENED>
void align_queries(const AlignmentTile& t) {
  typedef typename Conditional<WIDENED, float, T>::type U;
  constexpr int KEYS = LANES / Q,
                PREFETCH_VECTORS = 4;  // prefetch distance in vectors of scores
  int size = round_up(t.head_size, CHUNK);
  alignas(64) float q[Q * MAX_HEAD_SIZE], row[MAX_HEAD_SIZE];
  alignas(64) float widened[WIDENED ? KEYS * MAX_HEAD_SIZE : 1];
  std::memset(q, 0, sizeof(float) * Q * size);
  for (int r = 0; r < t.n_queries; ++r) {
    load_row(static_cast<const T*>(t.queries[r]), t.query_element_stride, t.head_size,
             row);
    for (int d = 0; d < t.head_size; ++d) {
      q[r * size + chunk_index<U>(d, t.head_size)] = row[d];
    }
  }
  const T* keys = static_cast<const T*>(t.keys);
  BestKey<Q> best;
  if constexpr (WIDENED) {
    std::memset(widened, 0, sizeof(float) * KEYS * size);
  }
  // score_keys repeats the last key, which cannot beat itself.
  for (int64_t first = 0; first < t.count; first += KEYS) {
    int count = static_cast<int>(min(t.count - first, int64_t{KEYS}));
    const T* block = keys + first * t.key_stride;
    f32v scores;
    if constexpr (WIDENED) {
      for (int k = 0; k < count; ++k) {
        load_row(block + k * t.key_stride, t.key_element_stride, t.head_size,
                 widened + k * size);
      }
      score_keys<false, LANES, float, Q>(q, widened, widened, size, size, count, &scores);
    } else {
      const T* prefetch =
          keys + min(first + PREFETCH_VECTORS * KEYS, t.count - count) * t.key_stride;
      score_keys<true, LANES, T, Q>(q, block, prefetch, t.key_stride, size, count,
                                    &scores);
    }
    best.add(scores, static_cast<int32_t>(first));
  }
  for (int r = 0; r < t.n_queries; ++r) {
    *t.frames[r] = best.key_of(r);
  }
}

template <typename T, int Q>
void align_queries(const AlignmentTile& t) {
  if (t.head_size % CHUNK == 0 && t.key_element_stride == 1) {
    align_queries<T, Q, false>(t);
  } else {
    align_queries<T, Q, true>(t);
  }
}

template <typename T>
void align_queries(const AlignmentTile& t) {
  if (t.n_queries == 1) {
    align_queries<T, 1>(t);
  } else if (t.n_queries == 2) {
    align_queries<T, 2>(t);
#if defined(__AVX512F__)
  } else if (t.n_queries <= 4) {
    align_queries<T, 4>(t);
#endif
  } else {
    align_queries<T, MAX_QUERIES>(t);
  }
}

void alignment_frame(const AlignmentTile& t) {
  with_type(t.type, [&]<typename T>(T*) { align_queries<T>(t); });
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

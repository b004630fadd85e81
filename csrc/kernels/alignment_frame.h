#pragma once

// alignment_frame: every key is read once and multiplied with the query rows that share
// it, as in the attention over few rows; each lane keeps the best of the keys it has
// seen.

#include "kernels/alignment_frame_arguments.h"
#include "kernels/attention_few_queries.h"

namespace voxfast::VOXFAST_ISA {
namespace {

static_assert(MAX_FEW_ROWS <= MAX_ALIGNMENT_ROWS);

// The best score so far and its key; lane i belongs to row i % R. Comparisons with NaN
// fail, so that a NaN is never the best.
template <int R>
struct Best {
  f32v score = broadcast(-INFINITE);
  i32v key = {};

  // Scores of keys from `first` on.
  void add(f32v scores, int32_t first) {
    i32v keys;
    for (int i = 0; i < LANES; ++i) {
      keys[i] = first + i / R;
    }
    i32v better = scores > score;
    score = better ? scores : score;
    key = better ? keys : key;
  }

  // Of equal scores the first key.
  int32_t of_row(int r) const {
    int best = r;
    for (int i = r + R; i < LANES; i += R) {
      if (score[i] > score[best] || (score[i] == score[best] && key[i] < key[best])) {
        best = i;
      }
    }
    return key[best];
  }
};

// STAGED: rows that cannot be multiplied where they lie are widened to float32 first.
template <typename T, int R, bool STAGED>
void align_rows(const AlignmentTile& t) {
  typedef typename Choose<STAGED, float, T>::type U;
  constexpr int KEYS = LANES / R, AHEAD = 4;  // groups of keys that are fetched early
  int size = round_up(t.head_size, CHUNK);
  alignas(64) float q[R * MAX_HEAD_SIZE], row[MAX_HEAD_SIZE];
  alignas(64) float stage[STAGED ? KEYS * MAX_HEAD_SIZE : 1];
  std::memset(q, 0, sizeof(float) * R * size);
  for (int r = 0; r < t.rows; ++r) {
    load_row(static_cast<const T*>(t.queries[r]), t.query_element_stride, t.head_size,
             row);
    for (int d = 0; d < t.head_size; ++d) {
      q[r * size + packed<U>(d)] = row[d];
    }
  }
  const T* keys = static_cast<const T*>(t.keys);
  Best<R> best;
  if constexpr (STAGED) {
    std::memset(stage, 0, sizeof(float) * KEYS * size);
  }
  // Behind the last key its score is repeated, which does not win against itself.
  for (int64_t first = 0; first < t.count; first += KEYS) {
    int count = static_cast<int>(smaller(t.count - first, int64_t{KEYS}));
    const T* block = keys + first * t.key_stride;
    if constexpr (STAGED) {
      for (int k = 0; k < count; ++k) {
        load_row(block + k * t.key_stride, t.key_element_stride, t.head_size,
                 stage + k * size);
      }
      best.add(score_keys<float, R>(q, stage, stage, size, size, count),
               static_cast<int32_t>(first));
    } else {
      const T* soon =
          keys + smaller(first + AHEAD * KEYS, t.count - count) * t.key_stride;
      best.add(score_keys<T, R>(q, block, soon, t.key_stride, size, count),
               static_cast<int32_t>(first));
    }
  }
  for (int r = 0; r < t.rows; ++r) {
    *t.frames[r] = best.of_row(r);
  }
}

template <typename T, int R>
void align_rows(const AlignmentTile& t) {
  if (t.head_size % CHUNK == 0 && t.key_element_stride == 1) {
    align_rows<T, R, false>(t);
  } else {
    align_rows<T, R, true>(t);
  }
}

template <typename T>
void align_rows(const AlignmentTile& t) {
  if (t.rows == 1) {
    align_rows<T, 1>(t);
  } else if (t.rows == 2) {
    align_rows<T, 2>(t);
#if defined(__AVX512F__)
  } else if (t.rows <= 4) {
    align_rows<T, 4>(t);
#endif
  } else {
    align_rows<T, MAX_FEW_ROWS>(t);
  }
}

void alignment_frame(const AlignmentTile& t) {
  switch (t.type) {
    case FloatType::float32:
      return align_rows<float>(t);
    case FloatType::float16:
      return align_rows<f16>(t);
    case FloatType::bfloat16:
      return align_rows<bf16>(t);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

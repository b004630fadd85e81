#pragma once

// sliding_attention for tiles of few queries (decoding). Every key is loaded once,
// converted in registers and multiplied with Q queries. The lanes run along the head.

#include "kernels/attention_tile.h"
#include "kernels/horizontal_sums.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int MAX_FEW_QUERIES = LANES / 2;
constexpr int CHUNK = 2 * LANES;  // elements that load_chunk takes at once
constexpr int MAX_BLOCK = 64;     // keys between updates of the largest score

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ACCUMULATORS = 16;  // of 32 registers
#else
constexpr int ACCUMULATORS = 8;  // of 16 registers
#endif

// ---- chunks of a key, value or query ------------------------------------------------

template <typename T>
VOXFAST_INLINE void load_chunk(const T* p, f32v& x, f32v& y) {
  x = load(p);
  y = load(p + LANES);
}

// x gets the even elements and y the odd ones: a shift and a mask convert them in place.
VOXFAST_INLINE void load_chunk(const bf16* p, f32v& x, f32v& y) {
  i32v pairs;
  std::memcpy(&pairs, p, sizeof pairs);
  x = (f32v)(pairs << 16);
  y = (f32v)(pairs & static_cast<int32_t>(0xffff0000u));
}

template <typename T>
VOXFAST_INLINE void prefetch_chunk(const T* p) {
  for (int i = 0; i < CHUNK; i += 64 / static_cast<int>(sizeof(T))) {
    prefetch_l2(p + i);
  }
}

// The index that element i has after load_chunk.
template <typename T>
VOXFAST_INLINE int chunk_index(int i) {
  return i;
}

template <>
VOXFAST_INLINE int chunk_index<bf16>(int i) {
  return i / CHUNK * CHUNK + i % 2 * LANES + i % CHUNK / 2;
}

// ---- one block of keys ------------------------------------------------------------

// Scores [LANES / Q keys, Q queries]. Only `count` keys are read, `stride` apart; further
// ones repeat the score of the last. Prefetches as many keys or values from `prefetch`.
template <typename U, int Q>
VOXFAST_INLINE f32v score_keys(const float* q, const U* keys, const U* prefetch,
                               int64_t stride, int size, int count) {
  constexpr int KEYS = LANES / Q;
  f32v sum[LANES] = {};
  for (int d = 0; d < size; d += CHUNK) {
    const U* key = keys + d;
    for (int k = 0; k < KEYS; ++k) {
      f32v x, y;
      load_chunk(key, x, y);
      prefetch_chunk(prefetch + (key - keys));
      key += k + 1 < count ? stride : 0;
      for (int r = 0; r < Q; ++r) {
        sum[k * Q + r] += x * load(q + r * size + d);
        sum[k * Q + r] += y * load(q + r * size + d + LANES);
      }
    }
  }
  return horizontal_sums<LANES>(sum);
}

// weighted [Q, size] += weights [count, Q] . values [count, size], for V vectors of the
// head from dimension d on.
template <typename U, int Q, int V>
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
      prefetch_chunk(prefetch + k * stride + d + i * LANES);
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

template <typename U, int Q>
VOXFAST_INLINE void add_values(const float* weights, const U* values, const U* prefetch,
                               int64_t stride, int size, int count, float* weighted) {
  constexpr int V = ACCUMULATORS / Q < 8 ? ACCUMULATORS / Q : 8;
  int d = 0;
  for (; d + V * LANES <= size; d += V * LANES) {
    add_values_at<U, Q, V>(d, weights, values, prefetch, stride, size, count, weighted);
  }
  for (; d < size; d += CHUNK) {
    add_values_at<U, Q, 2>(d, weights, values, prefetch, stride, size, count, weighted);
  }
}

// ---- online softmax ---------------------------------------------------------------

// Online softmax (arXiv 1805.02867) of Q queries; lane i of a vector of scores belongs to
// query i % Q.
template <int Q>
struct Softmax {
  float max_score[Q];    // largest so far
  f32v weight_sum = {};  // still to be added over the lanes of a query

  Softmax() {
    for (float& score : max_score) {
      score = -INF;
    }
  }

  // Replaces scores by weights exp2(score - max_score). Rescales weighted [Q, size] when
  // max_score grows.
  void add(f32v* scores, int vectors, float* weighted, int size) {
    f32v block_max = scores[0];
    for (int j = 1; j < vectors; ++j) {
      block_max = max(block_max, scores[j]);
    }
    alignas(64) float lane[LANES], base[LANES], rescale[LANES];
    store(lane, block_max);
    bool grown = false;
    for (int r = 0; r < Q; ++r) {
      float now = max_score[r];
      for (int i = r; i < LANES; i += Q) {
        now = lane[i] > now ? lane[i] : now;
      }
      float finite = now == -INF ? 0.0f : now;
      for (int i = r; i < LANES; i += Q) {
        base[i] = finite;
        rescale[i] = max_score[r] - finite;
      }
      grown |= now != max_score[r];
      max_score[r] = now;
    }
    if (grown) {
      f32v factor = exp2_nonpositive(load(rescale));
      store(rescale, factor);
      weight_sum *= factor;
      for (int r = 0; r < Q; ++r) {
        for (int d = r * size; d < (r + 1) * size; d += LANES) {
          store(weighted + d, load(weighted + d) * rescale[r]);
        }
      }
    }
    for (int j = 0; j < vectors; ++j) {
      scores[j] = exp2_nonpositive(scores[j] - load(base));
      weight_sum += scores[j];
    }
  }
};

// ---- one tile ---------------------------------------------------------------------

// Sets scores of keys outside their query's window to -infinity.
template <typename T, int Q>
void mask_scores(const Tile<T>& t, int64_t position, int count, f32v* scores,
                 int vectors) {
  i32v first, end, key;
  for (int i = 0; i < LANES; ++i) {
    int r = min(i % Q, t.n_queries - 1);
    int64_t newest = t.newest(r) - position;
    first[i] = static_cast<int32_t>(max(newest - t.a.window + 1, 0));
    end[i] = static_cast<int32_t>(min(newest + 1, int64_t{count}));
    key[i] = i / Q;
  }
  for (int j = 0; j < vectors; ++j) {
    i32v visible = (key >= first) & (key < end);
    scores[j] = visible ? scores[j] : broadcast(-INF);
    key += LANES / Q;
  }
}

template <bool, typename A, typename>
struct Conditional {
  typedef A type;
};
template <typename A, typename B>
struct Conditional<false, A, B> {
  typedef B type;
};

// Converts [count, from] to [count, to] float32, padded with zeros.
template <typename T>
void widen_slots(const T* slots, int count, int from, int to, float* out) {
  for (int k = 0; k < count; ++k) {
    load_row(slots + static_cast<int64_t>(k) * from, 1, from, out + k * to);
    for (int d = from; d < to; ++d) {
      out[k * to + d] = 0.0f;
    }
  }
}

// WIDENED: the head size is no multiple of CHUNK, so that blocks are converted to float32
// and padded first.
template <typename T, int Q, bool WIDENED>
struct FewQueries {
  typedef typename Conditional<WIDENED, float, T>::type U;
  static constexpr int WIDENED_FLOATS = 8192;

  const Tile<T>& t;
  int size = round_up(t.a.head_size, CHUNK);
  int64_t stride = WIDENED ? size : t.a.head_size;
  int max_keys = WIDENED ? min(MAX_BLOCK, WIDENED_FLOATS / size) : MAX_BLOCK;
  Softmax<Q> softmax;
  alignas(64) float q[Q * MAX_HEAD_SIZE], weighted[Q * MAX_HEAD_SIZE];  // [Q, size]
  alignas(64) f32v scores[MAX_BLOCK * Q / LANES];
  alignas(64) float widened[WIDENED ? WIDENED_FLOATS : 1];

  explicit FewQueries(const Tile<T>& tile) : t(tile) {
    float query[MAX_HEAD_SIZE];
    std::memset(q, 0, sizeof(float) * Q * size);
    std::memset(weighted, 0, sizeof(float) * Q * size);
    for (int r = 0; r < t.n_queries; ++r) {
      read_query(t, r, query);
      for (int d = 0; d < t.a.head_size; ++d) {
        q[r * size + chunk_index<U>(d)] = query[d];
      }
    }
  }

  // `count` slots of a ring from `slot` on, [count, stride].
  const U* block(const T* ring, int64_t slot, int count) {
    const T* first = ring + slot * t.a.head_size;
    if constexpr (WIDENED) {
      widen_slots(first, count, t.a.head_size, size, widened);
      return widened;
    } else {
      return first;
    }
  }

  // Attends to `count` positions in consecutive slots. Computing scores prefetches the
  // values; adding values prefetches the next keys.
  void add_block(int64_t position, int64_t slot, int count) {
    const U *keys = block(t.keys, slot, count), *prefetch = keys;
    if constexpr (!WIDENED) {
      prefetch = block(t.values, slot, count);
    }
    int vectors = (count * Q + LANES - 1) / LANES;
    for (int j = 0; j < vectors; ++j) {
      int first = j * (LANES / Q);
      scores[j] = score_keys<U, Q>(q, keys + first * stride, prefetch + first * stride,
                                   stride, size, count - first);
    }
    if (count * Q % LANES != 0 || !t.all_visible(position, position + count)) {
      mask_scores<T, Q>(t, position, count, scores, vectors);
    }
    softmax.add(scores, vectors, weighted, size);
    const U* values = block(t.values, slot, count);
    if constexpr (!WIDENED) {
      prefetch = block(t.keys, slot + count == t.a.capacity ? 0 : slot + count, count);
    }
    add_values<U, Q>(reinterpret_cast<const float*>(scores), values, prefetch, stride,
                     size, count, weighted);
  }

  void write_results() {
    float query[MAX_HEAD_SIZE];
    for (int r = 0; r < t.n_queries; ++r) {
      float weight_sum = 0.0f;
      for (int i = r; i < LANES; i += Q) {
        weight_sum += softmax.weight_sum[i];
      }
      for (int d = 0; d < t.a.head_size; ++d) {
        query[d] = weighted[r * size + chunk_index<U>(d)];
      }
      finish_query(t, r, query, softmax.max_score[r], weight_sum);
    }
  }
};

template <typename T, int Q, bool WIDENED>
void attend_few_queries(const Tile<T>& t) {
  FewQueries<T, Q, WIDENED> few(t);
  int64_t slot = t.begin % t.a.capacity;
  for (int64_t position = t.begin; position < t.end;) {
    int64_t left = min(t.end - position, t.a.capacity - slot);
    int count = static_cast<int>(min(left, int64_t{few.max_keys}));
    few.add_block(position, slot, count);
    position += count;
    slot = slot + count == t.a.capacity ? 0 : slot + count;
  }
  few.write_results();
}

template <typename T, int Q>
void attend_few_queries(const Tile<T>& t) {
  if (t.a.head_size % CHUNK == 0) {
    attend_few_queries<T, Q, false>(t);
  } else {
    attend_few_queries<T, Q, true>(t);
  }
}

template <typename T>
void attend_few_queries(const Tile<T>& t) {
  if (t.n_queries == 1) {
    attend_few_queries<T, 1>(t);
  } else if (t.n_queries == 2) {
    attend_few_queries<T, 2>(t);
#if defined(__AVX512F__)
  } else if (t.n_queries <= 4) {
    attend_few_queries<T, 4>(t);
#endif
  } else {
    attend_few_queries<T, MAX_FEW_QUERIES>(t);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

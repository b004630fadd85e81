#pragma once

// sliding_attention for tiles of many queries (chunks, prefill). A block of keys and
// values is converted to float32 once; panels of queries are then multiplied with it in
// register tiles. Scores have one query per lane, so that the softmax needs no horizontal
// operations. Outputs have one dimension of the head per lane.

#include "kernels/attention_tile.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int BLOCK_FLOATS = 4096;  // of a block of keys or of values
constexpr int TILE_QUERIES = 4;     // queries of an output tile
constexpr int PANEL_VECTORS = 2;    // vectors of queries in a panel, at most

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_VECTORS = 16;  // accumulators of a register tile, of 32 registers
#else
constexpr int TILE_VECTORS = 8;  // of 16 registers
#endif

// The state of a tile. S is the head size rounded up to 64, 128, 256 or 512, which makes
// the strides of a block constants. V is the number of vectors of queries in a panel.
template <int S>
struct ManyQueries {
  static constexpr int KEYS = BLOCK_FLOATS / S;
  static constexpr int QUERIES = MANY_QUERIES_FLOATS / S;

  alignas(64) float queries[QUERIES * S];  // per panel [D, V * LANES]
  alignas(64) float weighted[QUERIES * S];
  alignas(64) float max_score[QUERIES], weight_sum[QUERIES];
  alignas(64) float keys[KEYS * S], values[KEYS * S];
  alignas(64) float scores[KEYS * PANEL_VECTORS * LANES];
};

// Prefetches the next block of the rings, a part with each register tile of scores.
struct Prefetcher {
  const char *keys, *values;
  int64_t left, step;  // bytes of keys, and as many of values

  VOXFAST_INLINE void fetch() {
    int64_t now = min(step, left);
    for (int64_t i = 0; i < now; i += 64) {
      prefetch_l2(keys + i);
      prefetch_l2(values + i);
    }
    keys += now;
    values += now;
    left -= now;
  }
};

// Computes scores [keys, V * LANES] of keys [from, to), both multiples of 8.
template <int S, int V>
void score_panel(const float* queries, const float* keys, int head_size, int from, int to,
                 float* scores, Prefetcher& prefetcher) {
  constexpr int TILE = V == 1 ? 8 : TILE_VECTORS / V;
  for (int key = from; key < to; key += TILE) {
    const float* key_row = keys + key * S;
    f32v sum[TILE][V] = {};
    prefetcher.fetch();
    for (int d = 0; d < head_size; ++d) {
      f32v q[V];
      for (int i = 0; i < V; ++i) {
        q[i] = load(queries + (d * V + i) * LANES);
      }
      for (int k = 0; k < TILE; ++k) {
        for (int i = 0; i < V; ++i) {
          sum[k][i] += q[i] * key_row[k * S + d];
        }
      }
    }
    for (int k = 0; k < TILE; ++k) {
      for (int i = 0; i < V; ++i) {
        store(scores + ((key + k) * V + i) * LANES, sum[k][i]);
      }
    }
  }
}

// weighted [queries, S] += weights^T . values over keys [from, to). weights is
// [keys, V * LANES], one query per lane.
template <int S, int V>
void add_values(const float* weights, const float* values, int head_size, int from,
                int to, float* weighted) {
  constexpr int TILE = TILE_VECTORS / TILE_QUERIES;
  for (int d = 0; d < head_size; d += TILE * LANES) {
    for (int query = 0; query < V * LANES; query += TILE_QUERIES) {
      float* out = weighted + query * S + d;
      f32v sum[TILE_QUERIES][TILE];
      for (int r = 0; r < TILE_QUERIES; ++r) {
        for (int i = 0; i < TILE; ++i) {
          sum[r][i] = load(out + r * S + i * LANES);
        }
      }
      for (int k = from; k < to; ++k) {
        for (int i = 0; i < TILE; ++i) {
          f32v value = load(values + k * S + d + i * LANES);
          for (int r = 0; r < TILE_QUERIES; ++r) {
            sum[r][i] += value * weights[k * V * LANES + query + r];
          }
        }
      }
      for (int r = 0; r < TILE_QUERIES; ++r) {
        for (int i = 0; i < TILE; ++i) {
          store(out + r * S + i * LANES, sum[r][i]);
        }
      }
    }
  }
}

// Online softmax (arXiv 1805.02867) of one vector of queries over keys [from, to).
// Replaces scores, V vectors apart, by weights exp2(score - largest score so far).
template <int S, int V>
void softmax(float* scores, int from, int to, float* max_score, float* weight_sum,
             float* weighted) {
  f32v before = load(max_score), now = before;
  for (int k = from; k < to; ++k) {
    now = max(now, load(scores + k * V * LANES));
  }
  f32v base = now == broadcast(-INF) ? f32v{} : now;
  f32v rescale = exp2_nonpositive(before - base);
  for (int r = 0; r < LANES; ++r) {
    if (now[r] != before[r]) {
      for (int d = 0; d < S; d += LANES) {
        store(weighted + r * S + d, load(weighted + r * S + d) * rescale[r]);
      }
    }
  }
  f32v sum = load(weight_sum) * rescale;
  for (int k = from; k < to; ++k) {
    f32v weight = exp2_nonpositive(load(scores + k * V * LANES) - base);
    sum += weight;
    store(scores + k * V * LANES, weight);
  }
  store(max_score, now);
  store(weight_sum, sum);
}

// Sets scores of keys outside their query's window to -infinity, for the vector of
// queries from `query` on.
template <typename T, int V>
void mask_panel(const Tile<T>& t, int query, int64_t position, int from, int to,
                float* scores) {
  i32v first, end;
  for (int r = 0; r < LANES; ++r) {
    int64_t newest = t.newest(min(query + r, t.n_queries - 1)) - position;
    first[r] = static_cast<int32_t>(max(newest - t.a.window + 1, 0));
    end[r] = static_cast<int32_t>(min(newest + 1, int64_t{to}));
  }
  for (int k = from; k < to; ++k) {
    i32v key = i32v{} + k;
    i32v visible = (key >= first) & (key < end);
    f32v score = load(scores + k * V * LANES);
    store(scores + k * V * LANES, visible ? score : broadcast(-INF));
  }
}

// Attends with one panel, V vectors of queries from `query` on, to one block of `count`
// keys.
template <typename T, int S, int V>
void attend_panel(const Tile<T>& t, ManyQueries<S>& m, int query, int64_t position,
                  int count, Prefetcher& prefetcher) {
  int last = min(query + V * LANES, t.n_queries) - 1;
  int64_t oldest = t.newest(query) - t.a.window + 1 - position;
  int from = static_cast<int>(max(oldest, 0)) / 8 * 8;
  int to = static_cast<int>(min(t.newest(last) + 1 - position, int64_t{count}));
  if (from >= to) {
    return;
  }
  score_panel<S, V>(m.queries + query * t.a.head_size, m.keys, t.a.head_size, from,
                    round_up(to, 8), m.scores, prefetcher);
  bool all_visible = t.newest(query) - position >= to - 1 &&
                     t.newest(last) - t.a.window < position + from;
  for (int i = 0; i < V; ++i) {
    int first = query + i * LANES;
    float* scores = m.scores + i * LANES;
    if (!all_visible) {
      mask_panel<T, V>(t, first, position, from, to, scores);
    }
    softmax<S, V>(scores, from, to, m.max_score + first, m.weight_sum + first,
                  m.weighted + first * S);
  }
  add_values<S, V>(m.scores, m.values, t.a.head_size, from, to, m.weighted + query * S);
}

// Converts `count` slots of a ring from `slot` on to [count, S] float32. Padding is zero,
// in every row, and in rows up to a multiple of 8.
template <typename T, int S>
void widen_block(const T* ring, int capacity, int64_t slot, int count, int head_size,
                 float* out) {
  for (int k = 0; k < round_up(count, 8); ++k, out += S) {
    int n = k < count ? head_size : 0;
    load_row(ring + slot * head_size, 1, n, out);
    std::memset(out + n, 0, sizeof(float) * (S - n));
    slot = slot + 1 == capacity ? 0 : slot + 1;
  }
}

template <typename T, int S>
Prefetcher prefetch_block(const Tile<T>& t, int64_t position) {
  constexpr int PANEL = PANEL_VECTORS * LANES, KEYS = ManyQueries<S>::KEYS;
  int64_t slot = position % t.a.capacity, size = t.a.head_size * sizeof(T);
  int64_t count = min(t.end - position, min(int64_t{KEYS}, t.a.capacity - slot));
  int64_t tiles = (t.n_queries + PANEL - 1) / PANEL * (KEYS / 8);
  auto at = [&](const T* ring) {
    return reinterpret_cast<const char*>(ring) + slot * size;
  };
  return {at(t.keys), at(t.values), count * size, (count * size / tiles + 64) / 64 * 64};
}

template <typename T, int S>
void read_queries(const Tile<T>& t, ManyQueries<S>& m) {
  constexpr int PANEL = PANEL_VECTORS * LANES;
  float query[MAX_HEAD_SIZE];
  std::memset(m.queries, 0, sizeof m.queries);
  for (int r = 0; r < t.n_queries; ++r) {
    read_query(t, r, query);
    int panel = r / PANEL * PANEL;
    int width = t.n_queries - panel > LANES ? PANEL : LANES;
    float* out = m.queries + panel * t.a.head_size + (r - panel);
    for (int d = 0; d < t.a.head_size; ++d) {
      out[d * width] = query[d];
    }
  }
}

template <typename T, int S>
void attend_many_queries(const Tile<T>& t) {
  constexpr int PANEL = PANEL_VECTORS * LANES;
  const auto& a = t.a;
  ManyQueries<S> m;
  read_queries<T, S>(t, m);
  int padded = round_up(t.n_queries, LANES);
  std::memset(m.weighted, 0, sizeof(float) * padded * S);
  for (int r = 0; r < padded; ++r) {
    m.max_score[r] = -INF;
    m.weight_sum[r] = 0.0f;
  }
  for (int64_t position = t.begin; position < t.end; position += m.KEYS) {
    int count = static_cast<int>(min(int64_t{m.KEYS}, t.end - position));
    int64_t slot = position % a.capacity;
    widen_block<T, S>(t.keys, a.capacity, slot, count, a.head_size, m.keys);
    widen_block<T, S>(t.values, a.capacity, slot, count, a.head_size, m.values);
    Prefetcher prefetcher = prefetch_block<T, S>(t, position + count);
    for (int query = 0; query < t.n_queries; query += PANEL) {
      if (t.n_queries - query > LANES) {
        attend_panel<T, S, 2>(t, m, query, position, count, prefetcher);
      } else {
        attend_panel<T, S, 1>(t, m, query, position, count, prefetcher);
      }
    }
  }
  for (int r = 0; r < t.n_queries; ++r) {
    finish_query(t, r, m.weighted + r * S, m.max_score[r], m.weight_sum[r]);
  }
}

template <typename T>
void attend_many_queries(const Tile<T>& t) {
  if (t.a.head_size <= 64) {
    attend_many_queries<T, 64>(t);
  } else if (t.a.head_size <= 128) {
    attend_many_queries<T, 128>(t);
  } else if (t.a.head_size <= 256) {
    attend_many_queries<T, 256>(t);
  } else {
    attend_many_queries<T, 512>(t);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

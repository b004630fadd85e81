#pragma once

// sliding_attention for many query rows per KV head (chunks, prefill): a block of keys
// and values is widened once, and panels of query rows are multiplied with it in
// register tiles. The lanes of the scores run over the query rows, so that the softmax
// never looks across lanes; the lanes of the output run over the head.

#include "kernels/attention_tile.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int BLOCK_FLOATS = 4096;  // of one block of keys or values
constexpr int ROW_TILE = 4;         // query rows of an output tile
constexpr int PANEL_VECTORS = 2;    // vectors of query rows in a panel, at most

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_VECTORS = 16;  // accumulators of a tile, of 32 registers
#else
constexpr int TILE_VECTORS = 8;  // of 16 registers
#endif

// S is the head size rounded up to 64, 128, 256 or 512, so that distances within a block
// are constants; V the vectors of query rows in a panel.
template <int S>
struct ManyRows {
  static constexpr int KEYS = BLOCK_FLOATS / S;
  static constexpr int ROWS = MANY_ROWS_TILE / S;

  alignas(64) float queries[ROWS * S];  // panel by panel: [D, V * LANES]
  alignas(64) float weighted[ROWS * S];
  alignas(64) float most[ROWS], total[ROWS];
  alignas(64) float keys[KEYS * S], values[KEYS * S];
  alignas(64) float scores[KEYS * PANEL_VECTORS * LANES];
};

// The next block of the rings, fetched a little with each tile of scores.
struct Ahead {
  const char *keys, *values;
  int64_t left, step;  // bytes of each

  VOXFAST_INLINE void fetch() {
    int64_t now = smaller(step, left);
    for (int64_t i = 0; i < now; i += 64) {
      fetch_line(keys + i);
      fetch_line(values + i);
    }
    keys += now;
    values += now;
    left -= now;
  }
};

// scores [keys, V * LANES] of the keys `from` to `to`, both multiples of 8.
template <int S, int V>
void score_panel(const float* queries, const float* keys, int head_size, int from, int to,
                 float* scores, Ahead& ahead) {
  constexpr int TILE = V == 1 ? 8 : TILE_VECTORS / V;
  for (int key = from; key < to; key += TILE) {
    const float* row = keys + key * S;
    f32v sum[TILE][V] = {};
    ahead.fetch();
    for (int d = 0; d < head_size; ++d) {
      f32v q[V];
      for (int i = 0; i < V; ++i) {
        q[i] = load(queries + (d * V + i) * LANES);
      }
      for (int k = 0; k < TILE; ++k) {
        for (int i = 0; i < V; ++i) {
          sum[k][i] += q[i] * row[k * S + d];
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

// weighted [rows, S] += weights^T . values over the keys `from` to `to`; weights is
// [keys, V * LANES], a lane for each row.
template <int S, int V>
void add_values(const float* weights, const float* values, int head_size, int from,
                int to, float* weighted) {
  constexpr int TILE = TILE_VECTORS / ROW_TILE;
  for (int d = 0; d < head_size; d += TILE * LANES) {
    for (int row = 0; row < V * LANES; row += ROW_TILE) {
      float* out = weighted + row * S + d;
      f32v sum[ROW_TILE][TILE];
      for (int r = 0; r < ROW_TILE; ++r) {
        for (int i = 0; i < TILE; ++i) {
          sum[r][i] = load(out + r * S + i * LANES);
        }
      }
      for (int k = from; k < to; ++k) {
        for (int i = 0; i < TILE; ++i) {
          f32v value = load(values + k * S + d + i * LANES);
          for (int r = 0; r < ROW_TILE; ++r) {
            sum[r][i] += value * weights[k * V * LANES + row + r];
          }
        }
      }
      for (int r = 0; r < ROW_TILE; ++r) {
        for (int i = 0; i < TILE; ++i) {
          store(out + r * S + i * LANES, sum[r][i]);
        }
      }
    }
  }
}

// Online softmax of one vector of rows over the keys `from` to `to`: scores, V vectors
// apart, become weights relative to the greatest score so far.
template <int S, int V>
void soften(float* scores, int from, int to, float* most, float* total, float* weighted) {
  f32v before = load(most), now = before;
  for (int k = from; k < to; ++k) {
    now = max(now, load(scores + k * V * LANES));
  }
  f32v base = now == broadcast(-INFINITE) ? f32v{} : now;
  f32v shrink = exp2_nonpositive(before - base);
  for (int r = 0; r < LANES; ++r) {
    if (now[r] != before[r]) {
      for (int d = 0; d < S; d += LANES) {
        store(weighted + r * S + d, load(weighted + r * S + d) * shrink[r]);
      }
    }
  }
  f32v sum = load(total) * shrink;
  for (int k = from; k < to; ++k) {
    f32v weight = exp2_nonpositive(load(scores + k * V * LANES) - base);
    sum += weight;
    store(scores + k * V * LANES, weight);
  }
  store(most, now);
  store(total, sum);
}

// Scores of keys outside their row's window become -infinity. row: the first row of this
// vector of rows.
template <typename T, int V>
void mask_panel(const Tile<T>& t, int row, int64_t position, int from, int to,
                float* scores) {
  i32v first, past;
  for (int r = 0; r < LANES; ++r) {
    int64_t newest = t.position(smaller(row + r, t.rows - 1)) - position;
    first[r] = static_cast<int32_t>(larger(newest - t.a.window + 1, 0));
    past[r] = static_cast<int32_t>(smaller(newest + 1, int64_t{to}));
  }
  for (int k = from; k < to; ++k) {
    i32v key = i32v{} + k;
    f32v score = load(scores + k * V * LANES);
    store(scores + k * V * LANES,
          (key >= first) & (key < past) ? score : broadcast(-INFINITE));
  }
}

// One panel of V vectors of rows, from `row` on, and one block of `count` keys.
template <typename T, int S, int V>
void attend_panel(const Tile<T>& t, ManyRows<S>& m, int row, int64_t position, int count,
                  Ahead& ahead) {
  int last = smaller(row + V * LANES, t.rows) - 1;
  int64_t oldest = t.position(row) - t.a.window + 1 - position;
  int from = static_cast<int>(larger(oldest, 0)) / 8 * 8;
  int to = static_cast<int>(smaller(t.position(last) + 1 - position, int64_t{count}));
  if (from >= to) {
    return;
  }
  score_panel<S, V>(m.queries + row * t.a.head_size, m.keys, t.a.head_size, from,
                    round_up(to, 8), m.scores, ahead);
  bool all_see = t.position(row) - position >= to - 1 &&
                 t.position(last) - t.a.window < position + from;
  for (int i = 0; i < V; ++i) {
    int first = row + i * LANES;
    float* scores = m.scores + i * LANES;
    if (!all_see) {
      mask_panel<T, V>(t, first, position, from, to, scores);
    }
    soften<S, V>(scores, from, to, m.most + first, m.total + first,
                 m.weighted + first * S);
  }
  add_values<S, V>(m.scores, m.values, t.a.head_size, from, to, m.weighted + row * S);
}

// `count` rows of the ring, from `slot` on, as rows of S floats; zeros follow in every
// row, and rows of zeros up to a multiple of 8.
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
Ahead next_block(const Tile<T>& t, int64_t position) {
  constexpr int PANEL = PANEL_VECTORS * LANES, KEYS = ManyRows<S>::KEYS;
  int64_t slot = position % t.a.capacity, size = t.a.head_size * sizeof(T);
  int64_t count = smaller(t.end - position, smaller(int64_t{KEYS}, t.a.capacity - slot));
  int64_t tiles = (t.rows + PANEL - 1) / PANEL * (KEYS / 8);
  auto at = [&](const T* ring) {
    return reinterpret_cast<const char*>(ring) + slot * size;
  };
  return {at(t.keys), at(t.values), count * size, (count * size / tiles + 64) / 64 * 64};
}

template <typename T, int S>
void read_queries(const Tile<T>& t, ManyRows<S>& m) {
  constexpr int PANEL = PANEL_VECTORS * LANES;
  float query[MAX_HEAD_SIZE];
  std::memset(m.queries, 0, sizeof m.queries);
  for (int r = 0; r < t.rows; ++r) {
    read_query(t, r, query);
    int panel = r / PANEL * PANEL;
    int width = t.rows - panel > LANES ? PANEL : LANES;
    float* out = m.queries + panel * t.a.head_size + (r - panel);
    for (int d = 0; d < t.a.head_size; ++d) {
      out[d * width] = query[d];
    }
  }
}

template <typename T, int S>
void attend_many_rows(const Tile<T>& t) {
  constexpr int PANEL = PANEL_VECTORS * LANES;
  const auto& a = t.a;
  ManyRows<S> m;
  read_queries<T, S>(t, m);
  int padded = round_up(t.rows, LANES);
  std::memset(m.weighted, 0, sizeof(float) * padded * S);
  for (int r = 0; r < padded; ++r) {
    m.most[r] = -INFINITE;
    m.total[r] = 0.0f;
  }
  for (int64_t position = t.begin; position < t.end; position += m.KEYS) {
    int count = static_cast<int>(smaller(int64_t{m.KEYS}, t.end - position));
    int64_t slot = position % a.capacity;
    widen_block<T, S>(t.keys, a.capacity, slot, count, a.head_size, m.keys);
    widen_block<T, S>(t.values, a.capacity, slot, count, a.head_size, m.values);
    Ahead ahead = next_block<T, S>(t, position + count);
    for (int row = 0; row < t.rows; row += PANEL) {
      if (t.rows - row > LANES) {
        attend_panel<T, S, 2>(t, m, row, position, count, ahead);
      } else {
        attend_panel<T, S, 1>(t, m, row, position, count, ahead);
      }
    }
  }
  for (int r = 0; r < t.rows; ++r) {
    write_result(t, r, m.weighted + r * S, m.most[r], m.total[r]);
  }
}

template <typename T>
void attend_many_rows(const Tile<T>& t) {
  if (t.a.head_size <= 64) {
    attend_many_rows<T, 64>(t);
  } else if (t.a.head_size <= 128) {
    attend_many_rows<T, 128>(t);
  } else if (t.a.head_size <= 256) {
    attend_many_rows<T, 256>(t);
  } else {
    attend_many_rows<T, 512>(t);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

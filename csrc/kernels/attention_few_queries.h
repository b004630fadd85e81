#pragma once

// sliding_attention for a few query rows per KV head (decoding): every key is read once,
// converted in registers, and multiplied with R rows; the lanes run over the head.

#include "kernels/attention_tile.h"
#include "kernels/horizontal_sums.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int MAX_FEW_ROWS = LANES / 2;
constexpr int CHUNK = 2 * LANES;  // elements that load_chunk takes at once
constexpr int MAX_BLOCK = 64;     // keys between two looks at the greatest score

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ACCUMULATORS = 16;  // of 32 registers
#else
constexpr int ACCUMULATORS = 8;  // of 16 registers
#endif

// ---- chunks of a row --------------------------------------------------------------

template <typename T>
VOXFAST_INLINE void load_chunk(const T* p, f32v& x, f32v& y) {
  x = load(p);
  y = load(p + LANES);
}

// The even elements, then the odd ones: a shift and a mask instead of two widenings.
VOXFAST_INLINE void load_chunk(const bf16* p, f32v& x, f32v& y) {
  i32v pairs;
  std::memcpy(&pairs, p, sizeof pairs);
  x = (f32v)(pairs << 16);
  y = (f32v)(pairs & static_cast<int32_t>(0xffff0000u));
}

template <typename T>
VOXFAST_INLINE void prefetch_chunk(const T* p) {
  for (int i = 0; i < CHUNK; i += 64 / static_cast<int>(sizeof(T))) {
    fetch_line(p + i);
  }
}

// Where load_chunk puts element i of a row.
template <typename T>
VOXFAST_INLINE int packed(int i) {
  return i;
}

template <>
VOXFAST_INLINE int packed<bf16>(int i) {
  return i / CHUNK * CHUNK + i % 2 * LANES + i % CHUNK / 2;
}

// ---- one block of keys ------------------------------------------------------------

// Scores of LANES / R keys by R rows, key by key. keys: the first of `count` rows, of
// which only those are read; the rest get the score of the last one.
template <typename U, int R>
VOXFAST_INLINE f32v score_keys(const float* q, const U* keys, const U* soon,
                               int64_t stride, int size, int count) {
  constexpr int KEYS = LANES / R;
  f32v sum[LANES] = {};
  for (int d = 0; d < size; d += CHUNK) {
    const U* key = keys + d;
    for (int k = 0; k < KEYS; ++k) {
      f32v x, y;
      load_chunk(key, x, y);
      prefetch_chunk(soon + (key - keys));
      key += k + 1 < count ? stride : 0;
      for (int r = 0; r < R; ++r) {
        sum[k * R + r] += x * load(q + r * size + d);
        sum[k * R + r] += y * load(q + r * size + d + LANES);
      }
    }
  }
  return sums(sum);
}

// weighted [R, size] += weights [count, R] . values [count, size], for V vectors of the
// head from d on.
template <typename U, int R, int V>
VOXFAST_INLINE void add_values_at(int d, const float* weights, const U* values,
                                  const U* soon, int64_t stride, int size, int count,
                                  float* weighted) {
  f32v sum[R][V];
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < V; ++i) {
      sum[r][i] = load(weighted + r * size + d + i * LANES);
    }
  }
  for (int k = 0; k < count; ++k) {
    for (int i = 0; i < V; i += 2) {
      f32v x, y;
      load_chunk(values + k * stride + d + i * LANES, x, y);
      prefetch_chunk(soon + k * stride + d + i * LANES);
      for (int r = 0; r < R; ++r) {
        sum[r][i] += x * weights[k * R + r];
        sum[r][i + 1] += y * weights[k * R + r];
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < V; ++i) {
      store(weighted + r * size + d + i * LANES, sum[r][i]);
    }
  }
}

template <typename U, int R>
VOXFAST_INLINE void add_values(const float* weights, const U* values, const U* soon,
                               int64_t stride, int size, int count, float* weighted) {
  constexpr int V = ACCUMULATORS / R < 8 ? ACCUMULATORS / R : 8;
  int d = 0;
  for (; d + V * LANES <= size; d += V * LANES) {
    add_values_at<U, R, V>(d, weights, values, soon, stride, size, count, weighted);
  }
  for (; d < size; d += CHUNK) {
    add_values_at<U, R, 2>(d, weights, values, soon, stride, size, count, weighted);
  }
}

// ---- online softmax ---------------------------------------------------------------

// State of R rows; lane i of a vector of scores belongs to row i % R.
template <int R>
struct Softmax {
  float most[R];    // greatest score so far
  f32v total = {};  // of the weights; to be summed over the lanes of a row

  Softmax() {
    for (float& score : most) {
      score = -INFINITE;
    }
  }

  // Turns scores into weights relative to the greatest score so far; weighted [R, size]
  // is brought down to it when it grows.
  void add(f32v* scores, int groups, float* weighted, int size) {
    f32v block = scores[0];
    for (int j = 1; j < groups; ++j) {
      block = max(block, scores[j]);
    }
    alignas(64) float lane[LANES], base[LANES], shrink[LANES];
    store(lane, block);
    bool grown = false;
    for (int r = 0; r < R; ++r) {
      float now = most[r];
      for (int i = r; i < LANES; i += R) {
        now = lane[i] > now ? lane[i] : now;
      }
      float finite = now == -INFINITE ? 0.0f : now;
      for (int i = r; i < LANES; i += R) {
        base[i] = finite;
        shrink[i] = most[r] - finite;
      }
      grown |= now != most[r];
      most[r] = now;
    }
    if (grown) {
      f32v factor = exp2_nonpositive(load(shrink));
      store(shrink, factor);
      total *= factor;
      for (int r = 0; r < R; ++r) {
        for (int d = r * size; d < (r + 1) * size; d += LANES) {
          store(weighted + d, load(weighted + d) * shrink[r]);
        }
      }
    }
    for (int j = 0; j < groups; ++j) {
      scores[j] = exp2_nonpositive(scores[j] - load(base));
      total += scores[j];
    }
  }
};

// ---- one tile ---------------------------------------------------------------------

// Scores of keys outside their row's window become -infinity.
template <typename T, int R>
void mask_scores(const Tile<T>& t, int64_t position, int count, f32v* scores,
                 int groups) {
  i32v first, past, key;
  for (int i = 0; i < LANES; ++i) {
    int r = smaller(i % R, t.rows - 1);
    int64_t newest = t.position(r) - position;
    first[i] = static_cast<int32_t>(larger(newest - t.a.window + 1, 0));
    past[i] = static_cast<int32_t>(smaller(newest + 1, int64_t{count}));
    key[i] = i / R;
  }
  for (int j = 0; j < groups; ++j) {
    scores[j] = (key >= first) & (key < past) ? scores[j] : broadcast(-INFINITE);
    key += LANES / R;
  }
}

template <bool, typename A, typename>
struct Choose {
  typedef A type;
};
template <typename A, typename B>
struct Choose<false, A, B> {
  typedef B type;
};

// `count` rows of `from` elements as rows of `to` floats, padded by zeros.
template <typename T>
void widen_rows(const T* rows, int count, int from, int to, float* out) {
  for (int k = 0; k < count; ++k) {
    load_row(rows + static_cast<int64_t>(k) * from, 1, from, out + k * to);
    for (int d = from; d < to; ++d) {
      out[k * to + d] = 0.0f;
    }
  }
}

// STAGED: the head is no multiple of CHUNK, so blocks of rows are widened first.
template <typename T, int R, bool STAGED>
struct FewRows {
  typedef typename Choose<STAGED, float, T>::type U;
  static constexpr int STAGE = 8192;

  const Tile<T>& t;
  int size = round_up(t.a.head_size, CHUNK);
  int64_t stride = STAGED ? size : t.a.head_size;
  int most_keys = STAGED ? smaller(MAX_BLOCK, STAGE / size) : MAX_BLOCK;
  Softmax<R> softmax;
  alignas(64) float q[R * MAX_HEAD_SIZE], weighted[R * MAX_HEAD_SIZE];  // [R, size]
  alignas(64) f32v scores[MAX_BLOCK * R / LANES];
  alignas(64) float stage[STAGED ? STAGE : 1];

  explicit FewRows(const Tile<T>& tile) : t(tile) {
    float row[MAX_HEAD_SIZE];
    std::memset(q, 0, sizeof(float) * R * size);
    std::memset(weighted, 0, sizeof(float) * R * size);
    for (int r = 0; r < t.rows; ++r) {
      read_query(t, r, row);
      for (int d = 0; d < t.a.head_size; ++d) {
        q[r * size + packed<U>(d)] = row[d];
      }
    }
  }

  // `count` rows of a ring from `slot` on, `stride` apart.
  const U* rows(const T* ring, int64_t slot, int count) {
    const T* first = ring + slot * t.a.head_size;
    if constexpr (STAGED) {
      widen_rows(first, count, t.a.head_size, size, stage);
      return stage;
    } else {
      return first;
    }
  }

  // Keys and values of positions that do not wrap. While the scores are computed the
  // values are fetched, and while the values are added the next keys.
  void add_block(int64_t position, int64_t slot, int count) {
    const U *keys = rows(t.keys, slot, count), *soon = keys;
    if constexpr (!STAGED) {
      soon = rows(t.values, slot, count);
    }
    int groups = (count * R + LANES - 1) / LANES;
    for (int j = 0; j < groups; ++j) {
      int first = j * (LANES / R);
      scores[j] = score_keys<U, R>(q, keys + first * stride, soon + first * stride,
                                   stride, size, count - first);
    }
    if (count * R % LANES != 0 || !t.all_see(position, position + count)) {
      mask_scores<T, R>(t, position, count, scores, groups);
    }
    softmax.add(scores, groups, weighted, size);
    const U* values = rows(t.values, slot, count);
    if constexpr (!STAGED) {
      soon = rows(t.keys, slot + count == t.a.capacity ? 0 : slot + count, count);
    }
    add_values<U, R>(reinterpret_cast<const float*>(scores), values, soon, stride, size,
                     count, weighted);
  }

  void write_results() {
    float row[MAX_HEAD_SIZE];
    for (int r = 0; r < t.rows; ++r) {
      float total = 0.0f;
      for (int i = r; i < LANES; i += R) {
        total += softmax.total[i];
      }
      for (int d = 0; d < t.a.head_size; ++d) {
        row[d] = weighted[r * size + packed<U>(d)];
      }
      write_result(t, r, row, softmax.most[r], total);
    }
  }
};

template <typename T, int R, bool STAGED>
void attend_few_rows(const Tile<T>& t) {
  FewRows<T, R, STAGED> few(t);
  int64_t slot = t.begin % t.a.capacity;
  for (int64_t position = t.begin; position < t.end;) {
    int64_t left = smaller(t.end - position, t.a.capacity - slot);
    int count = static_cast<int>(smaller(left, int64_t{few.most_keys}));
    few.add_block(position, slot, count);
    position += count;
    slot = slot + count == t.a.capacity ? 0 : slot + count;
  }
  few.write_results();
}

template <typename T, int R>
void attend_few_rows(const Tile<T>& t) {
  if (t.a.head_size % CHUNK == 0) {
    attend_few_rows<T, R, false>(t);
  } else {
    attend_few_rows<T, R, true>(t);
  }
}

template <typename T>
void attend_few_rows(const Tile<T>& t) {
  if (t.rows == 1) {
    attend_few_rows<T, 1>(t);
  } else if (t.rows == 2) {
    attend_few_rows<T, 2>(t);
#if defined(__AVX512F__)
  } else if (t.rows <= 4) {
    attend_few_rows<T, 4>(t);
#endif
  } else {
    attend_few_rows<T, MAX_FEW_ROWS>(t);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

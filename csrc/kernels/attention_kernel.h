#pragma once

// sliding_attention for one tile: blocks of keys in turn, and for each block groups of Q
// queries.
//
// A query's bits depend on the positions that it attends to, on nothing else. Blocks and
// splits lie at fixed positions, and a masked key adds zero, so it does not matter which
// other queries are in the tile, where the tile's keys begin and how the ring lies.

#include "kernels/attention_products.h"
#include "kernels/attention_softmax.h"
#include "kernels/attention_tile.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int BLOCK_KEYS = 64;     // keys between updates of the largest score
constexpr int PART_FLOATS = 4096;  // of keys or values that all groups share, to fit L1
constexpr int MIN_PART_KEYS = 16;

// Rows in consecutive slots that wrap around.
template <typename U>
struct Rows {
  const U* slots;
  int64_t first, capacity;  // slot of the first row

  VOXFAST_INLINE int64_t slot(int row) const {
    int64_t at = first + row;
    while (at >= capacity) {
      at -= capacity;
    }
    return at;
  }
};

// Whether converting R is so slow that several groups of queries share a conversion.
template <typename R>
constexpr bool SLOW_CONVERSION = false;
#if !defined(__F16C__) && !defined(__aarch64__)
template <>
constexpr bool SLOW_CONVERSION<f16> = true;
#endif

// WIDENED: rows are converted to float32 and padded to whole chunks, once for all groups
// of Q queries. Otherwise they are whole chunks, and read as they lie in the ring.
//
// Products are those with the codes of a quantized ring. The scales of its keys are
// factors of the scores, those of its values of the weights.
template <typename R, int Q, bool WIDENED>
struct Attention {
  typedef typename Conditional<WIDENED, float, R>::type U;
  static constexpr int STEP = STEP_KEYS<Q>;
  static constexpr int MAX_QUERIES = MANY_QUERIES_FLOATS / 64;
  static constexpr int VECTORS = BLOCK_KEYS * Q / LANES;  // of a group's scores

  const Tile<R>& t;
  int size = round_up(t.a.head_size, CHUNK);
  int64_t ring_stride = ring_row_size<R>(t.a.head_size);
  int64_t stride = WIDENED ? size : ring_stride;  // of rows of U
  int groups = (t.n_queries + Q - 1) / Q;
  int64_t newest[MAX_QUERIES];  // position that a query attends to
  Softmax<Q> softmax[MAX_QUERIES / Q];
  f32v scores[MAX_QUERIES / Q][VECTORS];     // then weights
  alignas(64) float q[MANY_QUERIES_FLOATS];  // [queries, size]
  alignas(64) float weighted[MANY_QUERIES_FLOATS];
  alignas(64) float totals[MANY_QUERIES_FLOATS];  // with the splits before
  Partial sums[MAX_QUERIES];
  alignas(64) U step[STEP * (MAX_HEAD_SIZE + SCALE_BYTES)];
  alignas(64) float wide[WIDENED ? MIN_PART_KEYS * MAX_HEAD_SIZE : 1];
  // Of the rows of a block; whole vectors are read.
  static constexpr int SCALES = QUANTIZED<R> ? BLOCK_KEYS + LANES : 1;
  float key_scales[SCALES] = {}, value_scales[SCALES] = {};

  explicit Attention(const Tile<R>& tile) : t(tile) {
    size_t bytes = sizeof(float) * groups * Q * size;
    std::memset(q, 0, bytes);
    std::memset(weighted, 0, bytes);
    std::memset(totals, 0, bytes);
    for (int r = 0; r < groups * Q; ++r) {
      newest[r] = t.newest(min(r, t.n_queries - 1));
      sums[r] = {-INF, 0.0f, totals + r * size};
      softmax[r / Q].reset();
      if (r < t.n_queries) {
        read_query(t, r, q + r * size);
      }
    }
  }

  // ---- rows -------------------------------------------------------------------------

  // The keys that all groups use in turn.
  int part_keys() const {
    int keys = BLOCK_KEYS;
    while ((WIDENED || groups > 1) && keys > MIN_PART_KEYS && keys * size > PART_FLOATS) {
      keys /= 2;
    }
    return keys;
  }

  // Converts `count` slots to [count, size], padded with zeros.
  void widen(const R* ring, int64_t slot, int count) {
    int n = t.a.head_size;
    for (float* out = wide; out < wide + count * size; out += size) {
      const R* row = ring + slot * ring_stride;
      if (n == size) {
        for (int d = 0; d < n; d += CHUNK) {
          f32v x, y;
          load_chunk(row + d, x, y);
          store(out + d, x);
          store(out + d + LANES, y);
        }
      } else {
        load_row(row, 1, n, out);
        std::memset(out + n, 0, sizeof(float) * (size - n));
      }
      slot = slot + 1 == t.a.capacity ? 0 : slot + 1;
    }
  }

  // `count` rows of a ring from a position on.
  Rows<U> rows(const R* ring, int64_t position, int count) {
    int64_t slot = position % t.a.capacity;
    if constexpr (WIDENED) {
      widen(ring, slot, count);
      return {wide, 0, count};
    } else {
      return {ring, slot, t.a.capacity};
    }
  }

  // STEP rows from row k on, copied where they wrap around.
  const U* consecutive(const Rows<U>& rows, int k) {
    int64_t slot = rows.slot(k);
    if (slot + STEP <= rows.capacity) {
      return rows.slots + slot * stride;
    }
    for (int i = 0; i < STEP; ++i) {
      std::memcpy(step + i * stride, rows.slots + rows.slot(k + i) * stride,
                  sizeof(U) * size);
    }
    return step;
  }

  // ---- one group and one block of keys ----------------------------------------------

  // Keys [from, to) of the block at `position`.
  struct Range {
    int from, to;
  };

  // Those that queries of the group see, extended to multiples of `step_keys`.
  Range visible(int group, int64_t position, int step_keys = 1) const {
    int64_t oldest = newest[group * Q] - t.a.window + 1 - position;
    int64_t end = newest[group * Q + Q - 1] + 1 - position;
    return {static_cast<int>(max(oldest, 0)) / step_keys * step_keys,
            round_up(static_cast<int>(min(end, int64_t{BLOCK_KEYS})), step_keys)};
  }

  // Multiplies the group's queries with keys from ... from + part_keys() - 1.
  void score(int group, int64_t position, int from, const Rows<U>& keys) {
    auto range = visible(group, position, STEP);
    int end = min(range.to, from + part_keys());
    for (int k = range.from > from ? range.from : from; k < end; k += STEP) {
      const U* at = consecutive(keys, k - from);
      const float* queries = q + group * Q * size;
      f32v* out = scores[group] + k * Q / LANES;
      if (!WIDENED && group == 0) {  // prefetches the values
        const R* values = t.values + keys.slot(k - from) * stride;
        score_keys<true, ACCUMULATORS, U, Q>(
            queries, at, reinterpret_cast<const U*>(values), stride, size, STEP, out);
      } else {
        score_keys<false, ACCUMULATORS, U, Q>(queries, at, at, stride, size, STEP, out);
      }
    }
  }

  // Sets the scores of keys that a query does not see to -infinity.
  void mask(int group, int64_t position, Range range) {
    i32v first, end, key;
    for (int i = 0; i < LANES; ++i) {
      int64_t last = newest[group * Q + i % Q] - position;
      first[i] = static_cast<int32_t>(max(last - t.a.window + 1, 0));
      end[i] = static_cast<int32_t>(min(last + 1, int64_t{BLOCK_KEYS}));
      key[i] = range.from + i / Q;
    }
    for (int j = range.from * Q / LANES; j < range.to * Q / LANES; ++j) {
      i32v seen = (key >= first) & (key < end);
      scores[group][j] = seen ? scores[group][j] : broadcast(-INF);
      key += LANES / Q;
    }
  }

  // Multiplies the group's scores or weights of keys with the scales of their rows.
  void rescale(int group, Range range, const float* scales) {
    for (int k = range.from; k < range.to; k += LANES / Q) {
      f32v& x = scores[group][k * Q / LANES];
      x = value_barrier(x * repeat_lanes<Q>(load(scales + k)));
    }
  }

  // Turns scores into weights.
  void weigh(int group, int64_t position) {
    auto range = visible(group, position, LANES);
    if (range.from >= range.to) {
      return;
    }
    if constexpr (QUANTIZED<R>) {
      rescale(group, range, key_scales);
    }
    if (newest[group * Q] < position + range.to - 1 ||
        newest[group * Q + Q - 1] - t.a.window >= position + range.from) {
      mask(group, position, range);
    }
    f32v factor = softmax[group].add(scores[group] + range.from * Q / LANES,
                                     (range.to - range.from) * Q / LANES);
    for (int r = 0; r < Q; ++r) {
      float* row = weighted + (group * Q + r) * size;
      for (int d = 0; factor[r] != 1.0f && d < size; d += LANES) {
        store(row + d, value_barrier(load(row + d) * factor[r]));
      }
    }
    if constexpr (QUANTIZED<R>) {
      rescale(group, range, value_scales);
    }
  }

  // Adds the weighted values from ... from + part_keys() - 1.
  VOXFAST_NOINLINE void add(int group, int64_t position, int from,
                            const Rows<U>& values) {
    auto range = visible(group, position);
    int end = min(range.to, from + part_keys());
    for (int k = range.from > from ? range.from : from; k < end;) {
      int64_t slot = values.slot(k - from);
      int count = static_cast<int>(min(int64_t{end} - k, values.capacity - slot));
      const float* weights = reinterpret_cast<const float*>(scores[group]) + k * Q;
      const U* at = values.slots + slot * stride;
      float* out = weighted + group * Q * size;
      if (!WIDENED && group == 0) {  // prefetches the next keys
        const R* keys = t.keys + values.slot(k - from + BLOCK_KEYS) * stride;
        add_values<true, U, Q>(weights, at, reinterpret_cast<const U*>(keys), stride,
                               size, count, out);
      } else {
        add_values<false, U, Q>(weights, at, at, stride, size, count, out);
      }
      k += count;
    }
  }

  // ---- all groups and blocks --------------------------------------------------------

  // The scales of the keys and values of a block.
  void read_scales(int64_t position, Range range) {
    int64_t slot = (position + range.from) % t.a.capacity;
    for (int k = range.from; k < range.to; ++k) {
      key_scales[k] = scale_of(t.keys + slot * ring_stride, t.a.head_size);
      value_scales[k] = scale_of(t.values + slot * ring_stride, t.a.head_size);
      slot = slot + 1 == t.a.capacity ? 0 : slot + 1;
    }
  }

  void attend_block(int64_t position) {
    int keys = part_keys();
    Range range{visible(0, position).from, visible(groups - 1, position).to};
    int first = range.from / keys * keys;
    for (int from = first; from < range.to; from += keys) {
      auto part = rows(t.keys, position + from, keys);
      for (int group = 0; group < groups; ++group) {
        score(group, position, from, part);
      }
    }
    if constexpr (QUANTIZED<R>) {  // here, as the rows are in the caches now
      read_scales(position, range);
    }
    for (int group = 0; group < groups; ++group) {
      weigh(group, position);
    }
    for (int from = first; from < range.to; from += keys) {
      auto part = rows(t.values, position + from, keys);
      for (int group = 0; group < groups; ++group) {
        add(group, position, from, part);
      }
    }
  }

  void finish_split(int index) {
    for (int group = 0; group < groups; ++group) {
      f32v weight_sum = softmax[group].total();
      for (int i = 0; i < Q && group * Q + i < t.n_queries; ++i) {
        int r = group * Q + i;
        Partial split{softmax[group].max_score[i], weight_sum[i], weighted + r * size};
        if (t.a.runs > 1) {
          t.store_partial(index, r, split, size);
        } else {
          merge(sums[r], split, size);
        }
      }
      softmax[group].reset();
    }
    std::memset(weighted, 0, sizeof(float) * groups * Q * size);
  }

  void attend_split(int index) {
    int64_t start = (t.first_split + index) * SPLIT_KEYS;
    int64_t end = min(start + SPLIT_KEYS, t.end);
    for (int64_t position = max(t.begin, start) / BLOCK_KEYS * BLOCK_KEYS; position < end;
         position += BLOCK_KEYS) {
      attend_block(position);
    }
    finish_split(index);
  }

  void attend(int64_t run) {
    int end = static_cast<int>(t.n_splits * (run + 1) / t.a.runs);
    for (int i = static_cast<int>(t.n_splits * run / t.a.runs); i < end; ++i) {
      attend_split(i);
    }
    for (int r = 0; t.a.runs == 1 && r < t.n_queries; ++r) {
      write_output(t, r, sums[r]);
    }
  }
};

template <typename R, int Q>
void attend(const Tile<R>& t, int64_t run) {
  if (t.a.head_size % CHUNK == 0 && !(SLOW_CONVERSION<R> && t.n_queries > Q)) {
    Attention<R, Q, false>(t).attend(run);
  } else {
    Attention<R, Q, true>(t).attend(run);
  }
}

template <typename R>
void attend(const Tile<R>& t, int64_t run) {
  if (t.n_queries == 1) {
    attend<R, 1>(t, run);
  } else if (t.n_queries == 2) {
    attend<R, 2>(t, run);
  } else {
    attend<R, 4>(t, run);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// sliding_attention: loads and rotates queries, keys and values, writes the rings, and
// defines the tile of queries that one task computes. A query is a row of q: one head at
// one position.
//
// T is the type of q, k, v and the output; R that of the rings: T, or int8_t for
// quantized ones.

#include "kernels/simd.h"
#include "kernels/sliding_attention_arguments.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int MAX_HEAD_SIZE = 512;
constexpr float LOG2_E = 1.44269504f;
constexpr float INF = __builtin_inff();

// 2^x for x <= 0 within 1.5 units in the last place; 0 below -126, NaN for NaN. The
// polynomial is a minimax fit on [-0.5, 0.5] with a relative error of 1e-7.
VOXFAST_INLINE f32v exp2_nonpositive(f32v x) {
  const f32v lowest = broadcast(-126.0f);
  const f32v shifter = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds
  f32v y = max(lowest, x);
  f32v n = (y + shifter) - shifter;
  f32v r = y - n;
  f32v p = r * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
  p = p * r + 0x1.c6b752p-5f;
  p = p * r + 0x1.ebf9bcp-3f;
  p = p * r + 0x1.62e42ap-1f;
  p = p * r + 1.0f;
  i32v exponent = (__builtin_convertvector(n, i32v) + 127) << 23;
  return x < lowest ? f32v{} : p * (f32v)exponent;
}

// ---- rows -------------------------------------------------------------------------

constexpr int CHUNK = 2 * LANES;  // elements that load_chunk takes at once

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

// The index that element i of a row has in the kernel: rows of whole chunks have the
// order of load_chunk, others their own.
template <typename T>
VOXFAST_INLINE int chunk_index(int i, int head_size) {
  return i;
}

template <>
VOXFAST_INLINE int chunk_index<bf16>(int i, int head_size) {
  if (head_size % CHUNK != 0) {
    return i;
  }
  return i / CHUNK * CHUNK + i % 2 * LANES + i % CHUNK / 2;
}

template <typename T>
void load_row(const T* p, int64_t stride, int n, float* out) {
  int i = 0;
  if (stride == 1) {
    for (; i + LANES <= n; i += LANES) {
      store(out + i, load(p + i));
    }
  }
  for (; i < n; ++i) {
    out[i] = to_float(p[i * stride]);
  }
}

template <typename T>
void store_row(T* p, const float* x, int n) {
  int i = 0;
  for (; i + LANES <= n; i += LANES) {
    store(p + i, load(x + i));
  }
  for (; i < n; ++i) {
    p[i] = from_float<T>(x[i]);
  }
}

// (Not inlined: products contract to FMAs the same way for all callers.)
VOXFAST_NOINLINE void apply_rope(float* x, const SlidingAttentionArguments& a, int64_t b,
                                 int64_t l) {
  float cos[MAX_HEAD_SIZE / 2], sin[MAX_HEAD_SIZE / 2];
  int half = a.head_size / 2;
  load_row(a.cos + b * a.cos_strides[0] + l * a.cos_strides[1], a.cos_strides[2], half,
           cos);
  load_row(a.sin + b * a.sin_strides[0] + l * a.sin_strides[1], a.sin_strides[2], half,
           sin);
  if (a.traditional) {
    for (int i = 0; i < half; ++i) {
      float first = x[2 * i], second = x[2 * i + 1];
      x[2 * i] = first * cos[i] - second * sin[i];
      x[2 * i + 1] = first * sin[i] + second * cos[i];
    }
  } else {
    for (int i = 0; i < half; ++i) {
      float first = x[i], second = x[i + half];
      x[i] = first * cos[i] - second * sin[i];
      x[i + half] = first * sin[i] + second * cos[i];
    }
  }
}

// Loads row [b, l, head] of an array [B, L, heads, D]. The rows of a head are far apart
// in memory, so the row of a later position is prefetched.
template <typename T>
void read_row(const SlidingAttentionArguments& a, const void* base,
              const int64_t* strides, int64_t b, int64_t l, int64_t head, float* out) {
  constexpr int PREFETCH_ROWS = 4, LINE = 64 / sizeof(T);
  const T* p =
      static_cast<const T*>(base) + b * strides[0] + l * strides[1] + head * strides[2];
  if (l + PREFETCH_ROWS < a.length) {
    for (int d = 0; d < a.head_size; d += LINE) {
      __builtin_prefetch(p + PREFETCH_ROWS * strides[1] + d);
    }
  }
  load_row(p, strides[3], a.head_size, out);
}

// The same with rotary embedding, if the call has tables; rounded to T, as stored keys
// are.
template <typename T>
void read_rope(const SlidingAttentionArguments& a, const void* base,
               const int64_t* strides, int64_t b, int64_t l, int64_t head, float* out) {
  read_row<T>(a, base, strides, b, l, head, out);
  if (a.cos != nullptr) {
    apply_rope(out, a, b, l);
    T rounded[MAX_HEAD_SIZE];
    store_row(rounded, out, a.head_size);
    load_row(rounded, 1, a.head_size, out);
  }
}

// ---- rows of rings ------------------------------------------------------------------

// Calls f with a null pointer to the element type of the rings.
template <typename A, typename F>
VOXFAST_INLINE void with_ring_type(const A& arguments, F&& f) {
  if (arguments.quantized) {
    f(static_cast<int8_t*>(nullptr));
  } else {
    with_type(arguments.type, f);
  }
}

template <typename R>
constexpr bool QUANTIZED = false;
template <>
constexpr bool QUANTIZED<int8_t> = true;

// Elements of a row of a ring.
template <typename R>
VOXFAST_INLINE int ring_row_size(int head_size) {
  return head_size + (QUANTIZED<R> ? SCALE_BYTES : 0);
}

// Writes the codes of x [n] and their scale. x has room for whole vectors.
VOXFAST_NOINLINE void quantize_row(int8_t* row, float* x, int n) {
  for (int i = n; i % LANES != 0; ++i) {
    x[i] = 0.0f;
  }
  uint32_t largest_bits = 0;  // of magnitudes: in this order NaN is above all numbers
  for (int i = 0; i < n; ++i) {
    uint32_t bits = float_to_bits(x[i]) & 0x7fffffffu;
    largest_bits = bits > largest_bits ? bits : largest_bits;
  }
  float largest = bits_to_float(largest_bits);
  float scale = largest < TINY_ROW ? 0.0f : largest / 127.0f;
  bool is_zero = largest < TINY_ROW || !(largest < INF);
  f32v per_step = broadcast(is_zero ? 0.0f : 127.0f / largest);
  const f32v shifter = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds
  alignas(64) float codes[MAX_HEAD_SIZE];
  for (int i = 0; i < n; i += LANES) {
    f32v code = value_barrier(load(x + i) * per_step);
    store(codes + i, (code + shifter) - shifter);
  }
  for (int i = 0; i < n; ++i) {
    row[i] = static_cast<int8_t>(is_zero ? 0.0f : codes[i]);
  }
  std::memcpy(row + n, &scale, sizeof scale);
}

template <typename R>
void store_ring_row(R* row, float* x, int n) {
  if constexpr (QUANTIZED<R>) {
    quantize_row(row, x, n);
  } else {
    store_row(row, x, n);
  }
}

// The scale of a quantized row of n codes, whose elements are `stride` apart.
VOXFAST_INLINE float scale_of(const int8_t* row, int n, int64_t stride = 1) {
  int8_t bytes[SCALE_BYTES];
  for (int i = 0; i < SCALE_BYTES; ++i) {
    bytes[i] = row[(n + i) * stride];
  }
  float scale;
  std::memcpy(&scale, bytes, sizeof scale);
  return scale;
}

// Writes the new keys and values of KV head h of sequence b, index = b * H_kv + h.
template <typename T, typename R>
void write_ring(const SlidingAttentionArguments& a, int64_t index) {
  int64_t b = index / a.kv_heads, h = index % a.kv_heads;
  int64_t size = ring_row_size<R>(a.head_size), ring = index * a.capacity * size;
  R *keys = static_cast<R*>(a.keys) + ring, *values = static_cast<R*>(a.values) + ring;
  int64_t slot = a.offset[b * a.offset_stride] % a.capacity;
  float row[MAX_HEAD_SIZE];
  for (int64_t l = 0; l < a.length; ++l) {
    read_rope<T>(a, a.k, a.k_strides, b, l, h, row);
    store_ring_row(keys + slot * size, row, a.head_size);
    read_row<T>(a, a.v, a.v_strides, b, l, h, row);
    store_ring_row(values + slot * size, row, a.head_size);
    slot = slot + 1 == a.capacity ? 0 : slot + 1;
  }
}

// ---- splits of the keys ---------------------------------------------------------------

// A query's sums over some of its keys. Weights are exp2(score - max_score).
struct Partial {
  float max_score, weight_sum;
  float* weighted;  // weights . values, [size]
};

// Adds the sums over the next keys. (Not inlined: one code, so the same bits.)
VOXFAST_NOINLINE void merge(Partial& sums, const Partial& next, int size) {
  if (next.max_score == -INF) {  // none of the keys is visible
    return;
  }
  float largest = next.max_score > sums.max_score ? next.max_score : sums.max_score;
  f32v scores = {sums.max_score, next.max_score};
  f32v factors = exp2_nonpositive(scores - largest);
  float factor = factors[0], next_factor = factors[1];
  sums.max_score = largest;
  sums.weight_sum = sums.weight_sum * factor + next.weight_sum * next_factor;
  for (int d = 0; d < size; d += LANES) {
    store(sums.weighted + d,
          load(sums.weighted + d) * factor + load(next.weighted + d) * next_factor);
  }
}

// ---- the tile of a task -------------------------------------------------------------

template <typename R>
struct Tile {
  const SlidingAttentionArguments& a;
  int64_t index;               // (b * H_kv + h) * tiles + tile
  int64_t b, h;                // sequence, KV head
  int group;                   // query heads per KV head
  int first_query, n_queries;  // query = l * group + head within the group
  int64_t offset;              // position of l = 0
  int64_t begin, end;          // positions that its queries attend to
  int64_t first_split;
  int n_splits;
  const R *keys, *values;  // of slot 0

  // The newest position that query r of the tile attends to.
  int64_t newest(int r) const {
    return offset + (a.causal ? (first_query + r) / group : a.length - 1);
  }

  // The partial result of query r for split i of the tile.
  Partial partial(int i, int r) const {
    float* at =
        a.partials + ((index * a.splits + i) * a.tile_queries + r) * a.partial_size;
    return {at[0], at[1], at + 2};
  }

  void store_partial(int i, int r, const Partial& sums, int size) const {
    float* at = partial(i, r).weighted;
    std::memcpy(at, sums.weighted, sizeof(float) * size);
    at[-2] = sums.max_score;
    at[-1] = sums.weight_sum;
  }
};

template <typename R>
Tile<R> make_tile(const SlidingAttentionArguments& a, int64_t index) {
  int64_t head = index / a.tiles;
  Tile<R> t{a,
            index,
            head / a.kv_heads,
            head % a.kv_heads,
            a.heads / a.kv_heads,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            nullptr,
            nullptr};
  t.first_query = static_cast<int>(index % a.tiles * a.tile_queries);
  t.n_queries = min(a.tile_queries, a.length * t.group - t.first_query);
  t.offset = a.offset[t.b * a.offset_stride];
  t.begin = max(0, t.newest(0) - a.window + 1);
  t.end = t.newest(t.n_queries - 1) + 1;
  t.first_split = t.begin / SPLIT_KEYS;
  t.n_splits = static_cast<int>((t.end - 1) / SPLIT_KEYS - t.first_split + 1);
  int64_t ring = head * a.capacity * ring_row_size<R>(a.head_size);
  t.keys = static_cast<const R*>(a.keys) + ring;
  t.values = static_cast<const R*>(a.values) + ring;
  return t;
}

// Loads query r of the tile, scaled so that weights are exp2(score), in the kernel's
// order.
template <typename R>
void read_query(const Tile<R>& t, int r, float* out) {
  float row[MAX_HEAD_SIZE];
  int query = t.first_query + r;
  with_type(t.a.type, [&]<typename T>(T*) {
    read_rope<T>(t.a, t.a.q, t.a.q_strides, t.b, query / t.group,
                 t.h * t.group + query % t.group, row);
  });
  float factor = t.a.scale * LOG2_E;
  for (int d = 0; d < t.a.head_size; ++d) {
    out[chunk_index<R>(d, t.a.head_size)] = row[d] * factor;
  }
}

// Writes the output of query r, given the sums over all of its keys.
template <typename R>
void write_output(const Tile<R>& t, int r, const Partial& sums) {
  const auto& a = t.a;
  float factor = 1.0f / sums.weight_sum, row[MAX_HEAD_SIZE];
  for (int d = 0; d < a.head_size; ++d) {
    // Adding 0 makes -0 a 0: masked keys, which depend on the tile, may have done so.
    row[d] = (sums.weighted[chunk_index<R>(d, a.head_size)] + 0.0f) * factor;
  }
  int query = t.first_query + r;
  int64_t head = t.h * t.group + query % t.group;
  int64_t at = ((t.b * a.length + query / t.group) * a.heads + head) * a.head_size;
  with_type(a.type, [&]<typename T>(T*) {
    store_row(static_cast<T*>(a.out) + at, row, a.head_size);
  });
}

template <typename R>
void merge_splits(const SlidingAttentionArguments& a, int64_t index) {
  auto t = make_tile<R>(a, index);
  int size = round_up(a.head_size, CHUNK);
  alignas(64) float weighted[MAX_HEAD_SIZE];
  for (int r = 0; r < t.n_queries; ++r) {
    std::memset(weighted, 0, sizeof weighted);
    Partial sums{-INF, 0.0f, weighted};
    for (int i = 0; i < t.n_splits; ++i) {
      merge(sums, t.partial(i, r), size);
    }
    write_output(t, r, sums);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// The arguments of sliding_attention. Plain data: see kernels.h. Strides are in elements.
// Dimension letters: csrc/sliding_attention.h.

#include <cstdint>

#include "kernels/kernels.h"

namespace voxfast {

// The largest [queries, D] of a tile, in floats, with D rounded up to a power of two of
// at least 64.
constexpr int MANY_QUERIES_FLOATS = 8192;

// Positions [i * SPLIT_KEYS, (i + 1) * SPLIT_KEYS) are split i of the keys, whoever
// attends to them. A query's sums over a split start anew and are merged in order, so
// that threads can share the splits of a query and get the same bits.
constexpr int64_t SPLIT_KEYS = 256;

// A row of a quantized ring: D codes of int8 and, in the last bytes, their scale, a
// float32. A number is code * scale; scale is the row's largest magnitude / 127. Rows of
// smaller numbers than TINY_ROW are zeros. A row with a NaN or an infinity is all NaN:
// its codes are 0, and its scale is not finite.
constexpr int SCALE_BYTES = sizeof(float);
constexpr float TINY_ROW = 1e-30f;

struct SlidingAttentionArguments {
  FloatType type;  // of q, k, v, the output and, unless they are quantized, the rings
  bool quantized;  // the rings
  int batch, length, heads, kv_heads, head_size;
  int capacity, window;
  float scale;
  bool traditional, causal;

  // [B, L, heads, D] in any layout.
  const void *q, *k, *v;
  int64_t q_strides[4], k_strides[4], v_strides[4];
  const int64_t* offset;  // [B]
  int64_t offset_stride;
  // [B or 1, L, D / 2] in any layout, or null; the batch stride of [1, ...] is 0.
  const float *cos, *sin;
  int64_t cos_strides[3], sin_strides[3];

  // Contiguous: the rings [B, H_kv, C, D] or, quantized, [B, H_kv, C, D + SCALE_BYTES];
  // the output [B, L, H, D].
  void *keys, *values, *out;

  // The plan. The queries of a KV head, l * (H / H_kv) + g, are cut into tiles of
  // tile_queries (the last one may be smaller). Each of the `runs` tasks of a tile takes
  // consecutive splits. The task is ((b * H_kv + h) * tiles + tile) * runs + run.
  int tile_queries, tiles, runs;
  // With runs > 1: [B * H_kv * tiles, splits, tile_queries, partial_size]. Per query the
  // largest score, the sum of the weights and the weighted sum of the values.
  int splits, partial_size;
  float* partials;
};

}  // namespace voxfast

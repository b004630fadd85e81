#pragma once

// One call of sliding_attention, as the kernels see it. Plain data: see kernels.h.
// Strides count elements.

#include <cstdint>

#include "kernels/kernels.h"

namespace voxfast {

// Floats that a tile of many rows may hold per [rows, D], D rounded up to a power of two
// of at least 64.
constexpr int MANY_QUERIES_FLOATS = 8192;

struct SlidingAttentionArguments {
  FloatType type;
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

  // Dense: the rings [B, H_kv, C, D], the output [B, L, H, D].
  void *keys, *values, *out;

  // How the work is cut. The query rows that share a KV head, r = l * (H / H_kv) + g, lie
  // in tiles of tile_rows (the last may be shorter); the keys that a tile sees lie in
  // splits. Task ((b * H_kv + h) * tiles + tile) * splits + split.
  int tile_queries, tiles, splits;
  // With splits > 1: [tasks, tile_rows, D + 2] floats; per row the weighted sum of the
  // values, the greatest score and the sum of the weights.
  float* partials;
};

}  // namespace voxfast

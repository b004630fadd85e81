#pragma once

// A task of alignment_frame. Plain data: see kernels.h. Strides are in elements.

#include <cstdint>

#include "kernels/kernels.h"

namespace voxfast {

constexpr int MAX_ALIGNMENT_QUERIES = 8;

// Queries (one head at one position each) of a KV head, and its keys.
struct AlignmentTile {
  FloatType type;  // of the queries and, unless they are quantized, the keys
  bool quantized;  // the keys; see sliding_attention_arguments.h
  int head_size;
  int n_queries;  // 1 ... Kernels::lanes / 2
  int64_t count;
  const void* keys;  // the first of `count`
  int64_t key_stride, key_element_stride;
  const void* queries[MAX_ALIGNMENT_QUERIES];
  int64_t query_element_stride;
  int32_t* frames[MAX_ALIGNMENT_QUERIES];  // the queries' results
};

}  // namespace voxfast

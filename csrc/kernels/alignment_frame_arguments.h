#pragma once

// One task of alignment_frame, as the kernel sees it. Plain data: see kernels.h. Strides
// count elements.

#include <cstdint>

#include "kernels/kernels.h"

namespace voxfast {

constexpr int MAX_ALIGNMENT_QUERIES = 8;

// Query rows that share a KV head, and the keys that they are compared with.
struct AlignmentTile {
  FloatType type;
  int head_size;
  int n_queries;  // 1 ... lanes / 2 of the kernels, at most MAX_ALIGNMENT_ROWS
  int64_t count;
  const void* keys;  // the first of `count`
  int64_t key_stride, key_element_stride;
  const void* queries[MAX_ALIGNMENT_QUERIES];
  int64_t query_element_stride;
  int32_t* frames[MAX_ALIGNMENT_QUERIES];  // where the rows' results go
};

}  // namespace voxfast

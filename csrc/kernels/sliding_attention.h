#pragma once

// The passes of sliding_attention; see kernels.h.

#include "kernels/attention_few_queries.h"
#include "kernels/attention_many_queries.h"
#include "kernels/attention_tile.h"

namespace voxfast::VOXFAST_ISA {
namespace {

void sliding_attention_write(const SlidingAttentionArguments& a, int64_t index) {
  switch (a.type) {
    case FloatType::float32:
      return write_ring<float>(a, index);
    case FloatType::float16:
      return write_ring<f16>(a, index);
    case FloatType::bfloat16:
      return write_ring<bf16>(a, index);
  }
}

template <typename T>
void attend(const SlidingAttentionArguments& a, int64_t task) {
  if (a.tiles == 1 && a.splits == 1) {  // no other task reads this KV head
    write_ring<T>(a, task);
  }
  auto tile = make_tile<T>(a, task);
  if (tile.n_queries <= MAX_FEW_QUERIES) {
    attend_few_queries(tile);
  } else {
    attend_many_queries(tile);
  }
}

void sliding_attention_attend(const SlidingAttentionArguments& a, int64_t task) {
  switch (a.type) {
    case FloatType::float32:
      return attend<float>(a, task);
    case FloatType::float16:
      return attend<f16>(a, task);
    case FloatType::bfloat16:
      return attend<bf16>(a, task);
  }
}

void sliding_attention_merge(const SlidingAttentionArguments& a, int64_t index) {
  switch (a.type) {
    case FloatType::float32:
      return merge_splits<float>(a, index);
    case FloatType::float16:
      return merge_splits<f16>(a, index);
    case FloatType::bfloat16:
      return merge_splits<bf16>(a, index);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// The passes of sliding_attention; see kernels.h.

#include "kernels/attention_few_queries.h"
#include "kernels/attention_many_queries.h"
#include "kernels/attention_tile.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

void sliding_attention_write(const SlidingAttentionArguments& a, int64_t index) {
  with_type(a.type, [&]<typename T>(T*) { write_ring<T>(a, index); });
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
  with_type(a.type, [&]<typename T>(T*) { attend<T>(a, task); });
}

void sliding_attention_merge(const SlidingAttentionArguments& a, int64_t index) {
  with_type(a.type, [&]<typename T>(T*) { merge_splits<T>(a, index); });
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

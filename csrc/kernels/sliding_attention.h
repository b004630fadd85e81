#pragma once

// The passes of sliding_attention; see kernels.h.

#include "kernels/attention_kernel.h"
#include "kernels/attention_tile.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

void sliding_attention_write(const SlidingAttentionArguments& a, int64_t index) {
  with_type(a.type, [&]<typename T>(T*) { write_ring<T>(a, index); });
}

template <typename T>
void attend(const SlidingAttentionArguments& a, int64_t task) {
  if (a.tiles == 1 && a.runs == 1) {  // no other task reads this KV head
    write_ring<T>(a, task);
  }
  attend(make_tile<T>(a, task / a.runs), task % a.runs);
}

void sliding_attention_attend(const SlidingAttentionArguments& a, int64_t task) {
  with_type(a.type, [&]<typename T>(T*) { attend<T>(a, task); });
}

void sliding_attention_merge(const SlidingAttentionArguments& a, int64_t index) {
  with_type(a.type, [&]<typename T>(T*) { merge_splits<T>(a, index); });
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

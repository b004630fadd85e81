#pragma once

// The passes of sliding_attention; see kernels.h.

#include "kernels/attention_kernel.h"
#include "kernels/attention_tile.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

void sliding_attention_write(const SlidingAttentionArguments& a, int64_t index) {
  with_type(a.type, [&]<typename T>(T*) {
    if (a.quantized) {
      write_ring<T, int8_t>(a, index);
    } else {
      write_ring<T, T>(a, index);
    }
  });
}

void sliding_attention_attend(const SlidingAttentionArguments& a, int64_t task) {
  if (a.tiles == 1 && a.runs == 1) {  // no other task reads this KV head
    sliding_attention_write(a, task);
  }
  with_ring_type(
      a, [&]<typename R>(R*) { attend(make_tile<R>(a, task / a.runs), task % a.runs); });
}

void sliding_attention_merge(const SlidingAttentionArguments& a, int64_t index) {
  with_ring_type(a, [&]<typename R>(R*) { merge_splits<R>(a, index); });
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

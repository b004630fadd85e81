#pragma once

// What the CPU kernels offer, once per instruction set. Plain data only: this header is
// seen by translation units compiled with different instruction sets, so it must not
// define anything that the linker could share between them.

#include <cstdint>

namespace voxfast {

// A float type as it lies in memory.
enum class FloatType : uint8_t { float32, float16, bfloat16 };

struct LogMelArguments;
struct SlidingAttentionArguments;

struct Kernels {
  const char* isa;
  int lanes;  // float32 lanes of one vector

  // The three passes of sliding_attention; csrc/sliding_attention.cpp runs them.
  // Index b * H_kv + h: writes the new rows of one KV head of one batch row.
  void (*sliding_attention_write)(const SlidingAttentionArguments&, int64_t index);
  // One task: one split of one tile.
  void (*sliding_attention_attend)(const SlidingAttentionArguments&, int64_t task);
  // Index (b * H_kv + h) * tiles + tile: unites the splits of one tile.
  void (*sliding_attention_merge)(const SlidingAttentionArguments&, int64_t index);
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace voxfast

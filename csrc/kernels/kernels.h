#pragma once

// What the CPU kernels offer, once per instruction set. Plain data only: this header is
// seen by translation units compiled with different instruction sets, so it must not
// define anything that the linker could share between them.

#include <cstdint>

namespace voxfast {

// A float type as it lies in memory.
enum class FloatType : uint8_t { float32, float16, bfloat16 };

struct AlignmentTile;
struct LinearArguments;
struct LogMelArguments;
struct RowwiseArguments;
struct SlidingAttentionArguments;

struct Kernels {
  const char* isa;
  int lanes;  // float32 lanes of one vector

  // Finds the best key of each row of a tile (alignment_frame_arguments.h).
  void (*alignment_frame)(const AlignmentTile&);

  // linear (linear_arguments.h): how the work is cut, into about so many tasks; one row
  // of x; one task.
  void (*linear_plan)(LinearArguments&, int64_t tasks, int64_t threads);
  void (*linear_prepare)(const LinearArguments&, int64_t row);
  void (*linear_multiply)(const LinearArguments&, int64_t task);
  // Computes `lanes` frames from `first` on, as far as there are any. What a frame
  // becomes does not depend on its neighbours.
  void (*log_mel)(const LogMelArguments& arguments, int64_t first);

  // Rows first ... last - 1 (rowwise.h).
  void (*rms_norm)(const RowwiseArguments&, int64_t first, int64_t last);
  void (*swiglu)(const RowwiseArguments&, int64_t first, int64_t last);
  void (*gelu)(const RowwiseArguments&, int64_t first, int64_t last);
  void (*greedy)(const RowwiseArguments&, int64_t first, int64_t last);

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
namespace avx512dot {  // with dot products of bytes and of bfloat16
extern const Kernels kernels;
}

}  // namespace voxfast

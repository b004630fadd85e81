#pragma once

// The table of CPU kernels, which exists once per instruction set. Plain data only:
// translation units that are compiled for different instruction sets include this header,
// so it must define nothing that the linker could merge.

#include <cstdint>

namespace voxfast {

// The storage types of floats.
enum class FloatType : uint8_t { float32, float16, bfloat16 };

struct AlignmentTile;
struct LinearArguments;
struct LogMelArguments;
struct RowwiseArguments;
struct SlidingAttentionArguments;
struct VoiceArguments;

struct Kernels {
  const char* isa;
  int lanes;  // float32 lanes of one vector

  // Finds the best key of each query of a tile (alignment_frame_arguments.h).
  void (*alignment_frame)(const AlignmentTile&);

  // linear (linear_arguments.h): plans a call with about `tasks` tasks; prepares one row
  // of x; computes one task.
  void (*linear_plan)(LinearArguments&, int64_t tasks, int64_t threads);
  void (*linear_prepare)(const LinearArguments&, int64_t m);
  void (*linear_multiply)(const LinearArguments&, int64_t task);

  // Computes frames first ... first + lanes - 1, or to the last one. A frame does not
  // depend on its neighbours.
  void (*log_mel)(const LogMelArguments& arguments, int64_t first);

  // Rows first ... last - 1 (rowwise_arguments.h).
  void (*rms_norm)(const RowwiseArguments&, int64_t first, int64_t last);
  void (*swiglu)(const RowwiseArguments&, int64_t first, int64_t last);
  void (*gelu)(const RowwiseArguments&, int64_t first, int64_t last);
  void (*greedy)(const RowwiseArguments&, int64_t first, int64_t last);

  // The passes of sliding_attention, run by csrc/sliding_attention_cpu.cpp.
  //
  // Index b * H_kv + h: writes the new keys and values of KV head h of sequence b.
  void (*sliding_attention_write)(const SlidingAttentionArguments&, int64_t index);
  // Attends with one tile to one run of splits of its keys.
  void (*sliding_attention_attend)(const SlidingAttentionArguments&, int64_t task);
  // Index (b * H_kv + h) * tiles + tile: merges the splits of one tile.
  void (*sliding_attention_merge)(const SlidingAttentionArguments&, int64_t index);

  // The frames of one stream, in order (voice_arguments.h).
  void (*voice)(const VoiceArguments&);
};

// One table for each instruction set that CMakeLists.txt compiles. All x86-64 processors
// have sse2, all arm64 processors have neon; generic is for other architectures.
namespace sse2 {
extern const Kernels kernels;
}
namespace neon {
extern const Kernels kernels;
}
namespace neondot {  // NEON with dot products of bytes
extern const Kernels kernels;
}
namespace neonmm {  // neondot with I8MM and BF16
extern const Kernels kernels;
}
namespace generic {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx512dot {  // AVX-512 with VNNI, VBMI and BF16
extern const Kernels kernels;
}

}  // namespace voxfast

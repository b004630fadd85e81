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

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// Calls f with a null pointer to the element type, for example
//   with_type(type, [&]<typename T>(T*) { ... });
template <typename F>
VOXFAST_INLINE void with_type(FloatType type, F&& f) {
  switch (type) {
    case FloatType::float32:
      return f(static_cast<float*>(nullptr));
    case FloatType::float16:
      return f(static_cast<f16*>(nullptr));
    case FloatType::bfloat16:
      return f(static_cast<bf16*>(nullptr));
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

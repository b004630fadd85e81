#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// Calls f with null pointers of the element types that a FloatType names.
template <typename F>
void with_type(FloatType type, F&& f) {
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

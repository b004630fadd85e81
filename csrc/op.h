#pragma once

// What every op shares: the switch between kernels and composition, messages for
// rejected arguments, and the types of the CPU kernels.

#include <atomic>
#include <sstream>
#include <stdexcept>
#include <string>

#include "kernels/kernels.h"
#include "mlx/array.h"
#include "mlx/ops.h"
#include "mlx/utils.h"

namespace voxfast {

namespace mx = mlx::core;

// When false, ops on CPU streams are composed of MLX's own ops, as they are on GPUs.
inline std::atomic<bool> native_enabled{true};

inline bool use_kernels(const mx::Stream& s) {
  return s.device == mx::Device::cpu && native_enabled.load(std::memory_order_relaxed);
}

// Throws std::invalid_argument (ValueError in Python) that starts with the op's name.
template <typename... Parts>
[[noreturn]] void reject(const char* op, const Parts&... parts) {
  std::ostringstream message;
  message << "[" << op << "] ";
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

// "name has shape (2, 3) and dtype float32", for the end of a rejection.
inline std::string describe(const char* name, const mx::array& x) {
  std::ostringstream text;
  text << "; " << name << " has shape " << x.shape() << " and dtype " << x.dtype();
  return text.str();
}

inline bool is_kernel_float(const mx::Dtype& dtype) {
  return dtype == mx::float32 || dtype == mx::float16 || dtype == mx::bfloat16;
}

inline FloatType float_type(const mx::Dtype& dtype) {
  return dtype == mx::float32   ? FloatType::float32
         : dtype == mx::float16 ? FloatType::float16
                                : FloatType::bfloat16;
}

}  // namespace voxfast

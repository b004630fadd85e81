#pragma once

// What all ops share: the choice of kernel or composition, errors for invalid
// arguments, and allocation.

#include <atomic>
#include <sstream>
#include <stdexcept>
#include <string>

#include "kernels/kernels.h"
#include "mlx/allocator.h"
#include "mlx/array.h"
#include "mlx/ops.h"
#include "mlx/utils.h"

namespace voxfast {

namespace mx = mlx::core;

// If false, CPU streams use compositions of MLX's ops, as GPU streams do.
inline std::atomic<bool> native_enabled{true};

inline bool use_kernels(const mx::Stream& s) {
  return s.device == mx::Device::cpu && native_enabled.load(std::memory_order_relaxed);
}

// Throws std::invalid_argument (ValueError in Python) with the op's name before the
// message.
template <typename... Parts>
[[noreturn]] void reject(const char* op, const Parts&... parts) {
  std::ostringstream message;
  message << "[" << op << "] ";
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

// "; name has shape (2, 3) and dtype float32", the end of such a message.
inline std::string describe(const char* name, const mx::array& x) {
  std::ostringstream text;
  text << "; " << name << " has shape " << x.shape() << " and dtype " << x.dtype();
  return text.str();
}

// Rejects shapes that no memory can hold, whose element and byte counts would overflow. A
// broadcast view may have such a shape.
inline void check_size(const char* op, const char* name, const mx::Shape& shape) {
  constexpr int64_t MOST = int64_t{1} << 48;
  int64_t count = 1;
  for (int64_t size : shape) {
    if (size != 0 && count > MOST / size) {
      reject(op, name, " must have at most 2^48 elements; its shape is ", shape);
    }
    count *= size;
  }
}

// Allocates through MLX. Throws if memory is exhausted, where MLX returns a null pointer.
inline mx::allocator::Data allocate(const char* op, size_t bytes) {
  auto data = mx::allocator::malloc(bytes);
  if (bytes > 0 && data.buffer().ptr() == nullptr) {
    std::ostringstream message;
    message << "[" << op << "] cannot allocate " << bytes << " bytes";
    throw std::runtime_error(message.str());
  }
  return data;
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

#pragma once

// Rows of numbers [..., D] as those of a quantized ring, [..., D + SCALE_BYTES] of int8,
// composed of MLX's ops. The format: kernels/sliding_attention_arguments.h.

#include <cstdint>
#include <limits>
#include <vector>

#include "composed.h"
#include "kernels/sliding_attention_arguments.h"
#include "op.h"

namespace voxfast {

inline bool is_quantized(const mx::array& ring) { return ring.dtype() == mx::int8; }

// Elements of a ring's row, for a head size of D.
inline int64_t ring_row_size(const mx::array& ring, int head_size) {
  return head_size + (is_quantized(ring) ? SCALE_BYTES : 0);
}

// Inputs: numbers, and the largest magnitude of the row of each of them.
inline std::vector<mx::array> codes_of(const std::vector<mx::array>& inputs,
                                       const mx::Stream& s) {
  const auto &x = inputs[0], &largest = inputs[1];
  auto infinity = mx::array(std::numeric_limits<float>::infinity());
  auto zero = mx::array(0.0f), steps = mx::array(127.0f);
  auto has_codes = mx::logical_and(mx::greater_equal(largest, mx::array(TINY_ROW), s),
                                   mx::less(largest, infinity, s), s);
  auto codes = mx::round(
      mx::multiply(mx::astype(x, mx::float32, s),
                   mx::where(has_codes, mx::divide(steps, largest, s), zero, s), s),
      s);
  return {mx::astype(mx::where(has_codes, codes, zero, s), mx::int8, s)};
}

// Input: the largest magnitude of rows.
inline std::vector<mx::array> scales_of(const std::vector<mx::array>& inputs,
                                        const mx::Stream& s) {
  auto is_tiny = mx::less(inputs[0], mx::array(TINY_ROW), s);
  return {mx::where(is_tiny, mx::array(0.0f), mx::divide(inputs[0], mx::array(127.0f), s),
                    s)};
}

inline mx::array quantize_rows(const mx::array& x, const mx::Stream& s) {
  auto largest = mx::astype(mx::max(mx::abs(x, s), -1, true, s), mx::float32, s);
  auto codes = fuse(codes_of, {x, mx::broadcast_to(largest, x.shape(), s)}, s)[0];
  auto scales = mx::view(fuse(scales_of, {largest}, s)[0], mx::int8, s);
  return mx::concatenate({codes, scales}, -1, s);
}

// Inputs: codes, the scale of each of them, and any number of the dtype of the result.
inline std::vector<mx::array> numbers_of(const std::vector<mx::array>& inputs,
                                         const mx::Stream& s) {
  auto numbers = mx::multiply(mx::astype(inputs[0], mx::float32, s), inputs[1], s);
  return {mx::astype(numbers, inputs[2].dtype(), s)};
}

inline mx::array dequantize_rows(const mx::array& rows, mx::Dtype dtype,
                                 const mx::Stream& s) {
  mx::Shape from(rows.ndim(), 0), until = rows.shape();
  until.back() -= SCALE_BYTES;
  auto codes = mx::slice(rows, from, until, s);
  from.back() = until.back(), until.back() += SCALE_BYTES;
  auto scales = mx::view(mx::slice(rows, from, until, s), mx::float32, s);
  auto scale_of_each = mx::broadcast_to(scales, codes.shape(), s);
  return fuse(numbers_of, {codes, scale_of_each, mx::array(0.0f, dtype)}, s)[0];
}

}  // namespace voxfast

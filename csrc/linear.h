#pragma once

#include <optional>
#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// The weights of a linear layer with N outputs and K inputs.
//
// Float: w [N, K], or [N, K1, K2, ...], of float32, float16 or bfloat16.
// Packed, as by mx.quantize in affine mode: w [N, K * bits / 32] of uint32, scales and
// biases [N, K / group_size]; a weight is code * scale + bias of its group. bits: 2, 3,
// 4, 5, 6 or 8. group_size: 32, 64 or 128.
// bias: [N], added to the outputs.
struct LinearWeights {
  mlx::core::array w;
  std::optional<mlx::core::array> scales = std::nullopt;
  std::optional<mlx::core::array> biases = std::nullopt;
  std::optional<mlx::core::array> bias = std::nullopt;
  int group_size = 64;
  int bits = 4;
};

// y = x w^T + bias for each of the weights, accumulated in float32.
//
// x: [..., K] of float32, float16 or bfloat16, or [..., K1, K2, ...] if w is
// [N, K1, K2, ...], for example patches of an image. Any strides, without a copy.
//
// Returns [..., N] for each, of out_dtype; by default of the type that MLX promotes the
// arguments to.
//
// CPU streams use kernels (except on macOS, where MLX has Accelerate): a row's result
// depends neither on the other rows nor on the number of threads; w is copied only if its
// rows are not contiguous. With packed w they quantize x to 15 bits and sign, with a
// power of two per group as scale.
std::vector<mlx::core::array> linears(
    const mlx::core::array& x, const std::vector<LinearWeights>& weights,
    std::optional<mlx::core::Dtype> out_dtype = std::nullopt,
    mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

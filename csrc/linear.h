#pragma once

#include <optional>
#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// The matrix of a linear layer, N outputs by K inputs, and what is added to the outputs.
//
// w: [N, K] of float32, float16 or bfloat16; or, with scales and biases [N, K /
// group_size], MLX's affine packing: uint32 [N, K * bits / 32], bits 2, 3, 4, 5, 6 or 8,
// group_size 32, 64 or 128, a weight being code * scale + bias of its group. Floats may
// have several input dimensions, [N, K1, K2, ...]. bias: [N].
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
// x: [..., K] of float32, float16 or bfloat16; [..., K1, K2, ...] for such weights, read
// where it lies: patches of an image, for one.
//
// Returns [..., N] each, of out_dtype, by default what MLX promotes the arguments to. On
// CPU streams (but for macOS, where MLX has a good BLAS) one row's result depends neither
// on the other rows nor on the number of threads; w is read as it lies. For packed w they
// round x to 15 bits and sign, with one power of two for each group.
std::vector<mlx::core::array> linears(
    const mlx::core::array& x, const std::vector<LinearWeights>& weights,
    std::optional<mlx::core::Dtype> out_dtype = std::nullopt,
    mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

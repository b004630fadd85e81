#pragma once

#include <optional>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// y = x w^T + bias, accumulated in float32. M rows, K inputs, N outputs.
//
// x: [..., K] of float32, float16 or bfloat16. w: [N, K] of such floats; or, with scales
// and biases [N, K / group_size], MLX's affine packing: uint32 [N, K * bits / 32], bits
// 2, 3, 4, 5, 6 or 8, group_size 32, 64 or 128, a weight being code * scale + bias of its
// group. bias: [N]. Float weights may have several input dimensions, [N, K1, K2, ...]; x
// then ends with the same ones, and is read where it lies: patches of an image, for one.
//
// Returns [..., N] of out_dtype, by default what MLX promotes the arguments to. On CPU
// streams (but for macOS, where MLX has a good BLAS) one row's result depends neither on
// the other rows nor on the number of threads; w is read as it lies. For packed w they
// round x to 15 bits and sign, with one power of two for each group.
mlx::core::array linear(const mlx::core::array& x, const mlx::core::array& w,
                        const std::optional<mlx::core::array>& scales = std::nullopt,
                        const std::optional<mlx::core::array>& biases = std::nullopt,
                        const std::optional<mlx::core::array>& bias = std::nullopt,
                        int group_size = 64, int bits = 4,
                        std::optional<mlx::core::Dtype> out_dtype = std::nullopt,
                        mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

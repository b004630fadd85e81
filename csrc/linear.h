#pragma once

#include <optional>
#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// The weights of a linear layer with N outputs and K inputs.
//
// Float: w [N, K], or [N, K1, K2, ...], of float32, float16 or bfloat16.
// Quantized (scales and biases are set), as returned by mx.quantize in affine mode:
// w [N, K * bits / 32] of uint32, scales and biases [N, K / group_size] of a float type;
// weight = q * scale + bias of its group. bits: 2, 3, 4, 5, 6 or 8. group_size: 32, 64 or
// 128. Without scales, both are ignored.
// bias: [N], the layer's own, added to the outputs.
struct LinearWeights {
  mlx::core::array w;
  std::optional<mlx::core::array> scales = std::nullopt;
  std::optional<mlx::core::array> biases = std::nullopt;
  std::optional<mlx::core::array> bias = std::nullopt;
  int group_size = 64;
  int bits = 4;
};

// Applies several linear layers to the same x, for example the projections of q, k and v:
// y = x w^T + bias for each, accumulated in float32. x is read, and quantized, only once.
//
// x: [..., K] of float32, float16 or bfloat16, or [..., K1, K2, ...] if w is
// [N, K1, K2, ...], for example patches of an image. It may have any strides and is never
// copied.
//
// Returns one array [..., N] per layer, of out_dtype; by default the promoted type of x
// and w, or of x and scales if w is quantized.
//
// CPU streams, except on macOS, run voxfast's kernels: the result of a row of x depends
// neither on the other rows nor on the number of threads; w is copied only if its rows
// are not contiguous. For quantized weights they first round x to int16, with one
// power-of-two scale per group_size inputs, so results differ slightly from
// mx.quantized_matmul. Other streams run MLX's own ops.
std::vector<mlx::core::array> linears(
    const mlx::core::array& x, const std::vector<LinearWeights>& weights,
    std::optional<mlx::core::Dtype> out_dtype = std::nullopt,
    mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

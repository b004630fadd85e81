#pragma once

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// x / sqrt(mean(x^2) + eps) * weight over the last dimension (arXiv 1910.07467).
//
// x: [..., D]; weight: [D]; both float32, float16 or bfloat16. Returns [..., D] of the
// type that MLX promotes them to, computed in float32 and rounded once.
mlx::core::array rms_norm(const mlx::core::array& x, const mlx::core::array& weight,
                          float eps, mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

#pragma once

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// x / 2 * (1 + erf(x / sqrt(2))), element by element (arXiv 1606.08415).
//
// x: float32, float16 or bfloat16. Returns the same, computed in float32 and rounded
// once.
mlx::core::array gelu(const mlx::core::array& x, mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

#pragma once

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// gate / (1 + exp(-gate)) * up, element by element (arXiv 2002.05202).
//
// gate, up: of one shape and dtype, float32, float16 or bfloat16. Returns the same,
// computed in float32 and rounded once.
mlx::core::array swiglu(const mlx::core::array& gate, const mlx::core::array& up,
                        mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

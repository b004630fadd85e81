#pragma once

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// An array whose content is arbitrary, where the kernels run, so that the memory of a
// large one is taken page by page as it is written; elsewhere zeros.
mlx::core::array empty(const mlx::core::Shape& shape, const mlx::core::Dtype& dtype,
                       mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

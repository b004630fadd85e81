#pragma once

#include <utility>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// Greedy decoding: the index of the greatest logit, the first of equal ones, and its
// probability, softmax(logits) there. A NaN is never the greatest; the probability beside
// one is NaN.
//
// logits: [..., V] of float32, float16 or bfloat16. Returns uint32 and float32 [...].
std::pair<mlx::core::array, mlx::core::array> greedy(const mlx::core::array& logits,
                                                     mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

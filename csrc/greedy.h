#pragma once

#include <utility>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// Greedy decoding: the index of the largest logit (of equal ones the first) and its
// probability, softmax(logits) at that index. A NaN is never the largest; if any logit is
// NaN, the probability is NaN.
//
// logits: [..., V] of float32, float16 or bfloat16. Returns uint32 and float32 [...].
std::pair<mlx::core::array, mlx::core::array> greedy(const mlx::core::array& logits,
                                                     mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

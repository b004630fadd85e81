#pragma once

#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// The attended frame (AlignAtt, arXiv 2305.11408): for each alignment head the argmax of
// q . k over positions first ... first + count - 1, then the median over all heads of all
// layers. B batch, H query heads, H_kv KV heads, L new positions, S stored positions, D
// head size.
//
// queries, keys, heads: one entry per layer with alignment heads. queries [B, H, L, D]
// and keys [B, H_kv, S, D] are rotated, of one dtype (float32, float16 or bfloat16), in
// any layout, or keys are rows of a quantized ring, [B, H_kv, S, D + 4] of int8
// (sliding_attention.h); H is a multiple of H_kv, D <= 512, S >= first + count. heads:
// the indices of the alignment heads among the H query heads, without repetition. Layers
// may differ in H, H_kv, S, D and dtype.
//
// Returns [B, L] of int32, relative to `first`: element n / 2 of the n heads' positions
// in ascending order. Products accumulate in float32. Of equal scores the first position
// wins. A NaN never wins; if all scores are NaN or -infinity, the position is 0. CPU
// streams copy no key.
mlx::core::array alignment_frame(const std::vector<mlx::core::array>& queries,
                                 const std::vector<mlx::core::array>& keys,
                                 const std::vector<std::vector<int>>& heads, int first,
                                 int count, mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

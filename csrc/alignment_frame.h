#pragma once

#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// The audio position that alignment heads attend to (AlignAtt, arXiv 2305.11408): for
// each head the argmax of q . k over the positions first ... first + count - 1, then the
// median over all heads of all layers. B batch, H query heads, H_kv KV heads, L new
// positions, S stored positions, D head size.
//
// One entry per layer that has alignment heads: queries [B, H, L, D] and keys
// [B, H_kv, S, D], both rotated, of one dtype (float32, float16 or bfloat16) and in any
// layout, H a multiple of H_kv, D <= 512, S >= first + count; heads: the query heads
// used, each once. Layers may differ in H, H_kv, S, D and dtype.
//
// Returns [B, L] of int32, relative to `first`: element n / 2 of the n heads' positions
// in ascending order. Products accumulate in float32; of equal ones the first position
// wins; a NaN never does, and where all are NaN or -infinity the position is 0. On CPU
// streams no key is copied.
mlx::core::array alignment_frame(const std::vector<mlx::core::array>& queries,
                                 const std::vector<mlx::core::array>& keys,
                                 const std::vector<std::vector<int>>& heads, int first,
                                 int count, mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

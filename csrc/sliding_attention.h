#pragma once

#include <optional>
#include <tuple>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// Writes L new rows into a ring of keys and values, then attends within the window. B
// batch, L new positions, H query heads, H_kv KV heads, D head size, C ring capacity.
//
// q: [B, L, H, D]; k, v: [B, L, H_kv, D], as the projections leave them; H a multiple
// of H_kv. keys, values: [B, H_kv, C, D], where position p lies at slot p mod C. All
// five of one dtype: float32, float16 or bfloat16. offset: [B] of int64, the position
// of each batch row's first new row, >= 0; rows before position 0 do not exist.
// Position p attends to max(0, p - window + 1) ... p; not causal, every new position
// attends to what the last of them does.
//
// A call is exact if C >= window + L - 1, or if nothing wraps (offset + L <= C). C >= L
// always. Offsets are only known at evaluation: a kernel that finds one violated throws
// on its stream, which MLX raises from eval as std::runtime_error; nothing is written
// then.
//
// cos, sin: [B or 1, L, D / 2] of float32, rotary tables for the new positions (both or
// neither): q and k are rotated before use, and k is stored rotated. traditional: pairs
// are (0, 1), (2, 3) ...; otherwise (0, D/2), (1, D/2 + 1) ... A rotated q is rounded to
// the dtype, as the stored k is.
//
// Returns (out [B, L, H, D], keys, values). The rings are donated: when the caller holds
// no other reference the new rows are written in place; else MLX's rules demand a copy,
// which ring_copies() counts. Products accumulate in float32, in an order that depends on
// L: calls that cut a stream differently agree to rounding. A NaN or infinity among the
// new rows may reach all outputs of its KV head in the same call.
std::tuple<mlx::core::array, mlx::core::array, mlx::core::array> sliding_attention(
    const mlx::core::array& q, const mlx::core::array& k, const mlx::core::array& v,
    const mlx::core::array& keys, const mlx::core::array& values,
    const mlx::core::array& offset, int window, float scale,
    const std::optional<mlx::core::array>& cos = std::nullopt,
    const std::optional<mlx::core::array>& sin = std::nullopt, bool traditional = true,
    bool causal = true, mlx::core::StreamOrDevice s = {});

// How many rings (keys and values count separately) the kernels had to copy so far,
// because something else still held them.
int64_t ring_copies();

}  // namespace voxfast

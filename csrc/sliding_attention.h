#pragma once

#include <cstdint>
#include <optional>
#include <tuple>
#include <variant>
#include <vector>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// The first new position, of all sequences or, [B] of int64, of each one; >= 0.
using Offset = std::variant<int64_t, mlx::core::array>;

// Sliding-window attention over ring buffers: writes the keys and values of L new
// positions to the rings, then attends from those positions within the window. B batch, L
// new positions, H query heads, H_kv KV heads, D head size, C ring capacity.
//
// q: [B, L, H, D]; k, v: [B, L, H_kv, D]; H a multiple of H_kv. keys, values: the rings,
// [B, H_kv, C, D], with position p at slot p mod C. All five of one dtype: float32,
// float16 or bfloat16. Or both rings are quantized: [B, H_kv, C, D + 4] of int8, the
// codes of a row and their scale, a float32 (kernels/sliding_attention_arguments.h).
// Then new rows are quantized as they are written, and read so by all queries.
//
// Position p attends to positions max(0, p - window + 1) ... p. If not causal, all new
// positions attend to what the last one attends to.
//
// The ring must hold all positions attended to: C >= window + L - 1, or C >= offset + L
// (no wrap-around); and C >= L. Offsets in an array are only known at evaluation: a CPU
// stream that finds too small a ring throws, which MLX raises from eval as
// std::runtime_error, and writes nothing.
//
// cos, sin: [B or 1, L, D / 2] of float32, both or neither: rotary tables of the new
// positions. q and k are rotated and rounded to their dtype, and k is stored rotated.
// traditional: rotates the pairs (0, 1), (2, 3) ...; otherwise (0, D/2), (1, D/2 + 1) ...
//
// Returns (out [B, L, H, D], keys, values). The rings are donated: if the caller holds no
// other reference, they are updated in place; otherwise they are copied, which
// ring_copies() counts. Products accumulate in float32. On CPU streams with kernels the
// bits of a row of `out`, one position of one sequence, depend only on its q and on the
// keys and values that it attends to, by position: not on L, the batch, the ring's layout
// or the number of threads. A NaN or infinity in k or v may reach all outputs of its KV
// head in the same call.
std::tuple<mlx::core::array, mlx::core::array, mlx::core::array> sliding_attention(
    const mlx::core::array& q, const mlx::core::array& k, const mlx::core::array& v,
    const mlx::core::array& keys, const mlx::core::array& values, const Offset& offset,
    int window, float scale, const std::optional<mlx::core::array>& cos = std::nullopt,
    const std::optional<mlx::core::array>& sin = std::nullopt, bool traditional = true,
    bool causal = true, mlx::core::StreamOrDevice s = {});

// sliding_attention of several streams as one op. Each has its own rings, its offset and
// one or more consecutive rows of q [1, R, H, D], k and v [1, R, H_kv, D]: `lengths` of
// them, R in all. cos, sin: [1, R, D / 2]. Results and errors are those of one call per
// stream; on CPU streams with kernels the streams share the threads.
//
// Returns (out [1, R, H, D], keys of each stream, values of each stream).
std::tuple<mlx::core::array, std::vector<mlx::core::array>, std::vector<mlx::core::array>>
sliding_attentions(const mlx::core::array& q, const mlx::core::array& k,
                   const mlx::core::array& v, const std::vector<mlx::core::array>& keys,
                   const std::vector<mlx::core::array>& values,
                   const std::vector<int64_t>& offsets, const std::vector<int>& lengths,
                   int window, float scale,
                   const std::optional<mlx::core::array>& cos = std::nullopt,
                   const std::optional<mlx::core::array>& sin = std::nullopt,
                   bool traditional = true, bool causal = true,
                   mlx::core::StreamOrDevice s = {});

// x [B, L, H, D], rotated as sliding_attention rotates q; cos, sin: [B or 1, L or 1, D /
// 2] of float32. Composed of MLX's ops on every stream.
mlx::core::array rotate(const mlx::core::array& x, const mlx::core::array& cos,
                        const mlx::core::array& sin, bool traditional,
                        mlx::core::StreamOrDevice s = {});

// The number of rings copied so far because another reference was held. Keys and values
// count separately.
int64_t ring_copies();

}  // namespace voxfast

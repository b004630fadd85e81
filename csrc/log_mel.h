#pragma once

#include <optional>

#include "mlx/array.h"
#include "mlx/utils.h"

namespace voxfast {

// Log-mel spectrogram of 16 kHz audio, frames first.
//
// samples: [..., N] of float32, float16 or bfloat16, N >= 400. Frame t covers
// samples 160 t ... 160 t + 399 (no padding here; streams keep their own tail), so
// T = (N - 400) / 160 + 1.
// Returns [..., T, n_mels] of float32:
//   x = log10(max(filterbank . |rfft(hann . frame)|^2, 1e-10))
//   (max(x, log_floor) + shift) * scale
// with the periodic Hann window and Slaney's mel filterbank (Slaney norm, 0-8000 Hz). On
// CPU streams the power is computed in float64, and a frame depends on its 400 samples
// only, bit for bit.
mlx::core::array log_mel(const mlx::core::array& samples, int n_mels = 128,
                         std::optional<float> log_floor = std::nullopt,
                         float shift = 0.0f, float scale = 1.0f,
                         mlx::core::StreamOrDevice s = {});

}  // namespace voxfast

#pragma once

// log_mel computes LANES frames at once, one per lane: it transposes the samples,
// computes power spectra (LANES64 frames at a time, in float64), filterbank and
// logarithm, and transposes the result. No step mixes lanes, so a frame does not depend
// on its lane.

#include "kernels/dft.h"
#include "kernels/log_mel_arguments.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// Converts the N_FFT samples from element `at` on, `stride` elements apart, to float32.
template <typename T>
VOXFAST_INLINE void convert(const void* samples, int64_t at, int64_t stride, float* out) {
  static_assert(N_FFT % LANES == 0);
  const T* p = static_cast<const T*>(samples) + at;
  for (int n = 0; n < N_FFT; n += LANES) {
    if (stride == 1) {
      store(out + n, load(p + n));
      continue;
    }
    for (int i = 0; i < LANES; ++i) {
      out[n + i] = to_float(p[(n + i) * stride]);
    }
  }
}

// The samples of a frame as contiguous float32: the input itself, or `copy` [N_FFT].
VOXFAST_INLINE const float* frame_samples(const LogMelArguments& arguments, int64_t frame,
                                          float* copy) {
  int64_t row = frame / arguments.frames_per_row;
  int64_t start = (frame - row * arguments.frames_per_row) * HOP_LENGTH;
  int64_t stride = arguments.stride, at = arguments.rows[row] + start * stride;
  if (arguments.type == FloatType::float32 && stride == 1) {
    return static_cast<const float*>(arguments.samples) + at;
  }
  with_type(arguments.type, [&]<typename T>(T*) __attribute__((always_inline)) {
    convert<T>(arguments.samples, at, stride, copy);
  });
  return copy;
}

// Transposes LANES64 frames from `first` on to [N_FFT, LANES64]. Lanes beyond the last
// frame repeat it.
void gather_frames(const LogMelArguments& arguments, int64_t first, float* out) {
  float copies[LANES64][N_FFT];
  const float* frames[LANES64];
  for (int lane = 0; lane < LANES64; ++lane) {
    int64_t frame = first + lane, last = arguments.n_frames - 1;
    frames[lane] = frame_samples(arguments, frame < last ? frame : last, copies[lane]);
  }
  for (int n = 0; n < N_FFT; n += LANES) {
    f32v rows[LANES64];
    for (int lane = 0; lane < LANES64; ++lane) {
      rows[lane] = load(frames[lane] + n);
    }
    transpose(rows);
    for (int i = 0; i < LANES64; ++i) {
      store(out + n * LANES64 + i * LANES, rows[i]);
    }
  }
}

// max(log10(x), least). NaN and infinity are returned as they are.
VOXFAST_INLINE f32v log10_above(f32v x, f32v least) {
  constexpr float LOG10_E = 0.434294481903251828f;
  const f32v infinity = broadcast(__builtin_inff()), normal = broadcast(0x1p-126f);
  f32v y = log(max(normal, x)) * LOG10_E;
  return max(least, x < infinity ? y : x);
}

// Applies one filter to its bins, [n_bins, LANES].
VOXFAST_INLINE f32v apply_filter(const float* bins, const float* weights, int n_bins) {
  f32v mel = load(bins) * weights[0];
  for (int b = 1; b < n_bins; ++b) {
    mel += load(bins + b * LANES) * weights[b];
  }
  return mel;
}

// Filterbank, logarithm, clamps, shift and scale; transposes to [frames, n_mels].
void mel_rows(const LogMelArguments& arguments, const float* power, int64_t first) {
  const LogMelTables& tables = *arguments.tables;
  int64_t left = arguments.n_frames - first;
  int n_rows = left < LANES ? static_cast<int>(left) : LANES;
  // log10(max(x, 1e-10)) = max(log10(x), -10), so one clamp serves both limits.
  f32v least = max(broadcast(arguments.log_floor), broadcast(-10.0f));
  const float* weights = tables.weights;
  float* out = arguments.out + first * tables.n_mels;
  for (int m = 0; m < tables.n_mels; m += LANES) {
    int n_columns = tables.n_mels - m < LANES ? tables.n_mels - m : LANES;
    f32v square[LANES] = {};
    for (int i = 0; i < n_columns; ++i) {
      int n_bins = tables.n_bins[m + i];
      square[i] = apply_filter(power + tables.first_bin[m + i] * LANES, weights, n_bins);
      weights += n_bins;
    }
    for (f32v& x : square) {
      x = (log10_above(x, least) + arguments.shift) * arguments.scale;
    }
    transpose(square);
    for (int row = 0; row < n_rows; ++row) {
      float* to = out + static_cast<int64_t>(row) * tables.n_mels + m;
      if (n_columns == LANES) {
        store(to, square[row]);
        continue;
      }
      for (int i = 0; i < n_columns; ++i) {
        to[i] = square[row][i];
      }
    }
  }
}

void log_mel(const LogMelArguments& arguments, int64_t first) {
  alignas(f32v) float samples[N_FFT * LANES64];
  alignas(f32v) float power[N_FREQS * LANES];
  for (int half = 0; half < 2; ++half) {
    int64_t from = first + half * LANES64;
    float* lanes = power + half * LANES64;
    if (from < arguments.n_frames) {
      gather_frames(arguments, from, samples);
      power_spectrum(samples, *arguments.tables, lanes);
      continue;
    }
    for (int k = 0; k < N_FREQS; ++k) {
      store(lanes + k * LANES, f64v{});
    }
  }
  mel_rows(arguments, power, first);
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

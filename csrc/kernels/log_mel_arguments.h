#pragma once

// The arguments of log_mel. Plain data: see kernels.h.

#include <cstdint>

#include "kernels/kernels.h"

namespace voxfast {

// Sizes of Whisper's front end: 25 ms frames every 10 ms at 16 kHz.
constexpr int SAMPLE_RATE = 16000;
constexpr int N_FFT = 400;
constexpr int HOP_LENGTH = 160;
constexpr int N_FREQS = N_FFT / 2 + 1;

// The constants of log_mel, computed in float64 (csrc/log_mel.cpp). The DFT of 16 * 25
// samples is computed as a two-dimensional one: sample (25 a + 16 b) mod 400 becomes
// sample (a, b), and bin k is bin (k mod 16, k mod 25).
struct LogMelTables {
  double window[N_FFT];  // periodic Hann
  double cosines[25];    // of 2 pi i / 25
  double sines[25];
  uint16_t order[25][16];  // the sample at (b, a)
  uint8_t bins[9][25];     // the bin at (k mod 16, k mod 25); 400 - k for k > 200
  int32_t n_mels;
  const int32_t* first_bin;  // [n_mels]
  const int32_t* n_bins;     // [n_mels], non-decreasing
  const float* weights;      // [sum of n_bins], filter by filter
};

struct LogMelArguments {
  const LogMelTables* tables;
  const void* samples;
  FloatType type;
  int64_t stride;       // between samples, in elements
  const int64_t* rows;  // offset of each row's first sample, in elements
  int64_t frames_per_row;
  int64_t n_frames;  // in all rows
  float* out;        // [n_frames, n_mels]
  float log_floor;   // in log10 units
  float shift;
  float scale;
};

}  // namespace voxfast

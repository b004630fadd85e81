#pragma once

// One call of log_mel, as the kernel sees it. Plain data: see kernels.h.

#include <cstdint>

#include "kernels/kernels.h"

namespace voxfast {

// Sizes of Whisper's front end: 25 ms frames every 10 ms at 16 kHz.
constexpr int SAMPLE_RATE = 16000;
constexpr int N_FFT = 400;
constexpr int HOP_LENGTH = 160;
constexpr int N_FREQS = N_FFT / 2 + 1;

// Constants of log_mel, computed in float64 (csrc/log_mel.cpp). The real transform of
// 400 = 16 * 25 takes sample (25 a + 16 b) mod 400 as sample (a, b) of a transform of 16
// by one of 25; then bin k is bin (k mod 16, k mod 25).
struct LogMelTables {
  double window[N_FFT];  // periodic Hann
  double cosines[25];    // of 2 pi i / 25
  double sines[25];
  uint16_t order[25][16];  // sample n of (b, a)
  uint8_t bins[9][25];     // bin k of (k mod 16, k mod 25), for k > 200 bin 400 - k
  int32_t n_mels;
  const int32_t* first_bin;  // [n_mels] of each filter
  const int32_t* n_bins;     // [n_mels] of each filter; never falls from one to the next
  const float* weights;      // of all filters, one after the other
};

struct LogMelArguments {
  const LogMelTables* tables;
  const void* samples;
  FloatType type;
  int64_t stride;       // from one sample to the next, in elements
  const int64_t* rows;  // offset of the first sample of each row, in elements
  int64_t frames_per_row;
  int64_t n_frames;  // in all rows
  float* out;        // [n_frames, n_mels]
  float log_floor;   // in log10 units
  float shift;
  float scale;
};

}  // namespace voxfast

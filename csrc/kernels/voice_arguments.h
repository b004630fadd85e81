#pragma once

// The arguments of the voice detector. Plain data: see kernels.h.
//
// Matrices are in blocks of VOICE_OUTPUTS outputs: [outputs / VOICE_OUTPUTS][inputs]
// [VOICE_OUTPUTS], contiguous.

#include <cstdint>

namespace voxfast {

constexpr int VOICE_FRAME = 512;   // samples
constexpr int VOICE_CONTEXT = 64;  // samples before a frame that are looked at again
constexpr int VOICE_FFT = 256;     // samples of a spectrum, VOICE_FFT / 2 apart
constexpr int VOICE_SPECTRA = 4;   // of a frame
constexpr int VOICE_BINS = VOICE_FFT / 2 + 1;
constexpr int VOICE_CONVS = 4;
constexpr int VOICE_WIDE = 128;    // channels behind the first convolution
constexpr int VOICE_NARROW = 64;   // behind the second and the third
constexpr int VOICE_HIDDEN = 128;  // behind the fourth, and of the LSTM
constexpr int VOICE_OUTPUTS = 16;

struct VoiceConv {
  const float *weight, *bias;
  int inputs, outputs;  // inputs: of all frames that an output sees
};

struct VoiceArguments {
  const float* samples;  // [VOICE_CONTEXT + frames * VOICE_FRAME]
  int64_t frames;
  const float *window, *cos, *sin;  // [VOICE_FFT], twice [VOICE_FFT / 2]: of 2 pi k / 256
  VoiceConv convs[VOICE_CONVS];
  VoiceConv gates;      // of the input and the hidden state: input, forget, output, cell
  const float* output;  // [VOICE_HIDDEN]
  float output_bias;
  float *hidden, *cell;  // [VOICE_HIDDEN] each, updated
  float* probabilities;  // [frames]
};

}  // namespace voxfast

#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/voice_arguments.h"

namespace voxfast {

// A matrix [outputs, inputs], row-major, and a bias [outputs].
struct Dense {
  const float *weight, *bias;
  int64_t outputs, inputs;
};

// Silero's voice detector; immutable, shared by all streams.
class VoiceNetwork {
 public:
  // layers: the four convolutions, their inputs those of the frames that an output sees,
  // the oldest first; then the LSTM's gates (input, forget, output, cell) of the input
  // and the hidden state. output: [VOICE_HIDDEN]. Throws std::invalid_argument for other
  // sizes.
  VoiceNetwork(const std::vector<Dense>& layers, const float* output, float output_bias);

  // The probabilities of `frames` frames; samples: [VOICE_CONTEXT + frames *
  // VOICE_FRAME]. hidden, cell: [VOICE_HIDDEN], updated. Any thread may call it.
  void run(const float* samples, int64_t frames, float* hidden, float* cell,
           float* probabilities) const;

 private:
  struct Layer {
    std::vector<float> weight, bias;  // weight in blocks: voice_arguments.h
    int inputs, outputs;

    VoiceConv view() const { return {weight.data(), bias.data(), inputs, outputs}; }
  };

  std::vector<Layer> layers_;
  std::vector<float> output_, window_, cos_, sin_;
  float output_bias_;
};

}  // namespace voxfast

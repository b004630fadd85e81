#include "voice.h"

#include <array>
#include <cmath>

#include "cpu.h"
#include "op.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "VoiceNetwork";
constexpr double PI = 3.14159265358979323846;

// Outputs and inputs of the layers.
constexpr std::array<std::pair<int, int>, VOICE_CONVS + 1> SIZES{{
    {VOICE_WIDE, 3 * VOICE_BINS},
    {VOICE_NARROW, 3 * VOICE_WIDE},
    {VOICE_NARROW, 2 * VOICE_NARROW},
    {VOICE_HIDDEN, VOICE_NARROW},
    {4 * VOICE_HIDDEN, 2 * VOICE_HIDDEN},
}};

std::vector<float> in_blocks(const Dense& layer) {
  std::vector<float> blocks;
  blocks.reserve(layer.outputs * layer.inputs);
  for (int64_t first = 0; first < layer.outputs; first += VOICE_OUTPUTS) {
    for (int64_t i = 0; i < layer.inputs; ++i) {
      for (int64_t o = first; o < first + VOICE_OUTPUTS; ++o) {
        blocks.push_back(layer.weight[o * layer.inputs + i]);
      }
    }
  }
  return blocks;
}

}  // namespace

VoiceNetwork::VoiceNetwork(const std::vector<Dense>& layers, const float* output,
                           float output_bias)
    : output_(output, output + VOICE_HIDDEN), output_bias_(output_bias) {
  if (layers.size() != SIZES.size()) {
    reject(NAME, "there must be ", SIZES.size(), " layers; got ", layers.size());
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto& layer = layers[i];
    auto [outputs, inputs] = SIZES[i];
    if (layer.outputs != outputs || layer.inputs != inputs) {
      reject(NAME, "layer ", i, " must be [", outputs, ", ", inputs, "]; got [",
             layer.outputs, ", ", layer.inputs, "]");
    }
    layers_.push_back(
        {in_blocks(layer), {layer.bias, layer.bias + outputs}, inputs, outputs});
  }
  for (int n = 0; n < VOICE_FFT; ++n) {
    double angle = 2 * PI * n / VOICE_FFT;
    window_.push_back(static_cast<float>(0.5 - 0.5 * std::cos(angle)));
    if (n < VOICE_FFT / 2) {
      cos_.push_back(static_cast<float>(std::cos(angle)));
      sin_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

void VoiceNetwork::run(const float* samples, int64_t frames, float* hidden, float* cell,
                       float* probabilities) const {
  VoiceArguments a{};
  a.samples = samples, a.frames = frames;
  a.window = window_.data(), a.cos = cos_.data(), a.sin = sin_.data();
  for (int i = 0; i < VOICE_CONVS; ++i) {
    a.convs[i] = layers_[i].view();
  }
  a.gates = layers_[VOICE_CONVS].view();
  a.output = output_.data(), a.output_bias = output_bias_;
  a.hidden = hidden, a.cell = cell, a.probabilities = probabilities;
  kernels().voice(a);
}

}  // namespace voxfast

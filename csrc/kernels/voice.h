#pragma once

// Silero's voice detector (https://github.com/snakers4/silero-vad, MIT): for each frame
// the magnitudes of four spectra, four convolutions, an LSTM and one output.

#include "kernels/simd.h"
#include "kernels/voice_arguments.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// One value of each spectrum of a frame: they are transformed together.
typedef float spectra_v __attribute__((vector_size(VOICE_SPECTRA * 4)));

constexpr int HALF_FFT = VOICE_FFT / 2;

struct Spectra {
  spectra_v re[HALF_FFT], im[HALF_FFT];
};

// Windowed samples, two real ones as one complex one, in bit-reversed order. The last 64
// samples are reflected at the end, the last one itself not repeated.
inline void load_spectra(const VoiceArguments& a, const float* samples, Spectra& x) {
  constexpr int LENGTH = VOICE_CONTEXT + VOICE_FRAME;
  auto at = [&](int place) {
    return samples[place < LENGTH ? place : 2 * LENGTH - 2 - place];
  };
  for (int n = 0; n < HALF_FFT; ++n) {
    int reversed = 0;
    for (int bit = 1; bit < HALF_FFT; bit *= 2) {
      reversed = 2 * reversed + ((n & bit) != 0);
    }
    for (int s = 0; s < VOICE_SPECTRA; ++s) {
      int place = s * HALF_FFT + 2 * n;
      x.re[reversed][s] = at(place) * a.window[2 * n];
      x.im[reversed][s] = at(place + 1) * a.window[2 * n + 1];
    }
  }
}

// The transform of HALF_FFT complex numbers in bit-reversed order (Cooley and Tukey).
inline void transform(const VoiceArguments& a, Spectra& x) {
  for (int half = 1; half < HALF_FFT; half *= 2) {
    int step = HALF_FFT / half;  // of the angle, in 2 pi / VOICE_FFT
    for (int j = 0; j < half; ++j) {
      float c = a.cos[j * step], s = -a.sin[j * step];
      for (int i = j; i < HALF_FFT; i += 2 * half) {
        spectra_v re = x.re[i + half] * c - x.im[i + half] * s;
        spectra_v im = x.re[i + half] * s + x.im[i + half] * c;
        x.re[i + half] = x.re[i] - re, x.im[i + half] = x.im[i] - im;
        x.re[i] += re, x.im[i] += im;
      }
    }
  }
}

// Writes the magnitudes [VOICE_SPECTRA][VOICE_BINS], from the transform of the samples
// in pairs: their even ones are (Z[k] + Z*[N - k]) / 2, their odd ones (Z[k] - Z*[N - k])
// / 2i.
inline void magnitudes(const VoiceArguments& a, const Spectra& x, float* out) {
  for (int k = 0; k < VOICE_BINS; ++k) {
    int one = k % HALF_FFT, other = (HALF_FFT - k) % HALF_FFT;
    float c = k < HALF_FFT ? a.cos[k] : -1.0f, s = k < HALF_FFT ? -a.sin[k] : 0.0f;
    spectra_v even_re = x.re[one] + x.re[other], even_im = x.im[one] - x.im[other];
    spectra_v odd_re = x.im[one] + x.im[other], odd_im = x.re[other] - x.re[one];
    spectra_v re = 0.5f * (even_re + odd_re * c - odd_im * s);
    spectra_v im = 0.5f * (even_im + odd_re * s + odd_im * c);
    for (int f = 0; f < VOICE_SPECTRA; ++f) {
      out[f * VOICE_BINS + k] = __builtin_sqrtf(re[f] * re[f] + im[f] * im[f]);
    }
  }
}

// bias + weight * x for FRAMES inputs, `step` floats apart, and BLOCKS blocks of outputs
// at once: so many sums that none waits for another. Writes [FRAMES][outputs].
template <int FRAMES, int BLOCKS>
inline void multiply(const VoiceConv& conv, const float* x, int step, float* out) {
  constexpr int VECTORS = VOICE_OUTPUTS / LANES;
  for (int first = 0; first < conv.outputs; first += BLOCKS * VOICE_OUTPUTS) {
    f32v sums[FRAMES][BLOCKS][VECTORS];
    for (int f = 0; f < FRAMES; ++f) {
      for (int b = 0; b < BLOCKS; ++b) {
        for (int v = 0; v < VECTORS; ++v) {
          sums[f][b][v] = load(conv.bias + first + b * VOICE_OUTPUTS + v * LANES);
        }
      }
    }
    const float* weight = conv.weight + static_cast<int64_t>(first) * conv.inputs;
    for (int i = 0; i < conv.inputs; ++i, weight += VOICE_OUTPUTS) {
      for (int b = 0; b < BLOCKS; ++b) {
        for (int v = 0; v < VECTORS; ++v) {
          f32v w = load(weight + b * VOICE_OUTPUTS * conv.inputs + v * LANES);
          for (int f = 0; f < FRAMES; ++f) {
            sums[f][b][v] = x[f * step + i] * w + sums[f][b][v];
          }
        }
      }
    }
    for (int f = 0; f < FRAMES; ++f) {
      for (int b = 0; b < BLOCKS; ++b) {
        for (int v = 0; v < VECTORS; ++v) {
          float* to = out + f * conv.outputs + first + b * VOICE_OUTPUTS + v * LANES;
          store(to, sums[f][b][v]);
        }
      }
    }
  }
}

inline void relu(float* x, int count) {
  for (int i = 0; i < count; ++i) {
    x[i] = x[i] > 0.0f ? x[i] : 0.0f;
  }
}

VOXFAST_INLINE f32v sigmoid(f32v x) {
  const f32v one = broadcast(1.0f);
  return one / (one + exp(-x));
}

VOXFAST_INLINE f32v tanh(f32v x) {
  const f32v one = broadcast(1.0f);
  return one - 2.0f / (one + exp(2.0f * x));
}

// A step of the LSTM; x: [VOICE_HIDDEN] input, then room for the hidden state.
inline void step_lstm(const VoiceArguments& a, float* x) {
  constexpr int N = VOICE_HIDDEN;
  std::memcpy(x + N, a.hidden, N * sizeof(float));
  float gates[4 * N];
  multiply<1, 4>(a.gates, x, 0, gates);
  for (int i = 0; i < N; i += LANES) {
    f32v entry = sigmoid(load(gates + i)), forget = sigmoid(load(gates + N + i));
    f32v output = sigmoid(load(gates + 2 * N + i)), next = tanh(load(gates + 3 * N + i));
    f32v cell = forget * load(a.cell + i) + entry * next;
    store(a.cell + i, cell);
    store(a.hidden + i, output * tanh(cell));
  }
}

inline float detect_voice(const VoiceArguments& a, const float* samples) {
  constexpr int W = VOICE_WIDE, N = VOICE_NARROW;
  // The first two convolutions see a frame of zeros before and behind the four frames.
  float padded[(VOICE_SPECTRA + 2) * VOICE_BINS]{}, x[VOICE_SPECTRA * W], y[2 * N];
  Spectra spectra;
  load_spectra(a, samples, spectra);
  transform(a, spectra);
  magnitudes(a, spectra, padded + VOICE_BINS);
  multiply<VOICE_SPECTRA, 1>(a.convs[0], padded, VOICE_BINS, x);
  relu(x, VOICE_SPECTRA * W);
  std::memset(padded, 0, sizeof padded);
  std::memcpy(padded + W, x, sizeof x);
  multiply<2, 2>(a.convs[1], padded, 2 * W, y);  // every second frame
  relu(y, 2 * N);
  multiply<1, 4>(a.convs[2], y, 0, x);
  relu(x, N);
  multiply<1, 4>(a.convs[3], x, 0, padded);
  relu(padded, VOICE_HIDDEN);
  step_lstm(a, padded);
  float logit = a.output_bias;
  for (int i = 0; i < VOICE_HIDDEN; ++i) {
    logit += a.output[i] * (a.hidden[i] > 0.0f ? a.hidden[i] : 0.0f);
  }
  return sigmoid(broadcast(logit))[0];
}

void voice(const VoiceArguments& a) {
  for (int64_t f = 0; f < a.frames; ++f) {
    a.probabilities[f] = detect_voice(a, a.samples + f * VOICE_FRAME);
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#include "log_mel.h"

#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <vector>

#include "mlx/fft.h"
#include "op.h"

namespace voxfast {

namespace {

constexpr int SAMPLE_RATE = 16000;
constexpr int N_FFT = 400;
constexpr int HOP_LENGTH = 160;
constexpr int N_FREQS = N_FFT / 2 + 1;
constexpr int MAX_MELS = 512;
constexpr double PI = 3.14159265358979323846;

// Slaney's mel scale: linear to 1000 Hz, logarithmic above (Auditory Toolbox, 1998).
double hz_to_mel(double hz) {
  return hz < 1000.0 ? hz * 3.0 / 200.0
                     : 15.0 + 27.0 * std::log(hz / 1000.0) / std::log(6.4);
}

double mel_to_hz(double mel) {
  return mel < 15.0 ? mel * 200.0 / 3.0
                    : 1000.0 * std::exp(std::log(6.4) / 27.0 * (mel - 15.0));
}

// Triangular filters of unit area (Slaney norm), row-major [n_mels, N_FREQS].
std::vector<float> mel_filterbank(int n_mels) {
  std::vector<double> edges(n_mels + 2);
  double top = hz_to_mel(SAMPLE_RATE / 2.0);
  for (int i = 0; i < n_mels + 2; ++i) {
    edges[i] = mel_to_hz(top * i / (n_mels + 1));
  }
  std::vector<float> weights(static_cast<size_t>(n_mels) * N_FREQS);
  for (int m = 0; m < n_mels; ++m) {
    double left = edges[m], centre = edges[m + 1], right = edges[m + 2];
    for (int f = 0; f < N_FREQS; ++f) {
      double hz = f * (SAMPLE_RATE / 2.0) / (N_FREQS - 1);
      double rising = (hz - left) / (centre - left);
      double falling = (right - hz) / (right - centre);
      double height = std::max(0.0, std::min(rising, falling));
      weights[static_cast<size_t>(m) * N_FREQS + f] =
          static_cast<float>(height * 2.0 / (right - left));
    }
  }
  return weights;
}

std::vector<float> hann_window() {
  std::vector<float> window(N_FFT);
  for (int i = 0; i < N_FFT; ++i) {
    window[i] = static_cast<float>(0.5 - 0.5 * std::cos(2.0 * PI * i / N_FFT));
  }
  return window;
}

// The op in terms of MLX's own: what GPU streams run.
mx::array composed(const mx::array& samples, int n_mels, float log_floor, float shift,
                   float scale, const mx::Stream& s) {
  static const auto window = hann_window();
  auto weights = mel_filterbank(n_mels);
  auto x = mx::contiguous(mx::astype(samples, mx::float32, s), false, s);
  int length = x.shape(-1);
  int n_frames = (length - N_FFT) / HOP_LENGTH + 1;
  int batch = static_cast<int>(x.size() / length);
  auto frames = mx::as_strided(x, {batch, n_frames, N_FFT}, {length, HOP_LENGTH, 1}, 0, s);
  frames = mx::multiply(frames, mx::array(window.data(), {N_FFT}), s);
  auto spectrum = mx::fft::rfft(frames, -1, mx::fft::FFTNorm::Backward, s);
  auto power = mx::add(mx::square(mx::real(spectrum, s), s),
                       mx::square(mx::imag(spectrum, s), s), s);
  auto filterbank = mx::array(weights.data(), {n_mels, N_FREQS});
  auto mel = mx::matmul(power, mx::transpose(filterbank, s), s);
  mel = mx::log10(mx::maximum(mel, mx::array(1e-10f), s), s);
  mel = mx::maximum(mel, mx::array(log_floor), s);
  mel = mx::multiply(mx::add(mel, mx::array(shift), s), mx::array(scale), s);
  auto shape = samples.shape();
  shape.back() = n_frames;
  shape.push_back(n_mels);
  return mx::reshape(mel, shape, s);
}

}  // namespace

mx::array log_mel(const mx::array& samples, int n_mels, std::optional<float> log_floor,
                  float shift, float scale, mx::StreamOrDevice s_) {
  if (!is_kernel_float(samples.dtype())) {
    reject("log_mel", "samples must be float32, float16 or bfloat16",
           describe("samples", samples));
  }
  if (samples.ndim() < 1 || samples.shape(-1) < N_FFT || samples.size() == 0) {
    reject("log_mel", "samples must be [..., N] with at least ", N_FFT, " samples",
           describe("samples", samples));
  }
  if (n_mels < 1 || n_mels > MAX_MELS) {
    reject("log_mel", "n_mels must lie in 1 ... ", MAX_MELS, "; got ", n_mels);
  }
  float floor = log_floor.value_or(-std::numeric_limits<float>::infinity());
  if (std::isnan(floor) || !std::isfinite(shift) || !std::isfinite(scale)) {
    reject("log_mel", "log_floor, shift and scale must be numbers; got ", floor, ", ",
           shift, ", ", scale);
  }
  auto s = mx::to_stream(s_);
  return composed(samples, n_mels, floor, shift, scale, s);
}

}  // namespace voxfast

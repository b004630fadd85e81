#include "log_mel.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "composed.h"
#include "contiguous.h"
#include "cpu.h"
#include "kernels/log_mel_arguments.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/fft.h"
#include "mlx/primitives.h"
#include "op.h"
#include "threads.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "log_mel";
constexpr int MAX_MELS = 512;
constexpr double PI = 3.14159265358979323846;

// With fewer frames, waking other threads costs more than they save
// (benches/bench_log_mel.py).
constexpr int64_t PARALLEL_FRAMES = 512;

struct Options {
  int n_mels;
  float log_floor, shift, scale;
  bool operator==(const Options&) const = default;
};

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

// LogMelTables and the memory they point to.
class Tables {
 public:
  explicit Tables(int n_mels) : filterbank_(mel_filterbank(n_mels)) {
    fill_transform();
    fill_filters(n_mels);
    window_array_ = mx::array(kernel_.window, {N_FFT}, mx::float32);
    filterbank_array_ = mx::array(filterbank_.data(), {n_mels, N_FREQS});
  }
  Tables(const Tables&) = delete;

  const LogMelTables& kernel() const { return kernel_; }
  const mx::array& window() const { return *window_array_; }
  const mx::array& filterbank() const { return *filterbank_array_; }

 private:
  void fill_transform() {
    for (int n = 0; n < N_FFT; ++n) {
      kernel_.window[n] = 0.5 - 0.5 * std::cos(2.0 * PI * n / N_FFT);
    }
    for (int b = 0; b < 25; ++b) {
      kernel_.cosines[b] = std::cos(2.0 * PI * b / 25);
      kernel_.sines[b] = std::sin(2.0 * PI * b / 25);
      for (int a = 0; a < 16; ++a) {
        kernel_.order[b][a] = static_cast<uint16_t>((25 * a + 16 * b) % N_FFT);
      }
    }
    for (int k = 0; k < N_FFT; ++k) {
      if (k % 16 <= 8) {
        kernel_.bins[k % 16][k % 25] = static_cast<uint8_t>(std::min(k, N_FFT - k));
      }
    }
  }

  // The non-zero bins of each filter, padded to the width of the widest filter before it.
  // Filters widen with frequency, so the padding is small, and consecutive filters mostly
  // have the same number of bins, which the kernel's inner loop benefits from.
  void fill_filters(int n_mels) {
    int width = 1;
    for (int m = 0; m < n_mels; ++m) {
      const float* filter = filterbank_.data() + static_cast<size_t>(m) * N_FREQS;
      int first = 0, end = N_FREQS;
      while (first < end && filter[first] == 0.0f) ++first;
      while (end > first && filter[end - 1] == 0.0f) --end;
      width = std::max(width, end - first);
      first = std::min(first, N_FREQS - width);
      first_bin_.push_back(first);
      n_bins_.push_back(width);
      weights_.insert(weights_.end(), filter + first, filter + first + width);
    }
    kernel_.n_mels = n_mels;
    kernel_.first_bin = first_bin_.data();
    kernel_.n_bins = n_bins_.data();
    kernel_.weights = weights_.data();
  }

  LogMelTables kernel_{};
  std::vector<float> filterbank_, weights_;
  std::vector<int32_t> first_bin_, n_bins_;
  std::optional<mx::array> window_array_, filterbank_array_;
};

// Computed once per n_mels and cached; at most MAX_MELS of them.
const Tables& tables(int n_mels) {
  static std::mutex mutex;
  static auto* made = new std::map<int, Tables>();
  std::lock_guard<std::mutex> lock(mutex);
  return made->try_emplace(n_mels, n_mels).first->second;
}

// Inputs: spectrum.
std::vector<mx::array> power_of(const std::vector<mx::array>& inputs,
                                const mx::Stream& s) {
  auto real = mx::real(inputs[0], s), imag = mx::imag(inputs[0], s);
  return {mx::add(mx::square(real, s), mx::square(imag, s), s)};
}

// Inputs: mel energies, log_floor, shift, scale.
std::vector<mx::array> log_of(const std::vector<mx::array>& inputs, const mx::Stream& s) {
  auto mel = mx::log10(mx::maximum(inputs[0], mx::array(1e-10f), s), s);
  mel = mx::add(mx::maximum(mel, inputs[1], s), inputs[2], s);
  return {mx::multiply(mel, inputs[3], s)};
}

// The op composed of MLX's ops, for GPU streams.
mx::array compose(const mx::array& samples, const Options& options, const mx::Stream& s) {
  const Tables& constants = tables(options.n_mels);
  auto x = mx::astype(samples, mx::float32, s);
  if (!x.is_available() || !x.flags().row_contiguous) {
    x = mx::contiguous(x, false, s);
  }
  int length = x.shape(-1);
  int n_frames = (length - N_FFT) / HOP_LENGTH + 1;
  int batch = static_cast<int>(x.size() / length);
  auto frames =
      mx::as_strided(x, {batch, n_frames, N_FFT}, {length, HOP_LENGTH, 1}, 0, s);
  frames = mx::multiply(frames, constants.window(), s);
  auto spectrum = mx::fft::rfft(frames, -1, mx::fft::FFTNorm::Backward, s);
  auto power = fuse(power_of, {spectrum}, s)[0];
  auto mel = mx::matmul(power, mx::transpose(constants.filterbank(), s), s);
  mel = fuse(log_of,
             {mel, mx::array(options.log_floor), mx::array(options.shift),
              mx::array(options.scale)},
             s)[0];
  auto shape = samples.shape();
  shape.back() = n_frames;
  shape.push_back(options.n_mels);
  return mx::reshape(mel, shape, s);
}

void run(const Kernels& isa, const LogMelArguments& arguments) {
  int64_t groups = (arguments.n_frames + isa.lanes - 1) / isa.lanes;
  if (arguments.n_frames >= PARALLEL_FRAMES) {
    parallel_for(groups, [&](int64_t i) { isa.log_mel(arguments, i * isa.lanes); });
    return;
  }
  for (int64_t i = 0; i < groups; ++i) {
    isa.log_mel(arguments, i * isa.lanes);
  }
}

// CPU streams only.
class LogMel : public mx::Primitive {
 public:
  LogMel(mx::Stream stream, const Options& options)
      : Primitive(stream), options_(options) {}

  void eval_cpu(const std::vector<mx::array>& inputs,
                std::vector<mx::array>& outputs) override {
    const auto& x = inputs[0];
    auto& out = outputs[0];
    out.set_data(allocate(NAME, out.nbytes()));
    auto& encoder = mx::cpu::get_command_encoder(stream());
    encoder.set_input_array(x);
    encoder.set_output_array(out);
    LogMelArguments arguments{
        .tables = &tables(options_.n_mels).kernel(),
        .samples = x.data<void>(),
        .type = float_type(x.dtype()),
        .stride = x.strides(-1),
        .rows = nullptr,
        .frames_per_row = out.shape(-2),
        .n_frames = static_cast<int64_t>(out.size()) / out.shape(-1),
        .out = out.data<float>(),
        .log_floor = options_.log_floor,
        .shift = options_.shift,
        .scale = options_.scale};
    encoder.dispatch(
        [&isa = kernels(), arguments,
         rows = row_offsets(x, 0, static_cast<int>(x.ndim()) - 1)]() mutable {
          arguments.rows = rows.data();
          run(isa, arguments);
        });
  }

  void eval_gpu(const std::vector<mx::array>& inputs,
                std::vector<mx::array>& outputs) override {
    throw std::runtime_error("[log_mel] has no GPU kernel");
  }

  const char* name() const override { return "VoxfastLogMel"; }

  bool is_equivalent(const mx::Primitive& other) const override {
    return options_ == static_cast<const LogMel&>(other).options_;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {output_shape(inputs[0], options_)};
  }

  static mx::array make(const mx::array& samples, const Options& options, mx::Stream s) {
    return mx::array(output_shape(samples, options), mx::float32,
                     std::make_shared<LogMel>(s, options), {samples});
  }

  static mx::Shape output_shape(const mx::array& samples, const Options& options) {
    auto shape = samples.shape();
    shape.back() = (shape.back() - N_FFT) / HOP_LENGTH + 1;
    shape.push_back(options.n_mels);
    return shape;
  }

 private:
  Options options_;
};

}  // namespace

mx::array log_mel(const mx::array& samples, int n_mels, std::optional<float> log_floor,
                  float shift, float scale, mx::StreamOrDevice s_) {
  if (!is_kernel_float(samples.dtype())) {
    reject(NAME, "samples must be float32, float16 or bfloat16",
           describe("samples", samples));
  }
  check_size(NAME, "samples", samples.shape());
  if (samples.ndim() < 1 || samples.shape(-1) < N_FFT || samples.size() == 0) {
    reject(NAME, "samples must be [..., N] with at least ", N_FFT, " samples",
           describe("samples", samples));
  }
  if (n_mels < 1 || n_mels > MAX_MELS) {
    reject(NAME, "n_mels must lie in 1 ... ", MAX_MELS, "; got ", n_mels);
  }
  float floor = log_floor.value_or(-std::numeric_limits<float>::infinity());
  if (std::isnan(floor) || !std::isfinite(shift) || !std::isfinite(scale)) {
    reject(NAME, "log_floor, shift and scale must be numbers; got ", floor, ", ", shift,
           ", ", scale);
  }
  Options options{n_mels, floor, shift, scale};
  check_size(NAME, "the result", LogMel::output_shape(samples, options));
  auto s = mx::to_stream(s_);
  return use_kernels(s) ? LogMel::make(samples, options, s)
                        : compose(samples, options, s);
}

}  // namespace voxfast

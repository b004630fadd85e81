// The Python module. Docstrings for users are in src/voxfast/ops.py.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "alignment_frame.h"
#include "composed.h"
#include "cpu.h"
#include "empty.h"
#include "gelu.h"
#include "greedy.h"
#include "linear.h"
#include "log_mel.h"
#include "op.h"
#include "rms_norm.h"
#include "sliding_attention.h"
#include "swiglu.h"
#include "threads.h"
#include "voice.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Written = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void check_length(const char* name, size_t length, size_t expected) {
  if (length != expected) {
    voxfast::reject("VoiceNetwork", name, " must have ", expected, " numbers; got ",
                    length);
  }
}

voxfast::VoiceNetwork make_voice_network(
    const std::vector<std::pair<Matrix, Vector>>& layers, const Vector& output,
    float output_bias) {
  std::vector<voxfast::Dense> dense;
  for (const auto& [weight, bias] : layers) {
    check_length("a bias", bias.shape(0), weight.shape(0));
    dense.push_back({weight.data(), bias.data(), static_cast<int64_t>(weight.shape(0)),
                     static_cast<int64_t>(weight.shape(1))});
  }
  check_length("output", output.shape(0), voxfast::VOICE_HIDDEN);
  return {dense, output.data(), output_bias};
}

void run_voice_network(const voxfast::VoiceNetwork& network, const Vector& samples,
                       const Written& hidden, const Written& cell,
                       const Written& probabilities) {
  size_t frames = probabilities.shape(0);
  check_length("samples", samples.shape(0),
               voxfast::VOICE_CONTEXT + frames * voxfast::VOICE_FRAME);
  check_length("hidden", hidden.shape(0), voxfast::VOICE_HIDDEN);
  check_length("cell", cell.shape(0), voxfast::VOICE_HIDDEN);
  nb::gil_scoped_release release;
  network.run(samples.data(), static_cast<int64_t>(frames), hidden.data(), cell.data(),
              probabilities.data());
}

}  // namespace

NB_MODULE(_ext, m) {
  m.doc() = "Native ops of voxfast; see voxfast.ops.";
  m.attr("built_for_mlx") = VOXFAST_MLX_VERSION;

  m.def("is_native", [] { return voxfast::native_enabled.load(); });
  m.def(
      "set_native", [](bool on) { return voxfast::native_enabled.exchange(on); }, "on"_a,
      "Enable or disable the CPU kernels for ops created from now on. Returns the "
      "previous "
      "setting.");
  m.def(
      "set_gpu_graphs", [](bool on) { return voxfast::gpu_graphs.exchange(on); }, "on"_a,
      "Build the graphs of a GPU stream on every stream, to be counted, not evaluated. "
      "Returns the previous setting.");
  m.def("fused_kernel", &voxfast::fused_kernel, "name"_a, "inputs"_a);
  m.def("isa", [] { return std::string(voxfast::kernels().isa); });
  m.def("available_isas", &voxfast::available_isas);
  m.def("num_threads", &voxfast::num_threads);
  m.def("ring_copies", &voxfast::ring_copies);
  m.def(
      "runs_kernels",
      [](voxfast::mx::StreamOrDevice s) {
        return voxfast::use_kernels(voxfast::mx::to_stream(s));
      },
      nb::kw_only(), "stream"_a = nb::none());

  m.def(
      "empty",
      [](const std::vector<int>& shape, const voxfast::mx::Dtype& dtype,
         voxfast::mx::StreamOrDevice s) {
        return voxfast::empty({shape.begin(), shape.end()}, dtype, s);
      },
      "shape"_a, "dtype"_a, nb::kw_only(), "stream"_a = nb::none());

  m.def("alignment_frame", &voxfast::alignment_frame, "queries"_a, "keys"_a, "heads"_a,
        "first"_a, "count"_a, nb::kw_only(), "stream"_a = nb::none());
  nb::class_<voxfast::LinearWeights>(
      m, "LinearWeights",
      "The weights of a linear layer: w, scales and biases if w is packed, and bias. The "
      "arguments are those of voxfast.ops.linear.")
      .def(nb::init<voxfast::mx::array, std::optional<voxfast::mx::array>,
                    std::optional<voxfast::mx::array>, std::optional<voxfast::mx::array>,
                    int, int>(),
           "w"_a, "scales"_a = nb::none(), "biases"_a = nb::none(), "bias"_a = nb::none(),
           "group_size"_a = 64, "bits"_a = 4);
  m.def("linears", &voxfast::linears, "x"_a, "weights"_a, nb::kw_only(),
        "out_dtype"_a = nb::none(), "stream"_a = nb::none());
  m.def("log_mel", &voxfast::log_mel, "samples"_a, "n_mels"_a = 128,
        "log_floor"_a = nb::none(), "shift"_a = 0.0f, "scale"_a = 1.0f, nb::kw_only(),
        "stream"_a = nb::none());
  m.def("sliding_attention", &voxfast::sliding_attention, "q"_a, "k"_a, "v"_a, "keys"_a,
        "values"_a, "offset"_a, "window"_a, "scale"_a, "cos"_a = nb::none(),
        "sin"_a = nb::none(), "traditional"_a = true, "causal"_a = true, nb::kw_only(),
        "stream"_a = nb::none());
  m.def("sliding_attentions", &voxfast::sliding_attentions, "q"_a, "k"_a, "v"_a, "keys"_a,
        "values"_a, "offsets"_a, "lengths"_a, "window"_a, "scale"_a, "cos"_a = nb::none(),
        "sin"_a = nb::none(), "traditional"_a = true, "causal"_a = true, nb::kw_only(),
        "stream"_a = nb::none());
  m.def("rotate", &voxfast::rotate, "x"_a, "cos"_a, "sin"_a, "traditional"_a = true,
        nb::kw_only(), "stream"_a = nb::none());
  nb::class_<voxfast::VoiceNetwork>(m, "VoiceNetwork", "See voxfast.vad.VoiceDetector.")
      .def_static("make", &make_voice_network, "layers"_a, "output"_a, "output_bias"_a)
      .def("run", &run_voice_network, "samples"_a, "hidden"_a, "cell"_a,
           "probabilities"_a);
  m.def("rms_norm", &voxfast::rms_norm, "x"_a, "weight"_a, "eps"_a, nb::kw_only(),
        "stream"_a = nb::none());
  m.def("gelu", &voxfast::gelu, "x"_a, nb::kw_only(), "stream"_a = nb::none());
  m.def("greedy", &voxfast::greedy, "logits"_a, nb::kw_only(), "stream"_a = nb::none());
  m.def("swiglu", &voxfast::swiglu, "gate"_a, "up"_a, nb::kw_only(),
        "stream"_a = nb::none());
}

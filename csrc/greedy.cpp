#include "greedy.h"

#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "composed.h"
#include "contiguous.h"
#include "cpu.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"
#include "op.h"
#include "rowwise.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "greedy";

class Greedy : public mx::Primitive {
 public:
  explicit Greedy(mx::Stream s) : Primitive(s) {}

  void eval_cpu(const std::vector<mx::array>& inputs,
                std::vector<mx::array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto logits = make_contiguous(NAME, inputs[0], encoder);
    for (auto& out : outputs) {
      out.set_data(allocate(NAME, out.nbytes()));
    }
    RowwiseArguments a = elementwise(logits);
    a.x = logits.data<void>(), a.x_type = float_type(logits.dtype());
    a.out = outputs[0].data<void>(), a.probability = outputs[1].data<void>();
    encoder.dispatch([a] { for_rows(a, kernels().greedy); });
  }
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("[greedy] has no GPU kernel");
  }

  const char* name() const override { return "VoxfastGreedy"; }
  bool is_equivalent(const mx::Primitive&) const override { return true; }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    auto shape = inputs[0].shape();
    shape.pop_back();
    return {shape, shape};
  }
};

// Logits in float32, and with numbers in the place of NaN. Inputs: logits.
std::vector<mx::array> widen(const std::vector<mx::array>& inputs, const mx::Stream& s) {
  auto logits = mx::astype(inputs[0], mx::float32, s);
  auto lowest = mx::array(-std::numeric_limits<float>::infinity());
  return {logits, mx::where(mx::isnan(logits, s), lowest, logits, s)};
}

std::pair<mx::array, mx::array> compose(const mx::array& logits, const mx::Stream& s) {
  auto wide = fuse(widen, {logits}, s);
  // With a NaN among the logits, all probabilities are NaN.
  auto probability = mx::max(mx::softmax(wide[0], -1, true, s), -1, false, s);
  return {mx::argmax(wide[1], -1, false, s), probability};
}

}  // namespace

std::pair<mx::array, mx::array> greedy(const mx::array& logits, mx::StreamOrDevice s_) {
  if (!is_kernel_float(logits.dtype()) || logits.ndim() < 1 || logits.shape(-1) == 0) {
    reject(NAME, "logits must be [..., V] of float32, float16 or bfloat16, V > 0",
           describe("logits", logits));
  }
  check_size(NAME, "logits", logits.shape());
  auto s = mx::to_stream(s_);
  if (!use_kernels(s)) {
    return compose(logits, s);
  }
  auto shape = logits.shape();
  shape.pop_back();
  auto results = mx::array::make_arrays({shape, shape}, {mx::uint32, mx::float32},
                                        std::make_shared<Greedy>(s), {logits});
  return {results[0], results[1]};
}

}  // namespace voxfast

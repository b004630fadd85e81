#include "swiglu.h"

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

constexpr const char* NAME = "swiglu";

class SwiGLU : public mx::Primitive {
 public:
  explicit SwiGLU(mx::Stream s) : Primitive(s) {}

  void eval_cpu(const std::vector<mx::array>& inputs,
                std::vector<mx::array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto gate = make_contiguous(NAME, inputs[0], encoder),
         up = make_contiguous(NAME, inputs[1], encoder);
    auto& out = outputs[0];
    out.set_data(allocate(NAME, out.nbytes()));
    RowwiseArguments a = elementwise(gate);
    a.x = gate.data<void>(), a.x_type = float_type(gate.dtype());
    a.y = up.data<void>(), a.y_type = a.x_type;
    a.out = out.data<void>(), a.out_type = a.x_type;
    encoder.dispatch([a] { for_rows(a, kernels().swiglu); });
  }
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("[swiglu] has no GPU kernel");
  }

  const char* name() const override { return "VoxfastSwiGLU"; }
  bool is_equivalent(const mx::Primitive&) const override { return true; }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {inputs[0].shape()};
  }
};

// Inputs: gate, up.
std::vector<mx::array> compose(const std::vector<mx::array>& inputs,
                               const mx::Stream& s) {
  auto gate = mx::astype(inputs[0], mx::float32, s);
  auto up = mx::astype(inputs[1], mx::float32, s);
  auto y = mx::multiply(mx::multiply(gate, mx::sigmoid(gate, s), s), up, s);
  return {mx::astype(y, inputs[0].dtype(), s)};
}

}  // namespace

mx::array swiglu(const mx::array& gate, const mx::array& up, mx::StreamOrDevice s_) {
  if (!is_kernel_float(gate.dtype()) || gate.dtype() != up.dtype() ||
      gate.shape() != up.shape()) {
    reject(NAME,
           "gate and up must have one shape and one dtype: float32, float16 or bfloat16",
           describe("gate", gate), describe("up", up));
  }
  check_size(NAME, "gate", gate.shape());
  auto s = mx::to_stream(s_);
  if (!use_kernels(s)) {
    return fuse(compose, {gate, up}, s)[0];
  }
  return mx::array(gate.shape(), gate.dtype(), std::make_shared<SwiGLU>(s), {gate, up});
}

}  // namespace voxfast

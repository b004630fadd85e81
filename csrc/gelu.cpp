#include "gelu.h"

#include <cmath>
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

constexpr const char* NAME = "gelu";

class GELU : public mx::Primitive {
 public:
  explicit GELU(mx::Stream s) : Primitive(s) {}

  void eval_cpu(const std::vector<mx::array>& inputs,
                std::vector<mx::array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto x = make_contiguous(NAME, inputs[0], encoder);
    auto& out = outputs[0];
    out.set_data(allocate(NAME, out.nbytes()));
    RowwiseArguments a = elementwise(x);
    a.x = x.data<void>(), a.x_type = float_type(x.dtype());
    a.out = out.data<void>(), a.out_type = a.x_type;
    encoder.dispatch([a] { for_rows(a, kernels().gelu); });
  }
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("[gelu] has no GPU kernel");
  }

  const char* name() const override { return "VoxfastGELU"; }
  bool is_equivalent(const mx::Primitive&) const override { return true; }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {inputs[0].shape()};
  }
};

// Inputs: x.
std::vector<mx::array> compose(const std::vector<mx::array>& inputs,
                               const mx::Stream& s) {
  auto x = mx::astype(inputs[0], mx::float32, s);
  auto scaled = mx::multiply(x, mx::array(static_cast<float>(std::sqrt(0.5))), s);
  auto twice = mx::add(mx::array(1.0f), mx::erf(scaled, s), s);
  auto y = mx::multiply(mx::multiply(x, mx::array(0.5f), s), twice, s);
  return {mx::astype(y, inputs[0].dtype(), s)};
}

}  // namespace

mx::array gelu(const mx::array& x, mx::StreamOrDevice s_) {
  if (!is_kernel_float(x.dtype())) {
    reject(NAME, "x must be float32, float16 or bfloat16", describe("x", x));
  }
  check_size(NAME, "x", x.shape());
  auto s = mx::to_stream(s_);
  if (!use_kernels(s)) {
    return fuse(compose, {x}, s)[0];
  }
  return mx::array(x.shape(), x.dtype(), std::make_shared<GELU>(s), {x});
}

}  // namespace voxfast

#include "rms_norm.h"

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

constexpr const char* NAME = "rms_norm";

class RMSNorm : public mx::Primitive {
 public:
  RMSNorm(mx::Stream s, float eps) : Primitive(s), eps_(eps) {}

  void eval_cpu(const std::vector<mx::array>& inputs,
                std::vector<mx::array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto x = make_contiguous(NAME, inputs[0], encoder),
         weight = make_contiguous(NAME, inputs[1], encoder);
    auto& out = outputs[0];
    out.set_data(allocate(NAME, out.nbytes()));
    RowwiseArguments a{};
    a.columns = x.shape(-1);
    a.rows = static_cast<int64_t>(x.size()) / a.columns;
    a.x = x.data<void>(), a.x_type = float_type(x.dtype());
    a.y = weight.data<void>(), a.y_type = float_type(weight.dtype());
    a.out = out.data<void>(), a.out_type = float_type(out.dtype());
    a.eps = eps_;
    encoder.dispatch([a] { for_rows(a, kernels().rms_norm); });
  }
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("[rms_norm] has no GPU kernel");
  }

  const char* name() const override { return "VoxfastRMSNorm"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    return static_cast<const RMSNorm&>(other).eps_ == eps_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {inputs[0].shape()};
  }

 private:
  float eps_;
};

}  // namespace

mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps,
                   mx::StreamOrDevice s_) {
  if (!is_kernel_float(x.dtype()) || !is_kernel_float(weight.dtype())) {
    reject(NAME, "x and weight must be float32, float16 or bfloat16", describe("x", x),
           describe("weight", weight));
  }
  if (x.ndim() < 1 || x.shape(-1) == 0 || weight.shape() != mx::Shape{x.shape(-1)}) {
    reject(NAME, "x must be [..., D] and weight [D], D > 0", describe("x", x),
           describe("weight", weight));
  }
  if (!(eps >= 0)) {
    reject(NAME, "eps must not be negative; got ", eps);
  }
  check_size(NAME, "x", x.shape());
  auto s = mx::to_stream(s_);
  if (gpu_graphs.load(std::memory_order_relaxed)) {
    return fused_kernel("RMSNorm", {x, weight});
  }
  if (!use_kernels(s)) {
    return mx::fast::rms_norm(x, weight, eps, s);
  }
  return mx::array(x.shape(), mx::promote_types(x.dtype(), weight.dtype()),
                   std::make_shared<RMSNorm>(s, eps), {x, weight});
}

}  // namespace voxfast

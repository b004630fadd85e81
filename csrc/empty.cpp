#include "empty.h"

#include <memory>
#include <vector>

#include "mlx/primitives.h"
#include "op.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "empty";

class Empty : public mx::Primitive {
 public:
  explicit Empty(mx::Stream s) : Primitive(s) {}

  void eval_cpu(const std::vector<mx::array>&, std::vector<mx::array>& outputs) override {
    outputs[0].set_data(allocate(NAME, outputs[0].nbytes()));
  }
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("[empty] has no GPU kernel");
  }

  const char* name() const override { return "VoxfastEmpty"; }
};

}  // namespace

bool runs_kernels(mx::StreamOrDevice s) { return use_kernels(mx::to_stream(s)); }

mx::array empty(const mx::Shape& shape, const mx::Dtype& dtype, mx::StreamOrDevice s_) {
  check_size(NAME, "the array", shape);
  auto s = mx::to_stream(s_);
  if (!use_kernels(s)) {
    return mx::zeros(shape, dtype, s);
  }
  return mx::array(shape, dtype, std::make_shared<Empty>(s), {});
}

}  // namespace voxfast

#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "mlx/array.h"
#include "mlx/primitives.h"

namespace voxfast {

// sliding_attention on a CPU stream. Inputs: q, k, v, keys, values, offset and, for
// rotary embedding, cos and sin, all validated by sliding_attention(). Outputs: out,
// keys, values.
class SlidingAttention : public mlx::core::Primitive {
 public:
  SlidingAttention(mlx::core::Stream s, int window, float scale, bool traditional,
                   bool causal)
      : Primitive(s),
        window_(window),
        scale_(scale),
        traditional_(traditional),
        causal_(causal) {}

  void eval_cpu(const std::vector<mlx::core::array>& inputs,
                std::vector<mlx::core::array>& outputs) override;

  void eval_gpu(const std::vector<mlx::core::array>&,
                std::vector<mlx::core::array>&) override {
    throw std::runtime_error("[sliding_attention] has no GPU kernel");
  }

  DEFINE_NAME(SlidingAttention)

  bool is_equivalent(const Primitive& other) const override {
    const auto& o = static_cast<const SlidingAttention&>(other);
    return window_ == o.window_ && scale_ == o.scale_ && traditional_ == o.traditional_ &&
           causal_ == o.causal_;
  }

  std::vector<mlx::core::Shape> output_shapes(
      const std::vector<mlx::core::array>& inputs) override {
    return {inputs[0].shape(), inputs[3].shape(), inputs[4].shape()};
  }

 private:
  int window_;
  float scale_;
  bool traditional_;
  bool causal_;
};

// sliding_attentions on a CPU stream. Inputs: q, k, v, for rotary embedding cos and sin,
// and the keys and values of each stream, all validated by sliding_attentions(). Outputs:
// out, the keys and values of each stream.
class SlidingAttentions : public mlx::core::Primitive {
 public:
  SlidingAttentions(mlx::core::Stream s, std::vector<int64_t> offsets,
                    std::vector<int> lengths, int window, float scale, bool traditional,
                    bool causal)
      : Primitive(s),
        offsets_(std::move(offsets)),
        lengths_(std::move(lengths)),
        window_(window),
        scale_(scale),
        traditional_(traditional),
        causal_(causal) {}

  void eval_cpu(const std::vector<mlx::core::array>& inputs,
                std::vector<mlx::core::array>& outputs) override;

  void eval_gpu(const std::vector<mlx::core::array>&,
                std::vector<mlx::core::array>&) override {
    throw std::runtime_error("[sliding_attentions] has no GPU kernel");
  }

  DEFINE_NAME(SlidingAttentions)

  bool is_equivalent(const Primitive& other) const override {
    const auto& o = static_cast<const SlidingAttentions&>(other);
    return offsets_ == o.offsets_ && lengths_ == o.lengths_ && window_ == o.window_ &&
           scale_ == o.scale_ && traditional_ == o.traditional_ && causal_ == o.causal_;
  }

  std::vector<mlx::core::Shape> output_shapes(
      const std::vector<mlx::core::array>& inputs) override {
    std::vector<mlx::core::Shape> shapes{inputs[0].shape()};
    for (size_t i = inputs.size() - 2 * lengths_.size(); i < inputs.size(); ++i) {
      shapes.push_back(inputs[i].shape());
    }
    return shapes;
  }

 private:
  std::vector<int64_t> offsets_;
  std::vector<int> lengths_;
  int window_;
  float scale_;
  bool traditional_;
  bool causal_;
};

}  // namespace voxfast

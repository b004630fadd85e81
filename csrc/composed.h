#pragma once

// What compositions of MLX's ops share. They are written for GPU streams, where each
// dispatch has a price; on CPU streams they are the reference of the kernels.

#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mlx/compile_impl.h"
#include "mlx/fast.h"
#include "mlx/primitives.h"
#include "op.h"

namespace voxfast {

// If true, compositions build the graph of a GPU stream on every stream. Such a graph can
// be counted (benches/dispatches.py), but not evaluated on a CPU.
inline std::atomic<bool> gpu_graphs{false};

inline bool builds_gpu_graph(const mx::Stream& s) {
  return s.device == mx::Device::gpu || gpu_graphs.load(std::memory_order_relaxed);
}

// Elementwise ops on a stream: a function of its inputs alone, without captures. Inputs
// are of one shape, or single numbers of no dimension.
using Chain = std::vector<mx::array>(const std::vector<mx::array>& inputs,
                                     const mx::Stream& s);

// The results of a chain: one dispatch on a GPU stream. On a CPU stream mx::compile would
// call the system's compiler, which users lack, so the ops run one by one.
inline std::vector<mx::array> fuse(Chain* chain, const std::vector<mx::array>& inputs,
                                   const mx::Stream& s) {
  if (!builds_gpu_graph(s)) {
    return chain(inputs, s);
  }
  auto on_stream = [chain, s](const std::vector<mx::array>& x) { return chain(x, s); };
  return mx::detail::compile(on_stream, reinterpret_cast<std::uintptr_t>(chain),
                             /*shapeless=*/true,
                             {static_cast<uint64_t>(s.index)})(inputs);
}

// Stands for one of MLX's fused kernels in a graph to be counted: MLX composes them where
// there is no GPU.
class FusedKernel : public mx::Primitive {
 public:
  FusedKernel(mx::Stream s, std::string name) : Primitive(s), name_(std::move(name)) {}

  void eval_cpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("a graph to be counted cannot be evaluated");
  }
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("a graph to be counted cannot be evaluated");
  }

  const char* name() const override { return name_.c_str(); }
  bool is_equivalent(const mx::Primitive&) const override { return false; }

 private:
  std::string name_;
};

// The first input has the shape and dtype of the result.
inline mx::array fused_kernel(const std::string& name,
                              const std::vector<mx::array>& inputs) {
  auto s = mx::default_stream(mx::default_device());
  return mx::array(inputs.at(0).shape(), inputs.at(0).dtype(),
                   std::make_shared<FusedKernel>(s, name), inputs);
}

// MLX's attention: q [B, H, L, D] to keys and values [B, H_kv, S, D].
inline mx::array attend(const mx::array& q, const mx::array& keys,
                        const mx::array& values, float scale,
                        const std::string& mask_mode,
                        const std::optional<mx::array>& mask, const mx::Stream& s) {
  if (gpu_graphs.load(std::memory_order_relaxed)) {
    std::vector<mx::array> inputs{q, keys, values};
    if (mask) {
      inputs.push_back(*mask);
    }
    return fused_kernel("ScaledDotProductAttention", inputs);
  }
  return mx::fast::scaled_dot_product_attention(q, keys, values, scale, mask_mode, mask,
                                                {}, false, s);
}

}  // namespace voxfast

#include "linear.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "contiguous.h"
#include "cpu.h"
#include "kernels/linear_arguments.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"
#include "op.h"
#include "threads.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "linear";

// Per-weight parameters that shape and dtype do not determine.
struct WeightFormat {
  int group_size;
  int bits;  // 0: w is not packed
  bool has_bias;
  mx::Dtype out_dtype;

  bool operator==(const WeightFormat&) const = default;

  int inputs() const { return 1 + (bits > 0 ? 2 : 0) + (has_bias ? 1 : 0); }
};

// A product composed of MLX's ops, for GPU streams. inputs: w, [scales, biases], [bias].
mx::array fallback(const mx::array& x, const mx::array* inputs,
                   const WeightFormat& format, const mx::Stream& s) {
  auto y = [&] {
    if (format.bits > 0) {
      auto product = mx::quantized_matmul(x, inputs[0], inputs[1], inputs[2], true,
                                          format.group_size, format.bits, "affine", s);
      return format.has_bias ? mx::add(product, inputs[3], s) : product;
    }
    auto transposed = mx::transpose(inputs[0], s);
    return format.has_bias ? mx::addmm(inputs[1], x, transposed, 1.0f, 1.0f, s)
                           : mx::matmul(x, transposed, s);
  }();
  return mx::astype(y, format.out_dtype, s);
}

// The shape of the result. k_dims: how many last dimensions of x are inputs.
mx::Shape shape_of(const mx::array& x, const mx::array& w, int k_dims) {
  auto shape = x.shape();
  shape.resize(shape.size() - k_dims);
  shape.push_back(w.shape(0));
  return shape;
}

// ---- CPU streams ------------------------------------------------------------------

// A call on a CPU stream: several products of one x.
struct Products {
  std::vector<LinearArguments> each;
  std::vector<int64_t> x_row_offsets, x_span_offsets;

  void run() {
    // Below this, waking other threads costs more than they save.
    constexpr int64_t SERIAL_WORK = 1 << 20;
    int64_t work = 0, tasks = 0;
    const char* prepared = nullptr;
    for (auto& a : each) {
      a.x_row_offsets = x_row_offsets.data();
      a.x_span_offsets = x_span_offsets.data();
      work += a.n * a.w_stride + a.m * a.n * a.k / 4;
      tasks += a.tasks;
    }
    auto call = [&](int64_t count, auto body) {
      if (work > SERIAL_WORK) {
        return parallel_for(count, body);
      }
      for (int64_t i = 0; i < count; ++i) {
        body(i);
      }
    };
    const auto& kernel = kernels();
    for (auto& a : each) {
      if (std::exchange(prepared, a.prepared) != a.prepared) {
        call(a.m, [&](int64_t m) { kernel.linear_prepare(a, m); });
      }
    }
    call(tasks, [&](int64_t task) {
      auto* a = each.data();
      for (; task >= a->tasks; ++a) {
        task -= a->tasks;
      }
      kernel.linear_multiply(*a, task);
    });
  }
};

class Linear : public mx::Primitive {
 public:
  // k_dims: how many last dimensions of x are inputs.
  Linear(mx::Stream s, std::vector<WeightFormat> formats, int k_dims)
      : Primitive(s), formats_(std::move(formats)), k_dims_(k_dims) {}

  void eval_cpu(const std::vector<mx::array>& inputs,
                std::vector<mx::array>& outputs) override;

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("[linear] has no GPU kernel");
  }

  DEFINE_NAME(Linear)

  bool is_equivalent(const Primitive& other) const override {
    const auto& o = static_cast<const Linear&>(other);
    return formats_ == o.formats_ && k_dims_ == o.k_dims_;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    std::vector<mx::Shape> shapes;
    int at = 1;
    for (const auto& format : formats_) {
      shapes.push_back(shape_of(inputs[0], inputs[at], k_dims_));
      at += format.inputs();
    }
    return shapes;
  }

 private:
  std::vector<WeightFormat> formats_;
  int k_dims_;
};

// inputs: w, [scales, biases], [bias].
LinearArguments make_arguments(const mx::array& x, int64_t k, const mx::array* inputs,
                               const WeightFormat& format, mx::array& out,
                               mx::cpu::CommandEncoder& encoder) {
  auto w = make_rows_contiguous(NAME, inputs[0], encoder);
  LinearArguments a{};
  a.k = k;
  a.m = static_cast<int64_t>(x.size()) / k;
  a.n = w.shape(0);
  a.x = x.data<void>();
  a.x_type = float_type(x.dtype());
  a.x_span = x.shape(-1);
  a.x_stride = x.strides(-1);
  a.w = w.data<char>();
  a.w_stride = w.strides(0) * static_cast<int64_t>(w.itemsize());
  a.bits = format.bits;
  a.group_size = format.group_size;
  if (format.bits > 0) {
    a.groups = a.k / a.group_size;
    auto scales = make_rows_contiguous(NAME, inputs[1], encoder);
    auto biases = make_rows_contiguous(NAME, inputs[2], encoder);
    a.scales = scales.data<void>();
    a.biases = biases.data<void>();
    a.scale_type = float_type(scales.dtype());
    a.scale_stride = scales.strides(0);
    a.bias_stride = biases.strides(0);
  } else {
    a.w_type = float_type(w.dtype());
  }
  if (format.has_bias) {
    auto bias = make_rows_contiguous(NAME, inputs[format.inputs() - 1], encoder);
    a.bias = bias.data<void>();
    a.bias_type = float_type(bias.dtype());
  }
  a.out = out.data<void>();
  a.out_type = float_type(out.dtype());
  return a;
}

// Whether both products use the same prepared x.
bool same_preparation(const LinearArguments& a, const LinearArguments& b) {
  return a.bits == b.bits && a.group_size == b.group_size && a.w_type == b.w_type;
}

void Linear::eval_cpu(const std::vector<mx::array>& inputs,
                      std::vector<mx::array>& outputs) {
  for (auto& out : outputs) {
    out.set_data(allocate(NAME, out.nbytes()));
  }
  const auto& x = inputs[0];
  if (x.size() == 0) {
    return;
  }
  auto& encoder = mx::cpu::get_command_encoder(stream());
  int dims = static_cast<int>(x.ndim()), row_dims = dims - k_dims_;
  int64_t k = 1, n = 0;
  for (int d = row_dims; d < dims; ++d) {
    k *= x.shape(d);
  }
  for (const auto& out : outputs) {
    n += out.shape(-1);
  }
  Products products{{}, row_offsets(x, 0, row_dims), row_offsets(x, row_dims, dims - 1)};
  const mx::array* weights = inputs.data() + 1;
  for (size_t i = 0; i < outputs.size(); ++i) {
    auto a = make_arguments(x, k, weights, formats_[i], outputs[i], encoder);
    weights += formats_[i].inputs();
    // About 8 tasks per thread in all, so that a delayed thread holds up little.
    kernels().linear_plan(a, (8 * num_threads() * a.n + n - 1) / n, num_threads());
    if (i > 0 && same_preparation(a, products.each.back())) {
      a.prepared = products.each.back().prepared;
    } else {
      // Aligned, so that no vector straddles cache lines.
      constexpr size_t CACHE_LINE = 64;
      mx::array prepared(allocate(NAME, a.prepared_bytes + CACHE_LINE), {1}, mx::uint8);
      encoder.add_temporary(prepared);
      auto* data = prepared.data<char>();
      a.prepared = data + (CACHE_LINE - reinterpret_cast<uintptr_t>(data) % CACHE_LINE);
    }
    products.each.push_back(a);
  }
  encoder.dispatch([products = std::move(products)]() mutable { products.run(); });
}

// ---- validation -------------------------------------------------------------------

void check_float(const char* name, const mx::array& x) {
  if (!is_kernel_float(x.dtype())) {
    reject(NAME, name, " must be float32, float16 or bfloat16", describe(name, x));
  }
}

void check_packed(const mx::array& x, const LinearWeights& weights) {
  const auto& [w, scales, biases, bias, group_size, bits] = weights;
  if (!scales || !biases) {
    reject(NAME, "scales and biases must be given together");
  }
  if (bits < 2 || bits > 8 || bits == 7) {
    reject(NAME, "bits must be 2, 3, 4, 5, 6 or 8; got ", bits);
  }
  if (group_size != 32 && group_size != 64 && group_size != 128) {
    reject(NAME, "group_size must be 32, 64 or 128; got ", group_size);
  }
  int64_t k = x.shape(-1);
  if (w.dtype() != mx::uint32 || k % group_size != 0 || w.shape(1) != k / 32 * bits) {
    reject(NAME,
           "w must be [N, K * bits / 32] of uint32 and K a multiple of group_size, with ",
           bits, " bits and groups of ", group_size, describe("x", x), describe("w", w));
  }
  for (auto [name, array] :
       {std::pair{"scales", &*scales}, std::pair{"biases", &*biases}}) {
    check_float(name, *array);
    if (array->shape() != mx::Shape{w.shape(0), static_cast<int>(k / group_size)} ||
        array->dtype() != scales->dtype()) {
      reject(NAME, name,
             " must be [N, K / group_size], and scales and biases of one dtype",
             describe(name, *array), describe("w", w), describe("x", x));
    }
  }
}

void check(const mx::array& x, const LinearWeights& weights) {
  const auto& w = weights.w;
  bool packed = weights.scales || weights.biases;
  if (w.ndim() < 2 || (packed && w.ndim() > 2) || w.shape(0) == 0) {
    reject(NAME,
           "w must be [N, K], [N, K1, K2, ...], or [N, K * bits / 32] if packed, with "
           "N > 0",
           describe("w", w));
  }
  if (x.ndim() + 1 < w.ndim() || x.shape(-1) == 0 || w.size() == 0) {
    reject(
        NAME,
        "x must be [..., K], or [..., K1, K2, ...] if w is [N, K1, K2, ...], with K > 0",
        describe("x", x), describe("w", w));
  }
  if (packed) {
    check_packed(x, weights);
  } else {
    if (w.dtype() == mx::uint32) {
      reject(NAME, "packed weights need scales and biases", describe("w", w));
    }
    check_float("w", w);
    if (!std::equal(w.shape().begin() + 1, w.shape().end(),
                    x.shape().end() - (static_cast<int>(w.ndim()) - 1))) {
      reject(NAME, "x must have the same last dimensions as w has after N",
             describe("x", x), describe("w", w));
    }
  }
  if (weights.bias) {
    const auto& bias = *weights.bias;
    check_float("bias", bias);
    if (bias.shape() != mx::Shape{w.shape(0)}) {
      reject(NAME, "bias must be [N]", describe("bias", bias), describe("w", w));
    }
  }
}

void check(const mx::array& x, const std::vector<LinearWeights>& weights,
           const std::optional<mx::Dtype>& out_dtype) {
  check_float("x", x);
  check_size(NAME, "x", x.shape());
  if (out_dtype && !is_kernel_float(*out_dtype)) {
    reject(NAME, "out_dtype must be float32, float16 or bfloat16; got ", *out_dtype);
  }
  if (weights.empty()) {
    reject(NAME, "there are no weights");
  }
  for (const auto& other : weights) {
    if (other.w.ndim() != weights[0].w.ndim()) {
      reject(NAME, "all weights must have the same number of dimensions",
             describe("w", weights[0].w), describe("w", other.w));
    }
    check(x, other);
    check_size(NAME, "w", other.w.shape());
    check_size(NAME, "the result",
               shape_of(x, other.w, static_cast<int>(other.w.ndim()) - 1));
  }
}

bool use_linear_kernels(const mx::Stream& s) {
#if defined(__APPLE__)
  return false;  // Accelerate is faster
#else
  return use_kernels(s);
#endif
}

}  // namespace

std::vector<mx::array> linears(const mx::array& x,
                               const std::vector<LinearWeights>& weights,
                               std::optional<mx::Dtype> out_dtype,
                               mx::StreamOrDevice s_) {
  check(x, weights, out_dtype);
  auto s = mx::to_stream(s_);
  int k_dims = static_cast<int>(weights[0].w.ndim()) - 1;
  std::vector<mx::array> inputs{x};
  std::vector<WeightFormat> formats;
  std::vector<mx::Shape> shapes;
  std::vector<mx::Dtype> dtypes;
  for (const auto& [w, scales, biases, bias, group_size, bits] : weights) {
    auto dtype = mx::promote_types(x.dtype(), scales ? scales->dtype() : w.dtype());
    inputs.push_back(mx::flatten(w, 1, -1, s));
    if (scales) {
      inputs.push_back(*scales);
      inputs.push_back(*biases);
    }
    if (bias) {
      inputs.push_back(*bias);
      dtype = mx::promote_types(dtype, bias->dtype());
    }
    dtypes.push_back(out_dtype.value_or(dtype));
    shapes.push_back(shape_of(x, w, k_dims));
    formats.push_back(
        {scales ? group_size : 0, scales ? bits : 0, bias.has_value(), dtypes.back()});
  }
  if (use_linear_kernels(s)) {
    return mx::array::make_arrays(std::move(shapes), dtypes,
                                  std::make_shared<Linear>(s, std::move(formats), k_dims),
                                  inputs);
  }
  std::vector<mx::array> results;
  auto rows = mx::flatten(x, -k_dims, -1, s);
  const mx::array* at = inputs.data() + 1;
  for (const auto& format : formats) {
    results.push_back(fallback(rows, at, format, s));
    at += format.inputs();
  }
  return results;
}

}  // namespace voxfast

#include "linear.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

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

// What shape and dtype do not tell.
struct Format {
  int group_size;
  int bits;  // 0: w is not packed
  bool has_bias;
  int k_dims;  // of x, the last ones

  bool operator==(const Format&) const = default;
};

// The op in terms of MLX's own. inputs: x, w, [scales, biases], [bias].
mx::array composed(const std::vector<mx::array>& inputs, const Format& format,
                   mx::Dtype out_dtype, const mx::Stream& s) {
  const auto& w = inputs[1];
  auto x = mx::flatten(inputs[0], -format.k_dims, -1, s);
  auto y = [&] {
    if (format.bits > 0) {
      auto product = mx::quantized_matmul(x, w, inputs[2], inputs[3], true,
                                          format.group_size, format.bits, "affine", s);
      return format.has_bias ? mx::add(product, inputs[4], s) : product;
    }
    auto transposed = mx::transpose(w, s);
    return format.has_bias ? mx::addmm(inputs[2], x, transposed, 1.0f, 1.0f, s)
                           : mx::matmul(x, transposed, s);
  }();
  return mx::astype(y, out_dtype, s);
}

// Of the result.
mx::Shape shape_of(const mx::array& x, const mx::array& w, int k_dims) {
  auto shape = x.shape();
  shape.resize(shape.size() - k_dims);
  shape.push_back(w.shape(0));
  return shape;
}

// ---- the CPU kernels --------------------------------------------------------------

// An array whose rows, the last dimension, are dense: the array itself, or a copy.
mx::array with_dense_rows(const mx::array& x, mx::cpu::CommandEncoder& encoder) {
  if (x.strides(-1) == 1 || x.shape(-1) == 1) {
    return x;
  }
  mx::array copy(allocate(NAME, x.size() * x.itemsize()), x.shape(), x.dtype());
  encoder.add_temporary(copy);
  encoder.dispatch([from = x.data<char>(), to = copy.data<char>(), size = x.itemsize(),
                    rows = x.ndim() > 1 ? x.shape(0) : 1, columns = x.shape(-1),
                    row_step = x.ndim() > 1 ? x.strides(0) : 0, step = x.strides(-1)] {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        std::memcpy(to + (r * columns + c) * size,
                    from + (r * row_step + c * step) * static_cast<int64_t>(size), size);
      }
    }
  });
  return copy;
}

// Where what the indices of dimensions first ... last - 1 select begins, in elements.
std::vector<int64_t> offsets(const mx::array& x, int first, int last) {
  std::vector<int64_t> offsets{0};
  for (int d = first; d < last; ++d) {
    std::vector<int64_t> next;
    next.reserve(offsets.size() * x.shape(d));
    for (int64_t offset : offsets) {
      for (int i = 0; i < x.shape(d); ++i) {
        next.push_back(offset + i * x.strides(d));
      }
    }
    offsets = std::move(next);
  }
  return offsets;
}

void run(LinearArguments& a) {
  // Below this waking other threads costs more than they save.
  constexpr int64_t SERIAL_WORK = 1 << 20;
  const auto& kernel = kernels();
  bool parallel = a.n * a.w_stride + a.m * a.n * a.k / 4 > SERIAL_WORK;
  if (!parallel) {
    for (int64_t row = 0; row < a.m; ++row) {
      kernel.linear_prepare(a, row);
    }
    for (int64_t task = 0; task < a.tasks; ++task) {
      kernel.linear_multiply(a, task);
    }
    return;
  }
  parallel_for(a.m, [&](int64_t row) { kernel.linear_prepare(a, row); });
  parallel_for(a.tasks, [&](int64_t task) { kernel.linear_multiply(a, task); });
}

class Linear : public mx::UnaryPrimitive {
 public:
  Linear(mx::Stream s, Format format, mx::Dtype out_dtype)
      : UnaryPrimitive(s), format_(format), out_dtype_(out_dtype) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override;

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::runtime_error("[linear] has no GPU kernel");
  }

  DEFINE_NAME(Linear)

  bool is_equivalent(const Primitive& other) const override {
    const auto& o = static_cast<const Linear&>(other);
    return format_ == o.format_ && out_dtype_ == o.out_dtype_;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {shape_of(inputs[0], inputs[1], format_.k_dims)};
  }

 private:
  Format format_;
  mx::Dtype out_dtype_;
};

void Linear::eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) {
  out.set_data(allocate(NAME, out.nbytes()));
  if (out.size() == 0) {
    return;
  }
  auto& encoder = mx::cpu::get_command_encoder(stream());
  const auto& x = inputs[0];
  auto w = with_dense_rows(inputs[1], encoder);
  LinearArguments a{};
  a.k = format_.bits > 0 ? x.shape(-1) : w.shape(-1);
  a.m = static_cast<int64_t>(x.size()) / a.k;
  a.n = w.shape(0);
  a.x = x.data<void>();
  a.x_type = float_type(x.dtype());
  a.x_part = x.shape(-1);
  a.x_stride = x.strides(-1);
  a.w = w.data<char>();
  a.w_stride = w.strides(0) * static_cast<int64_t>(w.itemsize());
  a.bits = format_.bits;
  a.group_size = format_.group_size;
  if (format_.bits > 0) {
    a.groups = a.k / a.group_size;
    auto scales = with_dense_rows(inputs[2], encoder);
    auto biases = with_dense_rows(inputs[3], encoder);
    a.scales = scales.data<void>();
    a.biases = biases.data<void>();
    a.scale_type = float_type(scales.dtype());
    a.scale_stride = scales.strides(0);
    a.bias_stride = biases.strides(0);
  } else {
    a.w_type = float_type(w.dtype());
  }
  if (format_.has_bias) {
    auto bias = with_dense_rows(inputs.back(), encoder);
    a.bias = bias.data<void>();
    a.bias_type = float_type(bias.dtype());
  }
  a.out = out.data<void>();
  a.out_type = float_type(out.dtype());
  kernels().linear_plan(a, num_threads());

  mx::array prepared(allocate(NAME, a.prepared_bytes), {1}, mx::uint8);
  encoder.add_temporary(prepared);
  a.prepared = prepared.data<char>();
  int dims = static_cast<int>(x.ndim()), rows_dims = dims - format_.k_dims;
  encoder.dispatch([a, rows = offsets(x, 0, rows_dims),
                    parts = offsets(x, rows_dims, dims - 1)]() mutable {
    a.x_rows = rows.data();
    a.x_parts = parts.data();
    run(a);
  });
}

// ---- validation -------------------------------------------------------------------

void check_float(const char* name, const mx::array& x) {
  if (!is_kernel_float(x.dtype())) {
    reject(NAME, name, " must be float32, float16 or bfloat16", describe(name, x));
  }
}

void check_packed(const mx::array& x, const mx::array& w,
                  const std::optional<mx::array>& scales,
                  const std::optional<mx::array>& biases, int group_size, int bits) {
  if (!scales || !biases) {
    reject(NAME, "scales and biases come together or not at all");
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

void check(const mx::array& x, const mx::array& w, const std::optional<mx::array>& scales,
           const std::optional<mx::array>& biases, const std::optional<mx::array>& bias,
           int group_size, int bits) {
  check_float("x", x);
  bool packed = scales || biases;
  if (w.ndim() < 2 || (packed && w.ndim() > 2) || w.shape(0) == 0) {
    reject(
        NAME,
        "w must be [N, K], [N, K1, K2, ...], or [N, K * bits / 32] if packed, with N > 0",
        describe("w", w));
  }
  if (x.ndim() + 1 < w.ndim() || x.shape(-1) == 0 || w.size() == 0) {
    reject(NAME, "x must be [..., K], or [..., K1, K2, ...] as w is, with K > 0",
           describe("x", x), describe("w", w));
  }
  if (packed) {
    check_packed(x, w, scales, biases, group_size, bits);
  } else {
    if (w.dtype() == mx::uint32) {
      reject(NAME, "packed weights need scales and biases", describe("w", w));
    }
    check_float("w", w);
    if (!std::equal(w.shape().begin() + 1, w.shape().end(),
                    x.shape().end() - (static_cast<int>(w.ndim()) - 1))) {
      reject(NAME, "x must have the same last dimensions as w, all but its first",
             describe("x", x), describe("w", w));
    }
  }
  if (bias) {
    check_float("bias", *bias);
    if (bias->shape() != mx::Shape{w.shape(0)}) {
      reject(NAME, "bias must be [N]", describe("bias", *bias), describe("w", w));
    }
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

mx::array linear(const mx::array& x, const mx::array& w,
                 const std::optional<mx::array>& scales,
                 const std::optional<mx::array>& biases,
                 const std::optional<mx::array>& bias, int group_size, int bits,
                 std::optional<mx::Dtype> out_dtype, mx::StreamOrDevice s_) {
  check(x, w, scales, biases, bias, group_size, bits);
  Format format{scales ? group_size : 0, scales ? bits : 0, bias.has_value(),
                static_cast<int>(w.ndim()) - 1};
  auto s = mx::to_stream(s_);
  std::vector<mx::array> inputs{x, mx::flatten(w, 1, -1, s)};
  auto dtype = mx::promote_types(x.dtype(), scales ? scales->dtype() : w.dtype());
  if (scales) {
    inputs.push_back(*scales);
    inputs.push_back(*biases);
  }
  if (bias) {
    inputs.push_back(*bias);
    dtype = mx::promote_types(dtype, bias->dtype());
  }
  dtype = out_dtype.value_or(dtype);
  if (dtype != mx::float32 && dtype != mx::float16 && dtype != mx::bfloat16) {
    reject(NAME, "out_dtype must be float32, float16 or bfloat16; got ", dtype);
  }
  auto shape = shape_of(x, w, format.k_dims);
  check_size(NAME, "x", x.shape());
  check_size(NAME, "w", w.shape());
  check_size(NAME, "the result", shape);
  if (!use_linear_kernels(s)) {
    return composed(inputs, format, dtype, s);
  }
  return mx::array(std::move(shape), dtype, std::make_shared<Linear>(s, format, dtype),
                   std::move(inputs));
}

}  // namespace voxfast

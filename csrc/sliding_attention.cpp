#include "sliding_attention.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>
#include <vector>

#include "cpu.h"
#include "kernels/sliding_attention_arguments.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/fast.h"
#include "mlx/primitives.h"
#include "op.h"
#include "threads.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "sliding_attention";
constexpr int MAX_HEAD_SIZE = 512;

std::atomic<int64_t> copies{0};

// Rotates the pairs of x [B, L, H, D] by tables [B or 1, L, D / 2], in float32.
mx::array rotate(const mx::array& x, const mx::array& cos, const mx::array& sin,
                 bool traditional, const mx::Stream& s) {
  int half = x.shape(-1) / 2;
  auto shape = x.shape();
  shape.pop_back();
  shape.push_back(traditional ? half : 2);
  shape.push_back(traditional ? 2 : half);
  int axis = traditional ? -1 : -2;
  auto pairs = mx::split(mx::reshape(mx::astype(x, mx::float32, s), shape, s), 2, axis, s);
  auto first = mx::squeeze(pairs[0], axis, s), second = mx::squeeze(pairs[1], axis, s);
  auto c = mx::expand_dims(cos, 2, s), n = mx::expand_dims(sin, 2, s);
  auto rotated = mx::stack({mx::subtract(mx::multiply(first, c, s), mx::multiply(second, n, s), s),
                            mx::add(mx::multiply(first, n, s), mx::multiply(second, c, s), s)},
                           axis, s);
  return mx::astype(mx::reshape(rotated, x.shape(), s), x.dtype(), s);
}

// Replaces the rows of ring [B, H_kv, C, D] at slots [B, L] by rows [B, L, H_kv, D].
mx::array write_rows(const mx::array& ring, const mx::array& rows, const mx::array& slots,
                     const mx::Stream& s) {
  auto index = mx::expand_dims(slots, {1, 3}, s);  // [B, 1, L, 1]
  index = mx::broadcast_to(
      index, {ring.shape(0), ring.shape(1), slots.shape(1), ring.shape(3)}, s);
  return mx::put_along_axis(ring, index, mx::transpose(rows, {0, 2, 1, 3}, s), 2, s);
}

// The op in terms of MLX's own: what GPU streams run.
std::vector<mx::array> composed(const std::vector<mx::array>& inputs, int window,
                                float scale, bool traditional, const mx::Stream& s) {
  auto q = inputs[0], k = inputs[1];
  const auto &v = inputs[2], &offset = inputs[5];
  int length = q.shape(1), capacity = inputs[3].shape(2);
  if (inputs.size() > 6) {
    q = rotate(q, inputs[6], inputs[7], traditional, s);
    k = rotate(k, inputs[6], inputs[7], traditional, s);
  }
  auto size = mx::array(static_cast<int64_t>(capacity));
  auto positions = mx::add(mx::expand_dims(offset, 1, s),
                           mx::arange(0, length, 1, mx::int64, s), s);  // [B, L]
  auto slots = mx::remainder(positions, size, s);
  auto keys = write_rows(inputs[3], k, slots, s);
  auto values = write_rows(inputs[4], v, slots, s);

  // The newest position that slot c can hold: last - (last - c) mod C.
  auto last = mx::expand_dims(mx::add(offset, mx::array(static_cast<int64_t>(length - 1)), s),
                              1, s);
  auto age = mx::remainder(
      mx::subtract(last, mx::arange(0, capacity, 1, mx::int64, s), s), size, s);
  auto held = mx::expand_dims(mx::subtract(last, age, s), {1, 2}, s);  // [B, 1, 1, C]
  auto asking = mx::expand_dims(positions, {1, 3}, s);                 // [B, 1, L, 1]
  auto oldest = mx::subtract(asking, mx::array(static_cast<int64_t>(window)), s);
  auto mask = mx::logical_and(
      mx::greater_equal(held, mx::array(static_cast<int64_t>(0)), s),
      mx::logical_and(mx::less_equal(held, asking, s), mx::greater(held, oldest, s), s), s);
  auto out = mx::fast::scaled_dot_product_attention(
      mx::transpose(q, {0, 2, 1, 3}, s), keys, values, scale, "array", mask, {}, false, s);
  return {mx::transpose(out, {0, 2, 1, 3}, s), keys, values};
}

void check_rows(const char* name, const mx::array& x, const mx::array& q) {
  if (x.ndim() != 4 || x.shape(0) != q.shape(0) || x.shape(1) != q.shape(1) ||
      x.shape(3) != q.shape(3)) {
    reject(NAME, name, " must be [B, L, H_kv, D] like q", describe(name, x),
           describe("q", q));
  }
}

void check_ring(const char* name, const mx::array& ring, const mx::array& k) {
  if (ring.ndim() != 4 || ring.shape(0) != k.shape(0) || ring.shape(1) != k.shape(2) ||
      ring.shape(2) < k.shape(1) || ring.shape(3) != k.shape(3)) {
    reject(NAME, name, " must be [B, H_kv, C, D] like k, with C >= L",
           describe(name, ring), describe("k", k));
  }
}

void check_table(const char* name, const mx::array& table, const mx::array& q) {
  if (table.dtype() != mx::float32 || table.ndim() != 3 ||
      (table.shape(0) != 1 && table.shape(0) != q.shape(0)) ||
      table.shape(1) != q.shape(1) || table.shape(2) * 2 != q.shape(3)) {
    reject(NAME, name, " must be [B or 1, L, D / 2] of float32", describe(name, table),
           describe("q", q));
  }
}

void check(const std::vector<mx::array>& inputs, int window, float scale) {
  const auto &q = inputs[0], &k = inputs[1], &v = inputs[2], &keys = inputs[3],
             &values = inputs[4], &offset = inputs[5];
  if (!is_kernel_float(q.dtype())) {
    reject(NAME, "q must be float32, float16 or bfloat16", describe("q", q));
  }
  if (q.ndim() != 4 || q.size() == 0 || q.shape(3) > MAX_HEAD_SIZE) {
    reject(NAME, "q must be [B, L, H, D], not empty, with D <= ", MAX_HEAD_SIZE,
           describe("q", q));
  }
  check_rows("k", k, q);
  check_rows("v", v, q);
  if (k.shape(2) == 0 || q.shape(2) % k.shape(2) != 0 || v.shape(2) != k.shape(2)) {
    reject(NAME, "the heads of q must be a multiple of the heads of k and v",
           describe("q", q), describe("k", k), describe("v", v));
  }
  check_ring("keys", keys, k);
  check_ring("values", values, v);
  if (keys.shape(2) != values.shape(2)) {
    reject(NAME, "keys and values must have one capacity", describe("keys", keys),
           describe("values", values));
  }
  const char* names[] = {"q", "k", "v", "keys", "values"};
  for (int i = 1; i < 5; ++i) {
    if (inputs[i].dtype() != q.dtype()) {
      reject(NAME, names[i], " must have the dtype of q", describe(names[i], inputs[i]),
             describe("q", q));
    }
  }
  if (offset.dtype() != mx::int64 || offset.ndim() != 1 || offset.shape(0) != q.shape(0)) {
    reject(NAME, "offset must be [B] of int64", describe("offset", offset));
  }
  if (window < 1 || !std::isfinite(scale)) {
    reject(NAME, "window must be at least 1 and scale finite; got ", window, " and ", scale);
  }
}

// ---- the CPU kernels --------------------------------------------------------------

// A ring that has to be copied before the new rows are written.
struct RingCopy {
  const char* from;
  char* to;
  mx::Shape shape;      // [B, H_kv, C, D]
  mx::Strides strides;  // of `from`, in elements
  size_t itemsize;
};

void copy_ring(const RingCopy& ring) {
  const auto& shape = ring.shape;
  size_t row = shape[3] * ring.itemsize;
  int64_t step = ring.strides[3] * static_cast<int64_t>(ring.itemsize);
  bool dense = ring.strides[3] == 1;
  parallel_for(int64_t{shape[0]} * shape[1], [&](int64_t head) {
    int64_t start = head / shape[1] * ring.strides[0] + head % shape[1] * ring.strides[1];
    char* to = ring.to + head * shape[2] * row;
    for (int64_t slot = 0; slot < shape[2]; ++slot, to += row) {
      const char* from = ring.from + (start + slot * ring.strides[2]) *
                                         static_cast<int64_t>(ring.itemsize);
      if (dense) {
        std::memcpy(to, from, row);
        continue;
      }
      for (int d = 0; d < shape[3]; ++d) {
        std::memcpy(to + d * ring.itemsize, from + d * step, ring.itemsize);
      }
    }
  });
}

// Checks the offsets, whose values are only known now, and returns the greatest number
// of keys that one batch row's queries span.
int64_t check_offsets(const SlidingAttentionArguments& a) {
  constexpr int64_t MAX_OFFSET = int64_t{1} << 62;
  int64_t most = 0;
  for (int b = 0; b < a.batch; ++b) {
    int64_t offset = a.offset[b * a.offset_stride];
    if (offset < 0 || offset > MAX_OFFSET) {
      reject(NAME, "offset must lie in 0 ... 2^62; got ", offset);
    }
    int64_t span = std::min(offset, int64_t{a.window} - 1) + a.length;
    if (a.capacity < span) {
      reject(NAME, "a ring of ", a.capacity, " rows is too small for ", a.length,
             " new rows at offset ", offset, " with a window of ", a.window,
             "; it needs ", span);
    }
    most = std::max(most, span);
  }
  return most;
}

// Cuts the work so that all threads have some, and small work none of the cost.
void plan(SlidingAttentionArguments& a, int64_t span) {
  int rows = a.length * (a.heads / a.kv_heads), lanes = kernels().lanes;
  int64_t heads = int64_t{a.batch} * a.kv_heads;
  a.tile_rows = std::min(rows, lanes / 2);
  a.tiles = (rows + a.tile_rows - 1) / a.tile_rows;
  constexpr int64_t SPLIT_KEYS = 256;  // fewer are not worth a merge
  int64_t wanted = num_threads() == 1 ? 1 : 4 * num_threads();
  int64_t tasks = heads * a.tiles;
  a.splits = static_cast<int>(std::max<int64_t>(
      1, std::min((wanted + tasks - 1) / tasks, span / SPLIT_KEYS)));
}

void for_each(bool parallel, int64_t count, const SlidingAttentionArguments& a,
              void (*pass)(const SlidingAttentionArguments&, int64_t)) {
  if (parallel) {
    parallel_for(count, [&](int64_t i) { pass(a, i); });
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    pass(a, i);
  }
}

void run(SlidingAttentionArguments a) {
  static thread_local std::vector<float> partials;  // of this stream's thread
  constexpr int64_t SERIAL_WORK = 1 << 18;          // multiplications, about 10 us
  int64_t span = check_offsets(a);
  plan(a, span);
  int64_t heads = int64_t{a.batch} * a.kv_heads, tasks = heads * a.tiles * a.splits;
  int64_t row_work = int64_t{a.batch} * a.length * a.heads * a.head_size;
  const auto& kernel = kernels();
  if (a.splits > 1) {
    auto size = static_cast<size_t>(tasks * a.tile_rows * (a.head_size + 2));
    partials.resize(std::max(partials.size(), size));
    a.partials = partials.data();
  }
  if (a.tiles > 1 || a.splits > 1) {
    for_each(row_work > SERIAL_WORK, heads, a, kernel.sliding_attention_write);
  }
  bool parallel = row_work * std::min<int64_t>(span, a.window) > SERIAL_WORK;
  for_each(parallel, tasks, a, kernel.sliding_attention_attend);
  if (a.splits > 1) {
    for_each(row_work * a.splits > SERIAL_WORK, heads * a.tiles, a,
             kernel.sliding_attention_merge);
  }
}

// The inputs of all outputs of one primitive are the same arrays, held once by each
// output. This lets go of all but the evaluated output's, which MLX does itself as soon
// as eval_cpu returns (array::detach), so that is_donatable() sees what others hold. If
// eval_cpu throws instead, the outputs keep their inputs and can be evaluated again.
class SoleInputs {
 public:
  SoleInputs(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs)
      : inputs_(inputs) {
    bool traced = std::any_of(outputs.begin(), outputs.end(),
                              [](const mx::array& out) { return out.is_tracer(); });
    for (auto& out : outputs) {
      if (!traced && &out.inputs() != &inputs) {
        out.inputs().clear();
        cleared_.push_back(out);
      }
    }
  }
  ~SoleInputs() {
    for (auto& out : cleared_) {
      out.inputs() = inputs_;
    }
  }
  SoleInputs(const SoleInputs&) = delete;
  SoleInputs& operator=(const SoleInputs&) = delete;

  void keep() { cleared_.clear(); }

 private:
  const std::vector<mx::array>& inputs_;
  std::vector<mx::array> cleared_;
};

// Waits until the stream has done what was queued before, at most as long as a ring's
// copy could cost with all that comes with it. A CPU stream may itself be waiting for a
// GPU that gets its work only after this evaluation, so it must not be forever.
void drain(const mx::Stream& s) {
  constexpr auto PATIENCE = std::chrono::milliseconds(100);
  auto done = std::make_shared<std::promise<void>>();
  auto future = done->get_future();
  mx::scheduler::enqueue(s, [done] { done->set_value(); });
  future.wait_for(PATIENCE);
}

class SlidingAttention : public mx::Primitive {
 public:
  SlidingAttention(mx::Stream s, int window, float scale, bool traditional)
      : Primitive(s), window_(window), scale_(scale), traditional_(traditional) {}

  void eval_cpu(const std::vector<mx::array>& inputs,
                std::vector<mx::array>& outputs) override;

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("[sliding_attention] has no GPU kernel");
  }

  DEFINE_NAME(SlidingAttention)

  bool is_equivalent(const Primitive& other) const override {
    const auto& o = static_cast<const SlidingAttention&>(other);
    return window_ == o.window_ && scale_ == o.scale_ && traditional_ == o.traditional_;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {inputs[0].shape(), inputs[3].shape(), inputs[4].shape()};
  }

 private:
  std::optional<RingCopy> take_ring(const mx::array& ring, mx::array& out);

  int window_;
  float scale_;
  bool traditional_;
};

// Gives `out` the buffer of `ring` if nobody else can see it; else a new one, and the
// copy that has to be made.
std::optional<RingCopy> SlidingAttention::take_ring(const mx::array& ring, mx::array& out) {
  if (ring.flags().row_contiguous) {
    // Tasks that are still queued hold the buffers they were made with; that of the last
    // step does when nobody has waited for it.
    if (!ring.is_donatable()) {
      drain(stream());
    }
    if (ring.is_donatable()) {
      out.copy_shared_buffer(ring);
      return std::nullopt;
    }
  }
  copies.fetch_add(1, std::memory_order_relaxed);
  out.set_data(mx::allocator::malloc(out.nbytes()));
  return RingCopy{ring.data<char>(), out.data<char>(), ring.shape(), ring.strides(),
                  ring.itemsize()};
}

void set_strides(int64_t* to, const mx::array& x) {
  std::copy(x.strides().begin(), x.strides().end(), to);
}

void SlidingAttention::eval_cpu(const std::vector<mx::array>& inputs,
                                std::vector<mx::array>& outputs) {
  const auto &q = inputs[0], &k = inputs[1], &v = inputs[2], &offset = inputs[5];
  SoleInputs sole(inputs, outputs);
  outputs[0].set_data(mx::allocator::malloc(outputs[0].nbytes()));
  std::vector<RingCopy> to_copy;
  for (int i : {1, 2}) {
    if (auto copy = take_ring(inputs[i + 2], outputs[i])) {
      to_copy.push_back(std::move(*copy));
    }
  }
  SlidingAttentionArguments a{};
  a.type = float_type(q.dtype());
  a.batch = q.shape(0), a.length = q.shape(1), a.heads = q.shape(2);
  a.kv_heads = k.shape(2), a.head_size = q.shape(3);
  a.capacity = inputs[3].shape(2), a.window = window_;
  a.scale = scale_, a.traditional = traditional_;
  a.q = q.data<void>(), a.k = k.data<void>(), a.v = v.data<void>();
  set_strides(a.q_strides, q), set_strides(a.k_strides, k), set_strides(a.v_strides, v);
  a.offset = offset.data<int64_t>(), a.offset_stride = offset.strides(0);
  if (inputs.size() > 6) {
    const auto &cos = inputs[6], &sin = inputs[7];
    a.cos = cos.data<float>(), a.sin = sin.data<float>();
    set_strides(a.cos_strides, cos), set_strides(a.sin_strides, sin);
    a.cos_strides[0] *= cos.shape(0) > 1, a.sin_strides[0] *= sin.shape(0) > 1;
  }
  a.out = outputs[0].data<void>();
  a.keys = outputs[1].data<void>(), a.values = outputs[2].data<void>();
  mx::cpu::get_command_encoder(stream()).dispatch([a, to_copy = std::move(to_copy)] {
    std::for_each(to_copy.begin(), to_copy.end(), copy_ring);
    run(a);
  });
  sole.keep();
}

}  // namespace

std::tuple<mx::array, mx::array, mx::array> sliding_attention(
    const mx::array& q, const mx::array& k, const mx::array& v, const mx::array& keys,
    const mx::array& values, const mx::array& offset, int window, float scale,
    const std::optional<mx::array>& cos, const std::optional<mx::array>& sin,
    bool traditional, mx::StreamOrDevice s_) {
  std::vector<mx::array> inputs{q, k, v, keys, values, offset};
  check(inputs, window, scale);
  if (cos.has_value() != sin.has_value()) {
    reject(NAME, "cos and sin come together or not at all");
  }
  if (cos) {
    check_table("cos", *cos, q);
    check_table("sin", *sin, q);
    inputs.push_back(*cos);
    inputs.push_back(*sin);
  }
  auto s = mx::to_stream(s_);
  auto outputs =
      use_kernels(s)
          ? mx::array::make_arrays(
                {q.shape(), keys.shape(), values.shape()},
                {q.dtype(), keys.dtype(), values.dtype()},
                std::make_shared<SlidingAttention>(s, window, scale, traditional), inputs)
          : composed(inputs, window, scale, traditional, s);
  return {outputs[0], outputs[1], outputs[2]};
}

int64_t ring_copies() { return copies.load(std::memory_order_relaxed); }

}  // namespace voxfast

#include "sliding_attention.h"

#include <cmath>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "mlx/fast.h"
#include "mlx/primitives.h"
#include "op.h"
#include "sliding_attention_cpu.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "sliding_attention";
constexpr int MAX_HEAD_SIZE = 512;

// Applies RoPE to x [B, L, H, D] in float32, with tables [B or 1, L, D / 2].
mx::array rotate(const mx::array& x, const mx::array& cos_table,
                 const mx::array& sin_table, bool traditional, const mx::Stream& s) {
  int half = x.shape(-1) / 2;
  auto shape = x.shape();
  shape.pop_back();
  shape.push_back(traditional ? half : 2);
  shape.push_back(traditional ? 2 : half);
  int axis = traditional ? -1 : -2;
  auto pairs =
      mx::split(mx::reshape(mx::astype(x, mx::float32, s), shape, s), 2, axis, s);
  auto first = mx::squeeze(pairs[0], axis, s), second = mx::squeeze(pairs[1], axis, s);
  auto cos = mx::expand_dims(cos_table, 2, s);
  auto sin = mx::expand_dims(sin_table, 2, s);
  auto rotated = mx::stack(
      {mx::subtract(mx::multiply(first, cos, s), mx::multiply(second, sin, s), s),
       mx::add(mx::multiply(first, sin, s), mx::multiply(second, cos, s), s)},
      axis, s);
  return mx::astype(mx::reshape(rotated, x.shape(), s), x.dtype(), s);
}

// Writes x [B, L, H_kv, D] to the slots [B, L] of a circular cache [B, H_kv, C, D].
mx::array write_cache(const mx::array& cache, const mx::array& x, const mx::array& slots,
                      const mx::Stream& s) {
  auto index = mx::expand_dims(slots, {1, 3}, s);  // [B, 1, L, 1]
  index = mx::broadcast_to(
      index, {cache.shape(0), cache.shape(1), slots.shape(1), cache.shape(3)}, s);
  return mx::put_along_axis(cache, index, mx::transpose(x, {0, 2, 1, 3}, s), 2, s);
}

// The same computation in MLX's ops, for streams without a kernel.
// Inputs: q, k, v, key cache, value cache, offset[, cos, sin].
std::vector<mx::array> fallback(const std::vector<mx::array>& inputs, int window,
                                float scale, bool traditional, bool causal,
                                const mx::Stream& s) {
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
  auto keys = write_cache(inputs[3], k, slots, s);
  auto values = write_cache(inputs[4], v, slots, s);

  // Slot c now holds the newest position p <= last with p mod C == c; p < 0 means that
  // the slot was never written.
  auto last = mx::expand_dims(
      mx::add(offset, mx::array(static_cast<int64_t>(length - 1)), s), 1, s);
  auto age = mx::remainder(
      mx::subtract(last, mx::arange(0, capacity, 1, mx::int64, s), s), size, s);
  auto slot_positions =
      mx::expand_dims(mx::subtract(last, age, s), {1, 2}, s);  // [B, 1, 1, C]
  // The window ends at the query itself or, if not causal, at the last new position for
  // all queries.
  auto window_end =
      mx::expand_dims(causal ? positions : last, {1, 3}, s);  // [B, 1, L or 1, 1]
  auto before_window =
      mx::subtract(window_end, mx::array(static_cast<int64_t>(window)), s);
  auto mask = mx::logical_and(
      mx::greater_equal(slot_positions, mx::array(static_cast<int64_t>(0)), s),
      mx::logical_and(mx::less_equal(slot_positions, window_end, s),
                      mx::greater(slot_positions, before_window, s), s),
      s);
  auto out =
      mx::fast::scaled_dot_product_attention(mx::transpose(q, {0, 2, 1, 3}, s), keys,
                                             values, scale, "array", mask, {}, false, s);
  return {mx::transpose(out, {0, 2, 1, 3}, s), keys, values};
}

void check_kv(const char* name, const mx::array& x, const mx::array& q) {
  if (x.ndim() != 4 || x.shape(0) != q.shape(0) || x.shape(1) != q.shape(1) ||
      x.shape(3) != q.shape(3)) {
    reject(NAME, name, " must be [B, L, H_kv, D] like q", describe(name, x),
           describe("q", q));
  }
}

void check_cache(const char* name, const mx::array& cache, const mx::array& k) {
  if (cache.ndim() != 4 || cache.shape(0) != k.shape(0) || cache.shape(1) != k.shape(2) ||
      cache.shape(2) < k.shape(1) || cache.shape(3) != k.shape(3)) {
    reject(NAME, name, " must be [B, H_kv, C, D] like k, with C >= L",
           describe(name, cache), describe("k", k));
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
  const char* names[] = {"q", "k", "v", "keys", "values"};
  for (int i = 0; i < 5; ++i) {
    check_size(NAME, names[i], inputs[i].shape());
  }
  if (q.ndim() != 4 || q.size() == 0 || q.shape(3) > MAX_HEAD_SIZE) {
    reject(NAME, "q must be [B, L, H, D], not empty, with D <= ", MAX_HEAD_SIZE,
           describe("q", q));
  }
  check_kv("k", k, q);
  check_kv("v", v, q);
  if (k.shape(2) == 0 || q.shape(2) % k.shape(2) != 0 || v.shape(2) != k.shape(2)) {
    reject(NAME, "the number of heads of q must be a multiple of that of k and v",
           describe("q", q), describe("k", k), describe("v", v));
  }
  check_cache("keys", keys, k);
  check_cache("values", values, v);
  if (keys.shape(2) != values.shape(2)) {
    reject(NAME, "keys and values must have the same capacity", describe("keys", keys),
           describe("values", values));
  }
  for (int i = 1; i < 5; ++i) {
    if (inputs[i].dtype() != q.dtype()) {
      reject(NAME, names[i], " must have the dtype of q", describe(names[i], inputs[i]),
             describe("q", q));
    }
  }
  if (offset.dtype() != mx::int64 || offset.ndim() != 1 ||
      offset.shape(0) != q.shape(0)) {
    reject(NAME, "offset must be [B] of int64", describe("offset", offset));
  }
  if (window < 1 || !std::isfinite(scale)) {
    reject(NAME, "window must be at least 1 and scale finite; got ", window, " and ",
           scale);
  }
}

}  // namespace

std::tuple<mx::array, mx::array, mx::array> sliding_attention(
    const mx::array& q, const mx::array& k, const mx::array& v, const mx::array& keys,
    const mx::array& values, const mx::array& offset, int window, float scale,
    const std::optional<mx::array>& cos, const std::optional<mx::array>& sin,
    bool traditional, bool causal, mx::StreamOrDevice s_) {
  std::vector<mx::array> inputs{q, k, v, keys, values, offset};
  check(inputs, window, scale);
  if (cos.has_value() != sin.has_value()) {
    reject(NAME, "cos and sin must be given together");
  }
  if (cos) {
    check_table("cos", *cos, q);
    check_table("sin", *sin, q);
    inputs.push_back(*cos);
    inputs.push_back(*sin);
  }
  auto s = mx::to_stream(s_);
  auto outputs = use_kernels(s)
                     ? mx::array::make_arrays({q.shape(), keys.shape(), values.shape()},
                                              {q.dtype(), keys.dtype(), values.dtype()},
                                              std::make_shared<SlidingAttention>(
                                                  s, window, scale, traditional, causal),
                                              inputs)
                     : fallback(inputs, window, scale, traditional, causal, s);
  return {outputs[0], outputs[1], outputs[2]};
}

}  // namespace voxfast

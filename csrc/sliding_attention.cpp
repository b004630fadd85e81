#include "sliding_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "composed.h"
#include "mlx/primitives.h"
#include "op.h"
#include "quantized_rows.h"
#include "sliding_attention_cpu.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "sliding_attention";
constexpr int MAX_HEAD_SIZE = 512;
constexpr int64_t MAX_OFFSET = int64_t{1} << 62;

// The rotation of pairs (a, b). Inputs: a, b, cos, sin, and whether a result is the
// second of its pair.
std::vector<mx::array> rotate_pairs(const std::vector<mx::array>& inputs,
                                    const mx::Stream& s) {
  auto a = mx::astype(inputs[0], mx::float32, s);
  auto b = mx::astype(inputs[1], mx::float32, s);
  const auto &cos = inputs[2], &sin = inputs[3], &is_second = inputs[4];
  auto first = mx::subtract(mx::multiply(a, cos, s), mx::multiply(b, sin, s), s);
  auto second = mx::add(mx::multiply(a, sin, s), mx::multiply(b, cos, s), s);
  return {mx::astype(mx::where(is_second, second, first, s), inputs[0].dtype(), s)};
}

// (false, true), along the last axis or the one before it.
const mx::array& is_second_of_pair(bool traditional) {
  static const bool SECOND[] = {false, true};
  static const auto *last = new mx::array(SECOND, {2}),
                    *before = new mx::array(SECOND, {2, 1});
  return traditional ? *last : *before;
}

// Rotates x [B, H, L, D] in float32, with tables [B or 1, L, D / 2]: one dispatch, and
// exact, as the tables are. (mx::fast::rope has float32 angles.)
mx::array rotate_heads(const mx::array& x, const mx::array& cos, const mx::array& sin,
                       bool traditional, const mx::Stream& s) {
  int axis = traditional ? 4 : 3;  // of the members of a pair
  auto shape = x.shape();
  shape.back() = x.shape(-1) / 2;
  shape.insert(shape.begin() + axis, 2);
  auto pairs = mx::split(mx::reshape(x, shape, s), 2, axis, s);
  auto whole = [&](const mx::array& part) { return mx::broadcast_to(part, shape, s); };
  auto rotated = fuse(
      rotate_pairs,
      {whole(pairs[0]), whole(pairs[1]), whole(mx::expand_dims(cos, {1, axis}, s)),
       whole(mx::expand_dims(sin, {1, axis}, s)), whole(is_second_of_pair(traditional))},
      s);
  return mx::reshape(rotated[0], x.shape(), s);
}

// ---- rows of rings --------------------------------------------------------------------

// x [B, H_kv, L, D] as rows of a ring.
mx::array rows_for(const mx::array& ring, const mx::array& x, const mx::Stream& s) {
  return is_quantized(ring) ? quantize_rows(x, s) : x;
}

// The numbers that rows of a ring stand for, of the dtype of q.
mx::array numbers(const mx::array& rows, const mx::array& q, const mx::Stream& s) {
  return is_quantized(rows) ? dequantize_rows(rows, q.dtype(), s) : rows;
}

// ---- offsets known to the host ------------------------------------------------------

// Writes rows x [B, H_kv, L, ...] to positions offset ... of a ring [B, H_kv, C, ...], in
// place if nothing else holds it: one dispatch, or two where the rows wrap around.
mx::array write_ring(const mx::array& ring, const mx::array& x, int64_t offset,
                     const mx::Stream& s) {
  int length = x.shape(2), capacity = ring.shape(2);
  int slot = static_cast<int>(offset % capacity),
      first = std::min(length, capacity - slot);
  auto write = [&](const mx::array& to, int begin, int end, int at) {
    mx::Shape from{0, 0, begin, 0}, until{x.shape(0), x.shape(1), end, x.shape(3)};
    auto rows = mx::slice(x, from, until, s);
    from[2] = at, until[2] = at + end - begin;
    return mx::slice_update(to, rows, from, until, s);
  };
  auto written = write(ring, 0, first, slot);
  return first < length ? write(written, first, length, 0) : written;
}

// Which slots the new rows see. Slots hold consecutive positions up to the last new one,
// in slot `last`, and wrap around.
struct Visibility {
  int rows;   // L, or 1 if all new rows see the same
  int slots;  // S
  int last;
  int window;
  mx::Dtype dtype;

  bool operator==(const Visibility&) const = default;
};

// An additive mask [rows, S]: 0, or minus infinity where a row does not see a slot. It is
// made once per step: its layers ask one after the other. (Additive, as MLX's CUDA
// kernels take no other, and of the dtype of the scores, to be used as it is.)
mx::array mask_of(const Visibility& visibility) {
  static thread_local std::optional<std::pair<Visibility, mx::array>> made;
  if (!made || made->first != visibility) {
    const auto& v = visibility;
    std::vector<float> mask(static_cast<size_t>(v.rows) * v.slots);
    for (int row = 0; row < v.rows; ++row) {
      for (int slot = 0; slot < v.slots; ++slot) {
        int age = (v.last - slot + v.slots) % v.slots - (v.rows - 1 - row);
        bool seen = age >= 0 && age < v.window;
        mask[static_cast<size_t>(row) * v.slots + slot] =
            seen ? 0.0f : -std::numeric_limits<float>::infinity();
      }
    }
    made = {v, mx::array(mask.begin(), {v.rows, v.slots}, v.dtype)};
  }
  return made->second;
}

// Attends from q [B, H, L, D] to the ring's newest positions, the last L of which are
// q's. A slice of the ring where the seen positions do not wrap around, and a mask only
// if a row is given slots that it must not see.
mx::array attend_ring(const mx::array& q, const mx::array& keys, const mx::array& values,
                      int64_t offset, int window, float scale, bool causal,
                      const mx::Stream& s) {
  int length = q.shape(2), capacity = keys.shape(2);
  int64_t newest = offset + length - 1, oldest = (causal ? offset : newest) - window + 1;
  int first = static_cast<int>(std::max<int64_t>(oldest, 0) % capacity);
  int last = static_cast<int>(newest % capacity);
  auto begin = mx::Shape{0, 0, 0, 0}, end = keys.shape();
  if (first <= last) {
    begin[2] = first, end[2] = last + 1;
  }
  Visibility seen{causal ? length : 1, end[2] - begin[2], last - begin[2], window,
                  q.dtype()};
  bool in_order = seen.last == seen.slots - 1, all_in_window = seen.slots <= window;
  std::string mode;
  std::optional<mx::array> mask;
  if (seen.rows > 1 && in_order && all_in_window) {
    mode = "causal";
  } else if (seen.rows > 1 || !all_in_window) {
    mode = "array", mask = mask_of(seen);
  }
  return attend(q, numbers(mx::slice(keys, begin, end, s), q, s),
                numbers(mx::slice(values, begin, end, s), q, s), scale, mode, mask, s);
}

// ---- offsets in an array ------------------------------------------------------------

// Writes rows x [B, H_kv, L, ...] to the slots [B, L] of a ring [B, H_kv, C, ...].
mx::array write_slots(const mx::array& ring, const mx::array& x, const mx::array& slots,
                      const mx::Stream& s) {
  auto index = mx::expand_dims(slots, {1, 3}, s);  // [B, 1, L, 1]
  return mx::put_along_axis(ring, mx::broadcast_to(index, x.shape(), s), x, 2, s);
}

// The mask [B, 1, L or 1, C] of new positions [B, L], of which last [B, 1] are the last.
mx::array mask_of(const mx::array& positions, const mx::array& last, int capacity,
                  int window, bool causal, const mx::Stream& s) {
  auto size = mx::array(static_cast<int64_t>(capacity));
  // Slot c holds the newest position p <= last with p mod C == c; p < 0 means that the
  // slot was never written.
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
  return mx::logical_and(
      mx::greater_equal(slot_positions, mx::array(static_cast<int64_t>(0)), s),
      mx::logical_and(mx::less_equal(slot_positions, window_end, s),
                      mx::greater(slot_positions, before_window, s), s),
      s);
}

// ---- the op in MLX's ops, for streams without a kernel --------------------------------

// Inputs: q, k, v, keys, values[, cos, sin].
std::vector<mx::array> compose(const std::vector<mx::array>& inputs, const Offset& offset,
                               int window, float scale, bool traditional, bool causal,
                               const mx::Stream& s) {
  auto heads_first = [&](const mx::array& x) {
    return mx::transpose(x, {0, 2, 1, 3}, s);
  };
  auto q = heads_first(inputs[0]), k = heads_first(inputs[1]), v = heads_first(inputs[2]);
  auto keys = inputs[3], values = inputs[4];
  if (inputs.size() > 5) {
    q = rotate_heads(q, inputs[5], inputs[6], traditional, s);
    k = rotate_heads(k, inputs[5], inputs[6], traditional, s);
  }
  k = rows_for(keys, k, s), v = rows_for(values, v, s);
  if (const auto* start = std::get_if<int64_t>(&offset)) {
    keys = write_ring(keys, k, *start, s);
    values = write_ring(values, v, *start, s);
    auto out = attend_ring(q, keys, values, *start, window, scale, causal, s);
    return {heads_first(out), keys, values};
  }
  int length = q.shape(2), capacity = keys.shape(2);
  auto positions = mx::add(mx::expand_dims(std::get<mx::array>(offset), 1, s),
                           mx::arange(0, length, 1, mx::int64, s), s);  // [B, L]
  auto slots = mx::remainder(positions, mx::array(static_cast<int64_t>(capacity)), s);
  keys = write_slots(keys, k, slots, s);
  values = write_slots(values, v, slots, s);
  auto last = mx::slice(positions, {0, length - 1}, {positions.shape(0), length}, s);
  auto mask = mask_of(positions, last, capacity, window, causal, s);
  auto out =
      attend(q, numbers(keys, q, s), numbers(values, q, s), scale, "array", mask, s);
  return {heads_first(out), keys, values};
}

void check_dtype(const char* name, const mx::array& x, const mx::array& q) {
  if (x.dtype() != q.dtype()) {
    reject(NAME, name, " must have the dtype of q", describe(name, x), describe("q", q));
  }
}

void check_kv(const char* name, const mx::array& x, const mx::array& q) {
  if (x.ndim() != 4 || x.shape(0) != q.shape(0) || x.shape(1) != q.shape(1) ||
      x.shape(3) != q.shape(3)) {
    reject(NAME, name, " must be [B, L, H_kv, D] like q", describe(name, x),
           describe("q", q));
  }
}

// The rings of a sequence that gets `length` new positions.
void check_rings(const mx::array& keys, const mx::array& values, const mx::array& k,
                 int length) {
  for (auto [name, ring] : {std::pair{"keys", &keys}, std::pair{"values", &values}}) {
    check_size(NAME, name, ring->shape());
    if (ring->ndim() != 4 || ring->shape(0) != k.shape(0) ||
        ring->shape(1) != k.shape(2) || ring->shape(2) < length ||
        ring->shape(3) != ring_row_size(*ring, k.shape(3))) {
      reject(NAME, name, " must be [B, H_kv, C, D] like k or [B, H_kv, C, D + ",
             SCALE_BYTES, "] of int8, with C >= L", describe(name, *ring),
             describe("k", k));
    }
    if (!is_quantized(*ring)) {
      check_dtype(name, *ring, k);
    }
  }
  if (keys.shape() != values.shape() || keys.dtype() != values.dtype()) {
    reject(NAME, "keys and values must have the same capacity and dtype",
           describe("keys", keys), describe("values", values));
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

void check(const mx::array& q, const mx::array& k, const mx::array& v, int window,
           float scale) {
  if (!is_kernel_float(q.dtype())) {
    reject(NAME, "q must be float32, float16 or bfloat16", describe("q", q));
  }
  check_size(NAME, "q", q.shape());
  check_size(NAME, "k", k.shape());
  check_size(NAME, "v", v.shape());
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
  check_dtype("k", k, q);
  check_dtype("v", v, q);
  if (window < 1 || !std::isfinite(scale)) {
    reject(NAME, "window must be at least 1 and scale finite; got ", window, " and ",
           scale);
  }
}

// Offsets in an array are checked at evaluation.
void check_offset(const mx::array& offset, int batch) {
  if (offset.dtype() != mx::int64 || offset.ndim() != 1 || offset.shape(0) != batch) {
    reject(NAME, "offset must be [B] of int64", describe("offset", offset));
  }
}

void check_offset(int64_t start, int64_t length, int64_t capacity, int window) {
  if (start < 0 || start > MAX_OFFSET) {
    reject(NAME, "offset must be in 0 ... 2^62; got ", start);
  }
  int64_t needed = std::min(start, int64_t{window} - 1) + length;
  if (capacity < needed) {
    reject(NAME, "a ring of capacity ", capacity, " is too small for ", length,
           " new positions at offset ", start, " with a window of ", window,
           "; it needs a capacity of ", needed);
  }
}

// Each stream has rows of its own, together all those of q [1, R, H, D].
void check_streams(const mx::array& q, const std::vector<mx::array>& keys,
                   const std::vector<mx::array>& values,
                   const std::vector<int64_t>& offsets, const std::vector<int>& lengths) {
  size_t streams = lengths.size();
  if (streams == 0 || keys.size() != streams || values.size() != streams ||
      offsets.size() != streams) {
    reject(NAME, "keys, values, offsets and lengths must be of one or more streams; got ",
           keys.size(), ", ", values.size(), ", ", offsets.size(), " and ", streams);
  }
  int64_t rows = 0;
  for (int length : lengths) {
    if (length < 1) {
      reject(NAME, "a stream must have at least one row; got ", length);
    }
    rows += length;
  }
  if (q.shape(0) != 1 || q.shape(1) != rows) {
    reject(NAME, "q must be [1, R, H, D], with the ", rows, " rows of the streams",
           describe("q", q));
  }
}

// Rows first ... first + count - 1 of x [1, R, ...].
mx::array rows_of(const mx::array& x, int first, int count, const mx::Stream& s) {
  mx::Shape from(x.ndim(), 0), until = x.shape();
  from[1] = first, until[1] = first + count;
  return mx::slice(x, from, until, s);
}

// The offset of each sequence, [B].
mx::array offsets_of(const Offset& offset, int batch) {
  if (const auto* array = std::get_if<mx::array>(&offset)) {
    return *array;
  }
  std::vector<int64_t> same(batch, std::get<int64_t>(offset));
  return mx::array(same.begin(), {batch}, mx::int64);
}

}  // namespace

std::tuple<mx::array, mx::array, mx::array> sliding_attention(
    const mx::array& q, const mx::array& k, const mx::array& v, const mx::array& keys,
    const mx::array& values, const Offset& offset, int window, float scale,
    const std::optional<mx::array>& cos, const std::optional<mx::array>& sin,
    bool traditional, bool causal, mx::StreamOrDevice s_) {
  std::vector<mx::array> inputs{q, k, v, keys, values};
  check(q, k, v, window, scale);
  check_rings(keys, values, k, q.shape(1));
  if (const auto* start = std::get_if<int64_t>(&offset)) {
    check_offset(*start, q.shape(1), keys.shape(2), window);
  } else {
    check_offset(std::get<mx::array>(offset), q.shape(0));
  }
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
  if (!use_kernels(s)) {
    auto outputs = compose(inputs, offset, window, scale, traditional, causal, s);
    return {outputs[0], outputs[1], outputs[2]};
  }
  inputs.insert(inputs.begin() + 5, offsets_of(offset, q.shape(0)));
  auto outputs = mx::array::make_arrays(
      {q.shape(), keys.shape(), values.shape()},
      {q.dtype(), keys.dtype(), values.dtype()},
      std::make_shared<SlidingAttention>(s, window, scale, traditional, causal), inputs);
  return {outputs[0], outputs[1], outputs[2]};
}

std::tuple<mx::array, std::vector<mx::array>, std::vector<mx::array>> sliding_attentions(
    const mx::array& q, const mx::array& k, const mx::array& v,
    const std::vector<mx::array>& keys, const std::vector<mx::array>& values,
    const std::vector<int64_t>& offsets, const std::vector<int>& lengths, int window,
    float scale, const std::optional<mx::array>& cos, const std::optional<mx::array>& sin,
    bool traditional, bool causal, mx::StreamOrDevice s_) {
  check(q, k, v, window, scale);
  check_streams(q, keys, values, offsets, lengths);
  for (size_t i = 0; i < lengths.size(); ++i) {
    check_rings(keys[i], values[i], k, lengths[i]);
    check_offset(offsets[i], lengths[i], keys[i].shape(2), window);
  }
  if (cos.has_value() != sin.has_value()) {
    reject(NAME, "cos and sin must be given together");
  }
  if (cos) {
    check_table("cos", *cos, q);
    check_table("sin", *sin, q);
  }
  auto s = mx::to_stream(s_);
  std::vector<mx::array> inputs{q, k, v};
  if (cos) {
    inputs.insert(inputs.end(), {*cos, *sin});
  }
  std::vector<mx::array> outs, new_keys, new_values;
  if (!use_kernels(s)) {
    int first = 0;
    for (size_t i = 0; i < lengths.size(); first += lengths[i++]) {
      std::vector<mx::array> part;
      for (const auto& x : inputs) {
        part.push_back(rows_of(x, first, lengths[i], s));
      }
      part.insert(part.begin() + 3, {keys[i], values[i]});
      auto done = compose(part, offsets[i], window, scale, traditional, causal, s);
      outs.push_back(done[0]);
      new_keys.push_back(done[1]);
      new_values.push_back(done[2]);
    }
    return {mx::concatenate(outs, 1, s), new_keys, new_values};
  }
  std::vector<mx::Shape> shapes{q.shape()};
  std::vector<mx::Dtype> dtypes{q.dtype()};
  for (size_t i = 0; i < lengths.size(); ++i) {
    for (const auto& ring : {keys[i], values[i]}) {
      inputs.push_back(ring);
      shapes.push_back(ring.shape());
      dtypes.push_back(ring.dtype());
    }
  }
  auto outputs =
      mx::array::make_arrays(std::move(shapes), dtypes,
                             std::make_shared<SlidingAttentions>(
                                 s, offsets, lengths, window, scale, traditional, causal),
                             inputs);
  for (size_t i = 0; i < lengths.size(); ++i) {
    new_keys.push_back(outputs[1 + 2 * i]);
    new_values.push_back(outputs[2 + 2 * i]);
  }
  return {outputs[0], new_keys, new_values};
}

mx::array rotate(const mx::array& x, const mx::array& cos, const mx::array& sin,
                 bool traditional, mx::StreamOrDevice s_) {
  if (!is_kernel_float(x.dtype()) || x.ndim() != 4 || x.shape(3) % 2 != 0) {
    reject("rotate", "x must be [B, L, H, D] of float32, float16 or bfloat16, D even",
           describe("x", x));
  }
  for (auto [name, table] : {std::pair{"cos", &cos}, std::pair{"sin", &sin}}) {
    auto fits = [&](int axis) {
      return table->shape(axis) == 1 || table->shape(axis) == x.shape(axis);
    };
    if (table->dtype() != mx::float32 || table->ndim() != 3 || !fits(0) || !fits(1) ||
        table->shape(2) * 2 != x.shape(3)) {
      reject("rotate", name, " must be [1 or B, 1 or L, D / 2] of float32",
             describe(name, *table), describe("x", x));
    }
  }
  auto s = mx::to_stream(s_);
  auto rotated =
      rotate_heads(mx::transpose(x, {0, 2, 1, 3}, s), cos, sin, traditional, s);
  return mx::transpose(rotated, {0, 2, 1, 3}, s);
}

}  // namespace voxfast

#include "alignment_frame.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "composed.h"
#include "cpu.h"
#include "kernels/alignment_frame_arguments.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"
#include "op.h"
#include "quantized_rows.h"
#include "threads.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "alignment_frame";
constexpr int MAX_HEAD_SIZE = 512;

using Heads = std::vector<std::vector<int>>;

size_t count_heads(const Heads& heads) {
  size_t n = 0;
  for (const auto& layer : heads) {
    n += layer.size();
  }
  return n;
}

// The layers that can share a product: those with heads of one size and dtype.
using Layers = std::vector<size_t>;

std::vector<Layers> alike_layers(const std::vector<mx::array>& queries) {
  std::vector<Layers> found;
  for (size_t i = 0; i < queries.size(); ++i) {
    auto alike = [&](const Layers& others) {
      const auto& q = queries[others[0]];
      return q.shape(3) == queries[i].shape(3) && q.dtype() == queries[i].dtype();
    };
    auto layers = std::find_if(found.begin(), found.end(), alike);
    if (layers == found.end()) {
      found.push_back({i});
    } else {
      layers->push_back(i);
    }
  }
  return found;
}

mx::array take_heads(const std::vector<mx::array>& layers, const std::vector<int>& heads,
                     const mx::Stream& s) {
  auto all = layers.size() == 1 ? layers[0] : mx::concatenate(layers, 1, s);
  auto index = mx::array(heads.data(), {static_cast<int>(heads.size())});
  // In half precision, rounding of the scores would cause ties.
  return mx::astype(mx::take(all, index, 1, s), mx::float32, s);
}

// Minus infinity in the place of NaN. Inputs: scores.
std::vector<mx::array> without_nan(const std::vector<mx::array>& inputs,
                                   const mx::Stream& s) {
  auto lowest = mx::array(-std::numeric_limits<float>::infinity());
  return {mx::where(mx::isnan(inputs[0], s), lowest, inputs[0], s)};
}

// The positions [B, n, L] that the n heads of some layers attend to, in one product.
mx::array frames_of(const Layers& layers, const std::vector<mx::array>& queries,
                    const std::vector<mx::array>& keys, const Heads& heads, int first,
                    int count, const mx::Stream& s) {
  std::vector<mx::array> used_queries, used_keys;
  std::vector<int> query_heads, key_heads;
  int n_query_heads = 0, n_key_heads = 0;
  for (size_t i : layers) {
    const auto &q = queries[i], &k = keys[i];
    auto [least, most] = std::minmax_element(heads[i].begin(), heads[i].end());
    int group = q.shape(1) / k.shape(1), begin = *least / group, end = *most / group + 1;
    for (int head : heads[i]) {
      query_heads.push_back(n_query_heads + head);
      key_heads.push_back(n_key_heads + head / group - begin);
    }
    n_query_heads += q.shape(1), n_key_heads += end - begin;
    used_queries.push_back(q);
    auto used = mx::slice(k, {0, begin, first, 0},
                          {k.shape(0), end, first + count, k.shape(3)}, s);
    used_keys.push_back(is_quantized(k) ? dequantize_rows(used, mx::float32, s) : used);
  }
  auto scores =
      mx::matmul(take_heads(used_queries, query_heads, s),
                 mx::swapaxes(take_heads(used_keys, key_heads, s), -1, -2, s), s);
  return mx::argmax(fuse(without_nan, {scores}, s)[0], -1, false, s);
}

// The op composed of MLX's ops, for GPU streams.
mx::array compose(const std::vector<mx::array>& queries,
                  const std::vector<mx::array>& keys, const Heads& heads, int first,
                  int count, const mx::Stream& s) {
  std::vector<mx::array> frames;
  for (const auto& layers : alike_layers(queries)) {
    frames.push_back(frames_of(layers, queries, keys, heads, first, count, s));
  }
  auto all = frames.size() == 1 ? frames[0] : mx::concatenate(frames, 1, s);
  int middle = static_cast<int>(count_heads(heads) / 2);
  auto median = mx::slice(mx::sort(all, 1, s), {0, middle, 0},
                          {all.shape(0), middle + 1, all.shape(2)}, s);
  return mx::view(mx::squeeze(median, 1, s), mx::int32, s);
}

// A call on a CPU stream. Tiles write the heads' frames, whose median is the result.
struct Call {
  std::vector<AlignmentTile> tiles;
  std::vector<int32_t> frames;  // [B, L, n]
  int64_t n;
  int64_t multiplications = 0;
  int32_t* out;  // [B, L]
};

void run(Call& call) {
  constexpr int64_t SERIAL_WORK = 1 << 18;  // multiplications, about 10 us
  auto kernel = kernels().alignment_frame;
  auto size = static_cast<int64_t>(call.tiles.size());
  if (call.multiplications > SERIAL_WORK) {
    parallel_for(size, [&](int64_t i) { kernel(call.tiles[i]); });
  } else {
    std::for_each(call.tiles.begin(), call.tiles.end(), kernel);
  }
  for (auto row = call.frames.begin(); row != call.frames.end(); row += call.n) {
    auto middle = row + call.n / 2;
    std::nth_element(row, middle, row + call.n);
    *call.out++ = *middle;
  }
}

class AlignmentFrame : public mx::Primitive {
 public:
  AlignmentFrame(mx::Stream s, Heads heads, int first, int count)
      : Primitive(s), heads_(std::move(heads)), first_(first), count_(count) {}

  void eval_cpu(const std::vector<mx::array>& inputs,
                std::vector<mx::array>& outputs) override {
    auto& out = outputs[0];
    out.set_data(allocate(NAME, out.nbytes()));
    auto call = std::make_shared<Call>();
    call->n = static_cast<int64_t>(count_heads(heads_));
    call->frames.resize(out.size() * call->n);
    call->out = out.data<int32_t>();
    int64_t column = 0;
    for (size_t i = 0; i < heads_.size(); ++i) {
      add_layer(*call, inputs[i], inputs[heads_.size() + i], heads_[i], column);
      column += static_cast<int64_t>(heads_[i].size());
    }
    mx::cpu::get_command_encoder(stream()).dispatch([call] { run(*call); });
  }
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("[alignment_frame] has no GPU kernel");
  }

  const char* name() const override { return "VoxfastAlignmentFrame"; }
  bool is_equivalent(const mx::Primitive& other) const override {
    const auto& o = static_cast<const AlignmentFrame&>(other);
    return heads_ == o.heads_ && first_ == o.first_ && count_ == o.count_;
  }
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return {{inputs[0].shape(0), inputs[0].shape(2)}};
  }

 private:
  // Adds the tiles of a layer. Its heads are columns `column` ... of call.frames.
  void add_layer(Call& call, const mx::array& q, const mx::array& k,
                 const std::vector<int>& heads, int64_t column) const {
    int group = q.shape(1) / k.shape(1), max_queries = kernels().lanes / 2;
    auto at = [](const mx::array& x, int64_t b, int64_t head,
                 int64_t row) -> const void* {
      int64_t element = b * x.strides(0) + head * x.strides(1) + row * x.strides(2);
      return x.data<char>() + element * static_cast<int64_t>(x.itemsize());
    };
    for (int64_t b = 0; b < q.shape(0); ++b) {
      for (int h = 0; h < k.shape(1); ++h) {
        AlignmentTile tile{};
        tile.type = float_type(q.dtype()), tile.quantized = is_quantized(k);
        tile.head_size = q.shape(3), tile.count = count_;
        tile.keys = at(k, b, h, first_);
        tile.key_stride = k.strides(2), tile.key_element_stride = k.strides(3);
        tile.query_element_stride = q.strides(3);
        auto flush = [&] {
          if (tile.n_queries > 0) {
            call.tiles.push_back(tile);
            call.multiplications += int64_t{tile.n_queries} * count_ * tile.head_size;
            tile.n_queries = 0;
          }
        };
        for (size_t j = 0; j < heads.size(); ++j) {
          for (int64_t l = 0; heads[j] / group == h && l < q.shape(2); ++l) {
            tile.queries[tile.n_queries] = at(q, b, heads[j], l);
            tile.frames[tile.n_queries] = call.frames.data() +
                                          (b * q.shape(2) + l) * call.n + column +
                                          static_cast<int64_t>(j);
            if (++tile.n_queries == max_queries) {
              flush();
            }
          }
        }
        flush();
      }
    }
  }

  Heads heads_;
  int first_, count_;
};

void check_layer(const mx::array& q, const mx::array& k, const std::vector<int>& heads,
                 int first, int count) {
  if (!is_kernel_float(q.dtype()) || (k.dtype() != q.dtype() && !is_quantized(k))) {
    reject(NAME,
           "queries and keys must be float32, float16 or bfloat16, both the same, "
           "or keys int8",
           describe("queries", q), describe("keys", k));
  }
  check_size(NAME, "queries", q.shape());
  check_size(NAME, "keys", k.shape());
  if (q.ndim() != 4 || q.size() == 0 || q.shape(3) > MAX_HEAD_SIZE) {
    reject(NAME, "queries must be [B, H, L, D], not empty, with D <= ", MAX_HEAD_SIZE,
           describe("queries", q));
  }
  if (k.ndim() != 4 || k.shape(0) != q.shape(0) ||
      k.shape(3) != ring_row_size(k, q.shape(3)) || k.shape(1) == 0 ||
      q.shape(1) % k.shape(1) != 0) {
    reject(NAME, "keys must be [B, H_kv, S, D] like queries or [B, H_kv, S, D + ",
           SCALE_BYTES, "] of int8, H a multiple of H_kv", describe("keys", k),
           describe("queries", q));
  }
  if (first < 0 || count < 1 || k.shape(2) - first < count) {
    reject(NAME, "first must be >= 0, count >= 1 and first + count <= S; got ", first,
           " and ", count, describe("keys", k));
  }
  if (heads.empty()) {
    reject(NAME, "every layer needs at least one head");
  }
  for (auto head = heads.begin(); head != heads.end(); ++head) {
    if (*head < 0 || *head >= q.shape(1)) {
      reject(NAME, "head ", *head, " is out of range", describe("queries", q));
    }
    if (std::find(heads.begin(), head, *head) != head) {
      reject(NAME, "head ", *head, " is given twice for one layer");
    }
  }
}

}  // namespace

mx::array alignment_frame(const std::vector<mx::array>& queries,
                          const std::vector<mx::array>& keys, const Heads& heads,
                          int first, int count, mx::StreamOrDevice s_) {
  if (queries.empty() || queries.size() != keys.size() ||
      queries.size() != heads.size()) {
    reject(NAME, "queries, keys and heads must have one entry per layer each; got ",
           queries.size(), ", ", keys.size(), " and ", heads.size());
  }
  for (size_t i = 0; i < heads.size(); ++i) {
    check_layer(queries[i], keys[i], heads[i], first, count);
    if (queries[i].shape(0) != queries[0].shape(0) ||
        queries[i].shape(2) != queries[0].shape(2)) {
      reject(NAME, "B and L must be the same for all layers",
             describe("queries", queries[i]),
             describe("queries of the first layer", queries[0]));
    }
  }
  auto s = mx::to_stream(s_);
  if (!use_kernels(s)) {
    return compose(queries, keys, heads, first, count, s);
  }
  auto inputs = queries;
  inputs.insert(inputs.end(), keys.begin(), keys.end());
  return mx::array({queries[0].shape(0), queries[0].shape(2)}, mx::int32,
                   std::make_shared<AlignmentFrame>(s, heads, first, count),
                   std::move(inputs));
}

}  // namespace voxfast

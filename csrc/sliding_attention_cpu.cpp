#include "sliding_attention_cpu.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>
#include <optional>

#include "cpu.h"
#include "kernels/sliding_attention_arguments.h"
#include "mlx/backend/cpu/encoder.h"
#include "op.h"
#include "sliding_attention.h"
#include "threads.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "sliding_attention";

std::atomic<int64_t> copies{0};

// A ring to copy before new keys or values are written to it.
struct RingCopy {
  const char* from;
  char* to;
  mx::Shape shape;      // [B, H_kv, C, D]
  mx::Strides strides;  // of `from`, in elements
  size_t itemsize;
};

void copy_ring(const RingCopy& ring) {
  const auto& shape = ring.shape;
  size_t row_bytes = shape[3] * ring.itemsize;
  int64_t step = ring.strides[3] * static_cast<int64_t>(ring.itemsize);
  bool contiguous = ring.strides[3] == 1;
  parallel_for(int64_t{shape[0]} * shape[1], [&](int64_t head) {
    int64_t start = head / shape[1] * ring.strides[0] + head % shape[1] * ring.strides[1];
    char* to = ring.to + head * shape[2] * row_bytes;
    for (int64_t slot = 0; slot < shape[2]; ++slot, to += row_bytes) {
      const char* from = ring.from + (start + slot * ring.strides[2]) *
                                         static_cast<int64_t>(ring.itemsize);
      if (contiguous) {
        std::memcpy(to, from, row_bytes);
        continue;
      }
      for (int d = 0; d < shape[3]; ++d) {
        std::memcpy(to + d * ring.itemsize, from + d * step, ring.itemsize);
      }
    }
  });
}

// Checks the offsets, whose values are known only at evaluation. Returns the largest
// number of keys that the queries of a sequence attend to.
int64_t check_offsets(const SlidingAttentionArguments& a) {
  constexpr int64_t MAX_OFFSET = int64_t{1} << 62;
  int64_t max_span = 0;
  for (int b = 0; b < a.batch; ++b) {
    int64_t offset = a.offset[b * a.offset_stride];
    if (offset < 0 || offset > MAX_OFFSET) {
      reject(NAME, "offset must be in 0 ... 2^62; got ", offset);
    }
    int64_t span = std::min(offset, int64_t{a.window} - 1) + a.length;
    if (a.capacity < span) {
      reject(NAME, "a ring of capacity ", a.capacity, " is too small for ", a.length,
             " new positions at offset ", offset, " with a window of ", a.window,
             "; it needs a capacity of ", span);
    }
    max_span = std::max(max_span, span);
  }
  return max_span;
}

// Plans tiles that fit the kernels' scratch memory and, for one sequence, tasks for all
// threads. The plan does not change the bits of a row.
void plan(SlidingAttentionArguments& a, int64_t span) {
  int queries = a.length * (a.heads / a.kv_heads), lanes = kernels().lanes;
  int64_t wanted = num_threads() == 1 ? 1 : 4 * num_threads();
  int padded = 64;
  while (padded < a.head_size) {
    padded *= 2;
  }
  // The fewest tiles that fit the scratch memory and occupy the threads, of similar size.
  int max_span = std::min(MANY_QUERIES_FLOATS / padded, queries);
  int64_t tiles = std::max<int64_t>((queries + max_span - 1) / max_span,
                                    (wanted + a.kv_heads - 1) / a.kv_heads);
  int balanced = static_cast<int>((queries + tiles - 1) / tiles);
  a.tile_queries =
      std::min(std::max((balanced + lanes - 1) / lanes * lanes, 2 * lanes), max_span);
  a.tiles = (queries + a.tile_queries - 1) / a.tile_queries;
  int64_t tasks = int64_t{a.kv_heads} * a.tiles;
  a.runs = static_cast<int>(
      std::max<int64_t>(1, std::min((wanted + tasks - 1) / tasks, span / SPLIT_KEYS)));
  a.splits = static_cast<int>((span + SPLIT_KEYS - 2) / SPLIT_KEYS + 1);
  a.partial_size = (a.head_size + 2 * lanes - 1) / (2 * lanes) * (2 * lanes) + 2;
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
  static thread_local std::vector<float>
      partials;                             // one per stream, as MLX gives each a thread
  constexpr int64_t SERIAL_WORK = 1 << 18;  // multiplications, about 10 us
  int64_t span = check_offsets(a);
  plan(a, span);
  int64_t heads = int64_t{a.batch} * a.kv_heads, tiles = heads * a.tiles;
  int64_t output_size = int64_t{a.batch} * a.length * a.heads * a.head_size;
  const auto& kernel = kernels();
  if (a.runs > 1) {
    auto size = static_cast<size_t>(tiles * a.splits * a.tile_queries * a.partial_size);
    partials.resize(std::max(partials.size(), size));
    a.partials = partials.data();
  }
  if (a.tiles > 1 || a.runs > 1) {
    for_each(output_size > SERIAL_WORK, heads, a, kernel.sliding_attention_write);
  }
  bool parallel = output_size * std::min<int64_t>(span, a.window) > SERIAL_WORK;
  for_each(parallel, tiles * a.runs, a, kernel.sliding_attention_attend);
  if (a.runs > 1) {
    for_each(output_size * a.splits > SERIAL_WORK, tiles, a,
             kernel.sliding_attention_merge);
  }
}

// Sibling outputs of a primitive share its inputs, and each holds a reference to them.
// This drops the references of all but the evaluated output, so that is_donatable() is
// true for rings that nothing else holds. MLX drops them anyway once eval_cpu returns
// (array::detach). If eval_cpu throws, the destructor restores them, and the outputs can
// be evaluated again.
class DropSiblingInputs {
 public:
  DropSiblingInputs(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs)
      : inputs_(inputs) {
    auto evaluated = [&](const mx::array& out) { return &out.inputs() == &inputs; };
    auto traced = [](const mx::array& out) { return out.is_tracer(); };
    if (std::none_of(outputs.begin(), outputs.end(), evaluated) ||
        std::any_of(outputs.begin(), outputs.end(), traced)) {
      return;  // no output owns `inputs`, or a transformation still needs the graph
    }
    for (auto& out : outputs) {
      if (!evaluated(out)) {
        out.inputs().clear();
        cleared_.push_back(out);
      }
    }
  }
  ~DropSiblingInputs() {
    for (auto& out : cleared_) {
      out.inputs() = inputs_;
    }
  }
  DropSiblingInputs(const DropSiblingInputs&) = delete;
  DropSiblingInputs& operator=(const DropSiblingInputs&) = delete;

  void keep() { cleared_.clear(); }

 private:
  const std::vector<mx::array>& inputs_;
  std::vector<mx::array> cleared_;
};

// Waits until the stream has run the tasks queued so far. Where there is a GPU the wait
// has a timeout: the stream may itself wait for GPU work that is submitted only after
// this call.
void wait_for_stream(const mx::Stream& s) {
  constexpr auto TIMEOUT = std::chrono::milliseconds(100);
  static const bool cpu_only = !mx::is_available(mx::Device::gpu);
  auto done = std::make_shared<std::promise<void>>();
  auto future = done->get_future();
  mx::scheduler::enqueue(s, [done] { done->set_value(); });
  if (cpu_only) {
    future.wait();
  } else {
    future.wait_for(TIMEOUT);
  }
}

// Donates the buffer of `ring` to `out` if nothing else references it. Otherwise
// allocates one, and returns the copy to make.
std::optional<RingCopy> donate_ring(const mx::array& ring, mx::array& out,
                                    const mx::Stream& s) {
  if (ring.flags().row_contiguous) {
    // Queued tasks hold references to their buffers. The previous step's task may still
    // be queued if its result was not waited for.
    if (!ring.is_donatable()) {
      wait_for_stream(s);
    }
    if (ring.is_donatable()) {
      out.copy_shared_buffer(ring);
      return std::nullopt;
    }
  }
  copies.fetch_add(1, std::memory_order_relaxed);
  out.set_data(allocate(NAME, out.nbytes()));
  return RingCopy{ring.data<char>(), out.data<char>(), ring.shape(), ring.strides(),
                  ring.itemsize()};
}

void set_strides(int64_t* to, const mx::array& x) {
  std::copy(x.strides().begin(), x.strides().end(), to);
}

}  // namespace

void SlidingAttention::eval_cpu(const std::vector<mx::array>& inputs,
                                std::vector<mx::array>& outputs) {
  const auto &q = inputs[0], &k = inputs[1], &v = inputs[2], &offset = inputs[5];
  DropSiblingInputs siblings(inputs, outputs);
  outputs[0].set_data(allocate(NAME, outputs[0].nbytes()));
  std::vector<RingCopy> to_copy;
  for (int i : {1, 2}) {
    if (auto copy = donate_ring(inputs[i + 2], outputs[i], stream())) {
      to_copy.push_back(std::move(*copy));
    }
  }
  SlidingAttentionArguments a{};
  a.type = float_type(q.dtype());
  a.batch = q.shape(0), a.length = q.shape(1), a.heads = q.shape(2);
  a.kv_heads = k.shape(2), a.head_size = q.shape(3);
  a.capacity = inputs[3].shape(2), a.window = window_;
  a.scale = scale_, a.traditional = traditional_, a.causal = causal_;
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
  siblings.keep();
}

int64_t ring_copies() { return copies.load(std::memory_order_relaxed); }

}  // namespace voxfast

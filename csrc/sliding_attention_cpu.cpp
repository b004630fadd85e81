#include "sliding_attention_cpu.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <iterator>
#include <memory>
#include <optional>

#include "cpu.h"
#include "kernels/sliding_attention_arguments.h"
#include "mlx/backend/cpu/encoder.h"
#include "op.h"
#include "quantized_rows.h"
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
  mx::Shape shape;      // [B, H_kv, C, D], quantized D + 4
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

// Plans tiles that fit the kernels' scratch memory and, for one of `sequences`, its share
// of the tasks for all threads. The plan does not change the bits of a row.
void plan(SlidingAttentionArguments& a, int64_t span, int64_t sequences) {
  int queries = a.length * (a.heads / a.kv_heads), lanes = kernels().lanes;
  int64_t wanted =
      num_threads() == 1 ? 1 : (4 * num_threads() + sequences - 1) / sequences;
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

// The attention of one stream within an op, and its offset if the host knows it.
struct Part {
  SlidingAttentionArguments arguments;
  int64_t offset;
};

// A pass of the kernels over several parts, as one range of tasks.
class Tasks {
 public:
  using Pass = void (*)(const SlidingAttentionArguments&, int64_t);

  explicit Tasks(Pass pass) : pass_(pass) {}

  void add(const SlidingAttentionArguments& a, int64_t count, int64_t work) {
    parts_.push_back({&a, count_});
    count_ += count;
    work_ += work;
  }

  void run() const {
    constexpr int64_t SERIAL_WORK = 1 << 18;  // multiplications, about 10 us
    if (work_ > SERIAL_WORK) {
      parallel_for(count_, [&](int64_t task) { run(task); });
      return;
    }
    for (int64_t task = 0; task < count_; ++task) {
      run(task);
    }
  }

 private:
  struct Range {
    const SlidingAttentionArguments* arguments;
    int64_t first;
  };

  void run(int64_t task) const {
    auto after = std::upper_bound(
        parts_.begin(), parts_.end(), task,
        [](int64_t value, const Range& range) { return value < range.first; });
    const auto& range = *std::prev(after);
    pass_(*range.arguments, task - range.first);
  }

  Pass pass_;
  std::vector<Range> parts_;
  int64_t count_ = 0, work_ = 0;
};

// Plans all parts and runs them. `parts` stay where they are until it returns.
void run(std::vector<Part>& parts) {
  static thread_local std::vector<float>
      partials;  // one per stream, as MLX gives each a thread
  const auto& kernel = kernels();
  Tasks write(kernel.sliding_attention_write), attend(kernel.sliding_attention_attend),
      merge(kernel.sliding_attention_merge);
  auto partials_of = [](const SlidingAttentionArguments& a) {
    return a.runs == 1 ? int64_t{0}
                       : int64_t{a.batch} * a.kv_heads * a.tiles * a.splits *
                             a.tile_queries * a.partial_size;
  };
  int64_t partials_size = 0;
  for (auto& part : parts) {
    auto& a = part.arguments;
    if (a.offset == nullptr) {
      a.offset = &part.offset;
    }
    int64_t span = check_offsets(a);
    plan(a, span, static_cast<int64_t>(parts.size()));
    int64_t heads = int64_t{a.batch} * a.kv_heads, tiles = heads * a.tiles;
    int64_t output_size = int64_t{a.batch} * a.length * a.heads * a.head_size;
    if (a.tiles > 1 || a.runs > 1) {
      write.add(a, heads, output_size);
    }
    attend.add(a, tiles * a.runs, output_size * std::min<int64_t>(span, a.window));
    if (a.runs > 1) {
      merge.add(a, tiles, output_size * a.splits);
    }
    partials_size += partials_of(a);
  }
  partials.resize(std::max(partials.size(), static_cast<size_t>(partials_size)));
  float* free = partials.data();
  for (auto& part : parts) {
    part.arguments.partials = free;
    free += partials_of(part.arguments);
  }
  write.run();
  attend.run();
  merge.run();
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

// Donates inputs `first_in` ... to outputs `first_out` ..., rings all of them. Returns
// the copies to make.
std::vector<RingCopy> donate_rings(const std::vector<mx::array>& inputs, size_t first_in,
                                   std::vector<mx::array>& outputs, size_t first_out,
                                   size_t count, const mx::Stream& s) {
  std::vector<RingCopy> to_copy;
  for (size_t i = 0; i < count; ++i) {
    if (auto copy = donate_ring(inputs[first_in + i], outputs[first_out + i], s)) {
      to_copy.push_back(std::move(*copy));
    }
  }
  return to_copy;
}

void set_strides(int64_t* to, const mx::array& x) {
  std::copy(x.strides().begin(), x.strides().end(), to);
}

// What q, k, v and the rings say of the arguments; all rows, without the offset.
SlidingAttentionArguments arguments_of(const mx::array& q, const mx::array& k,
                                       const mx::array& v, const mx::array& keys) {
  SlidingAttentionArguments a{};
  a.type = float_type(q.dtype()), a.quantized = is_quantized(keys);
  a.batch = q.shape(0), a.length = q.shape(1), a.heads = q.shape(2);
  a.kv_heads = k.shape(2), a.head_size = q.shape(3);
  a.capacity = keys.shape(2);
  a.q = q.data<void>(), a.k = k.data<void>(), a.v = v.data<void>();
  set_strides(a.q_strides, q), set_strides(a.k_strides, k), set_strides(a.v_strides, v);
  return a;
}

void set_rotary(SlidingAttentionArguments& a, const mx::array& cos,
                const mx::array& sin) {
  a.cos = cos.data<float>(), a.sin = sin.data<float>();
  set_strides(a.cos_strides, cos), set_strides(a.sin_strides, sin);
  a.cos_strides[0] *= cos.shape(0) > 1, a.sin_strides[0] *= sin.shape(0) > 1;
}

// Row `index` of x [1, R, ...], whose data begin at `first`.
const void* row(const void* first, int64_t index, const mx::array& x) {
  return static_cast<const char*>(first) +
         index * x.strides(1) * static_cast<int64_t>(x.itemsize());
}

void dispatch(const mx::Stream& s, std::vector<Part> parts,
              std::vector<RingCopy> to_copy) {
  mx::cpu::get_command_encoder(s).dispatch(
      [parts = std::move(parts), to_copy = std::move(to_copy)]() mutable {
        std::for_each(to_copy.begin(), to_copy.end(), copy_ring);
        run(parts);
      });
}

}  // namespace

void SlidingAttention::eval_cpu(const std::vector<mx::array>& inputs,
                                std::vector<mx::array>& outputs) {
  const auto& offset = inputs[5];
  DropSiblingInputs siblings(inputs, outputs);
  outputs[0].set_data(allocate(NAME, outputs[0].nbytes()));
  auto to_copy = donate_rings(inputs, 3, outputs, 1, 2, stream());
  auto a = arguments_of(inputs[0], inputs[1], inputs[2], inputs[3]);
  a.window = window_, a.scale = scale_;
  a.traditional = traditional_, a.causal = causal_;
  a.offset = offset.data<int64_t>(), a.offset_stride = offset.strides(0);
  if (inputs.size() > 6) {
    set_rotary(a, inputs[6], inputs[7]);
  }
  a.out = outputs[0].data<void>();
  a.keys = outputs[1].data<void>(), a.values = outputs[2].data<void>();
  dispatch(stream(), {{a, 0}}, std::move(to_copy));
  siblings.keep();
}

void SlidingAttentions::eval_cpu(const std::vector<mx::array>& inputs,
                                 std::vector<mx::array>& outputs) {
  const auto &q = inputs[0], &k = inputs[1], &v = inputs[2];
  size_t rings = inputs.size() - 2 * lengths_.size();  // the first ring among the inputs
  DropSiblingInputs siblings(inputs, outputs);
  outputs[0].set_data(allocate(NAME, outputs[0].nbytes()));
  auto to_copy = donate_rings(inputs, rings, outputs, 1, 2 * lengths_.size(), stream());
  std::vector<Part> parts;
  int64_t first = 0;  // row of the stream among all rows
  for (size_t i = 0; i < lengths_.size(); first += lengths_[i++]) {
    auto a = arguments_of(q, k, v, inputs[rings + 2 * i]);
    a.length = lengths_[i], a.window = window_, a.scale = scale_;
    a.traditional = traditional_, a.causal = causal_;
    a.q = row(a.q, first, q), a.k = row(a.k, first, k), a.v = row(a.v, first, v);
    if (rings > 3) {
      set_rotary(a, inputs[3], inputs[4]);
      a.cos += first * a.cos_strides[1], a.sin += first * a.sin_strides[1];
    }
    a.out = outputs[0].data<char>() +
            first * a.heads * a.head_size * static_cast<int64_t>(q.itemsize());
    a.keys = outputs[1 + 2 * i].data<void>(), a.values = outputs[2 + 2 * i].data<void>();
    parts.push_back({a, offsets_[i]});
  }
  dispatch(stream(), std::move(parts), std::move(to_copy));
  siblings.keep();
}

int64_t ring_copies() { return copies.load(std::memory_order_relaxed); }

}  // namespace voxfast

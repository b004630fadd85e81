#include "threads.h"

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>

#if defined(__linux__)
#include <sched.h>
#endif
#include <pthread.h>

namespace voxfast {

namespace {

int processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return CPU_COUNT(&set);
  }
#endif
  auto count = static_cast<int>(std::thread::hardware_concurrency());
  return count > 0 ? count : 1;
}

int configured_threads() {
  constexpr int limit = 256;
  const char* text = std::getenv("VOXFAST_NUM_THREADS");
  if (text != nullptr && *text != '\0') {
    char* end = nullptr;
    long value = std::strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 1) {
      throw std::runtime_error("[voxfast] VOXFAST_NUM_THREADS=" + std::string(text) +
                               " is not a number of threads; it must be 1 or more");
    }
    return value < limit ? static_cast<int>(value) : limit;
  }
  int count = processors();
  return count < limit ? count : limit;
}

// Waits until `value` differs from `old`. Consecutive ops are a few microseconds apart,
// and waking a thread takes longer, so this spins for about 20 microseconds before it
// sleeps.
void spin_then_wait(const std::atomic<uint64_t>& value, uint64_t old) {
  constexpr int SPINS = 1000;
  for (int i = 0; i < SPINS; ++i) {
    if (value.load(std::memory_order_acquire) != old) {
      return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
  value.wait(old, std::memory_order_acquire);
}

// Runs one job at a time. Workers enter a job through the gate, which the caller closes
// when no index is left. The caller then waits for the workers inside, but never for one
// that the operating system has not scheduled yet: that one finds the gate closed.
class Pool {
 public:
  explicit Pool(int threads) : workers_(threads - 1) {
    for (int i = 0; i < workers_; ++i) {
      std::thread([this] { work(); }).detach();
    }
  }

  void run(int64_t count, detail::Body body, void* context) {
    std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
    if (count == 1 || workers_ == 0 || !lock.owns_lock()) {
      for (int64_t i = 0; i < count; ++i) {
        body(context, i);
      }
      return;
    }
    body_ = body;
    context_ = context;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    uint64_t number = jobs_.load(std::memory_order_relaxed) + 1;
    gate_.store(number << NUMBER_SHIFT | OPEN, std::memory_order_release);
    jobs_.store(number, std::memory_order_release);
    jobs_.notify_all();
    drain();
    uint64_t workers = gate_.fetch_and(~OPEN, std::memory_order_acq_rel) & ~OPEN;
    while (workers & WORKERS) {
      spin_then_wait(gate_, workers);
      workers = gate_.load(std::memory_order_acquire);
    }
  }

  // For a forked child, which inherits the pool but not its threads.
  void forget_workers() { workers_ = 0; }

 private:
  // The bits of the gate: the number of workers inside, whether it is open, the job
  // number.
  static constexpr uint64_t WORKERS = 0xffff;
  static constexpr uint64_t OPEN = 0x10000;
  static constexpr int NUMBER_SHIFT = 17;

  void drain() {
    for (int64_t i = next_.fetch_add(1, std::memory_order_relaxed); i < count_;
         i = next_.fetch_add(1, std::memory_order_relaxed)) {
      body_(context_, i);
    }
  }

  bool enter(uint64_t number) {
    uint64_t gate = gate_.load(std::memory_order_relaxed);
    do {
      if (gate >> NUMBER_SHIFT != number || !(gate & OPEN)) {
        return false;
      }
    } while (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel));
    return true;
  }

  void work() {
    uint64_t last_job = 0;
    for (;;) {
      spin_then_wait(jobs_, last_job);
      last_job = jobs_.load(std::memory_order_acquire);
      if (enter(last_job)) {
        drain();
        uint64_t before = gate_.fetch_sub(1, std::memory_order_acq_rel);
        if (!(before & OPEN) && (before & WORKERS) == 1) {
          gate_.notify_one();
        }
      }
    }
  }

  std::mutex busy_;
  int workers_;
  detail::Body body_{nullptr};
  void* context_{nullptr};
  int64_t count_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<uint64_t> jobs_{0};
};

// Never destroyed, since workers may still wait on it when the process exits.
Pool& pool() {
  static Pool* instance = [] {
    auto* made = new Pool(num_threads());
    pthread_atfork(nullptr, nullptr, [] { pool().forget_workers(); });
    return made;
  }();
  return *instance;
}

}  // namespace

int num_threads() {
  static const int count = configured_threads();
  return count;
}

void detail::parallel_for(int64_t count, Body body, void* context) {
  if (count > 0) {
    pool().run(count, body, context);
  }
}

}  // namespace voxfast

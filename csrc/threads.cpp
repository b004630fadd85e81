#include "threads.h"

#include <atomic>
#include <cstdlib>
#include <mutex>
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

int wanted_threads() {
  constexpr int most = 256;
  if (const char* text = std::getenv("VOXFAST_NUM_THREADS")) {
    char* end = nullptr;
    long value = std::strtol(text, &end, 10);
    if (end != text && *end == '\0' && value >= 1) {
      return value < most ? static_cast<int>(value) : most;
    }
  }
  int count = processors();
  return count < most ? count : most;
}

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) {
      std::thread([this] { work(); }).detach();
    }
    workers_ = threads - 1;
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
    resting_.store(0, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    drain();
    // Every worker passes through every generation, so none can still hold this
    // body when the caller's stack frame goes.
    for (int done = resting_.load(std::memory_order_acquire); done != workers_;
         done = resting_.load(std::memory_order_acquire)) {
      resting_.wait(done, std::memory_order_acquire);
    }
  }

  // A forked child has this object but none of its threads.
  void forget_workers() { workers_ = 0; }

 private:
  void drain() {
    for (int64_t i = next_.fetch_add(1, std::memory_order_relaxed); i < count_;
         i = next_.fetch_add(1, std::memory_order_relaxed)) {
      body_(context_, i);
    }
  }

  void work() {
    uint32_t seen = 0;
    for (;;) {
      generation_.wait(seen, std::memory_order_acquire);
      seen = generation_.load(std::memory_order_acquire);
      drain();
      resting_.fetch_add(1, std::memory_order_release);
      resting_.notify_one();
    }
  }

  std::mutex busy_;
  int workers_{0};
  detail::Body body_{nullptr};
  void* context_{nullptr};
  int64_t count_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> resting_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
};

// Never destroyed: workers may still sleep on it while the process exits.
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
  static const int count = wanted_threads();
  return count;
}

void detail::parallel_for(int64_t count, Body body, void* context) {
  if (count > 0) {
    pool().run(count, body, context);
  }
}

}  // namespace voxfast

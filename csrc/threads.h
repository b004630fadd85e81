#pragma once

#include <cstdint>
#include <type_traits>

namespace voxfast {

// The number of threads of a parallel_for: VOXFAST_NUM_THREADS if set, else the number of
// processors that this process may run on. Throws std::runtime_error if the variable is
// not a number >= 1.
int num_threads();

namespace detail {
using Body = void (*)(void* context, int64_t index);
void parallel_for(int64_t count, Body body, void* context);
}  // namespace detail

// Calls body(i) for every i in [0, count), on a thread pool that all ops share.
//
// Threads take one index at a time, so tasks of different lengths balance. The calling
// thread works too. It does all the work while the pool is busy with another stream's op,
// and in a forked child, which has no workers. Bodies must not throw. Idle workers spin
// for about 20 microseconds, then sleep.
template <typename F>
void parallel_for(int64_t count, F&& body) {
  detail::parallel_for(
      count,
      [](void* context, int64_t index) {
        (*static_cast<std::remove_reference_t<F>*>(context))(index);
      },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace voxfast

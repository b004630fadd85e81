#pragma once

#include <cstdint>
#include <type_traits>

namespace voxfast {

// Threads that work on one parallel_for: VOXFAST_NUM_THREADS if set, else every
// processor this process may run on. Throws std::runtime_error if it is no number from 1
// on.
int num_threads();

namespace detail {
using Body = void (*)(void* context, int64_t index);
void parallel_for(int64_t count, Body body, void* context);
}  // namespace detail

// Calls body(i) for every i in [0, count), on the one pool that all ops share.
//
// Indices are handed out one by one, so uneven bodies balance. The calling thread
// works too. When the pool is busy with another stream's op, or in a forked child
// (which has no workers), the caller does all of it. Bodies must not throw.
// Workers without work sleep after some 20 microseconds.
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

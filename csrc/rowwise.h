#pragma once

#include <algorithm>

#include "kernels/rowwise_arguments.h"
#include "mlx/array.h"
#include "threads.h"

namespace voxfast {

// The arguments of a row-wise op on x: rows and columns.
inline RowwiseArguments elementwise(const mlx::core::array& x) {
  RowwiseArguments a{};
  a.columns = x.ndim() > 0 ? x.shape(-1) : 1;
  a.rows = a.columns > 0 ? static_cast<int64_t>(x.size()) / a.columns : 0;
  return a;
}

// Runs a kernel over all rows, on several threads if there is enough work.
inline void for_rows(const RowwiseArguments& a,
                     void (*kernel)(const RowwiseArguments&, int64_t, int64_t)) {
  constexpr int64_t SERIAL_ELEMENTS = 1 << 16;  // about 10 us
  if (a.rows * a.columns <= SERIAL_ELEMENTS) {
    kernel(a, 0, a.rows);
    return;
  }
  int64_t step = std::max<int64_t>(1, SERIAL_ELEMENTS / 4 / a.columns);
  parallel_for((a.rows + step - 1) / step,
               [&](int64_t i) { kernel(a, i * step, std::min(a.rows, (i + 1) * step)); });
}

}  // namespace voxfast

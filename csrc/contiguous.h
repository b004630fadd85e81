#pragma once

// Offsets of an array's rows, and contiguous copies for strides that a kernel cannot
// read. The copies are made in eval_cpu, where strides are known; as nodes of MLX's graph
// they would take longer than most ops.

#include <cstring>
#include <utility>
#include <vector>

#include "mlx/array.h"
#include "mlx/backend/cpu/encoder.h"
#include "op.h"

namespace voxfast {

// The offset, in elements, of every combination of indices of dimensions [first, last),
// in row-major order.
inline std::vector<int64_t> row_offsets(const mx::array& x, int first, int last) {
  std::vector<int64_t> offsets{0};
  for (int d = first; d < last; ++d) {
    std::vector<int64_t> next;
    next.reserve(offsets.size() * x.shape(d));
    for (int64_t offset : offsets) {
      for (int i = 0; i < x.shape(d); ++i) {
        next.push_back(offset + i * x.strides(d));
      }
    }
    offsets = std::move(next);
  }
  return offsets;
}

// A contiguous copy of x, which has at least one dimension. The copy is dispatched; it is
// complete when the next dispatched task begins, and it keeps x alive until it has run,
// even if the op throws meanwhile.
inline mx::array contiguous_copy(const char* op, const mx::array& x,
                                 mx::cpu::CommandEncoder& encoder) {
  mx::array copy(allocate(op, x.nbytes()), x.shape(), x.dtype());
  encoder.add_temporary(copy);
  encoder.dispatch([from = x.data<char>(), to = copy.data<char>(), size = x.itemsize(),
                    rows = row_offsets(x, 0, static_cast<int>(x.ndim()) - 1),
                    columns = x.shape(-1), step = x.strides(-1),
                    held = x.data_shared_ptr()]() mutable {
    for (int64_t row : rows) {
      for (int64_t c = 0; c < columns; ++c, to += size) {
        std::memcpy(to, from + (row + c * step) * static_cast<int64_t>(size), size);
      }
    }
  });
  return copy;
}

// x itself if it is row-contiguous, else a copy.
inline mx::array make_contiguous(const char* op, const mx::array& x,
                                 mx::cpu::CommandEncoder& encoder) {
  return x.size() <= 1 || x.flags().row_contiguous ? x : contiguous_copy(op, x, encoder);
}

// x itself if its rows (the last dimension) are contiguous, else a copy.
inline mx::array make_rows_contiguous(const char* op, const mx::array& x,
                                      mx::cpu::CommandEncoder& encoder) {
  return x.strides(-1) == 1 || x.shape(-1) == 1 ? x : contiguous_copy(op, x, encoder);
}

}  // namespace voxfast

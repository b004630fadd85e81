#pragma once

// Where the rows of an array lie, and copies of arrays whose rows do not lie as a kernel
// reads them. Made while a CPU stream computes, when strides are known: a node of MLX's
// graph for each would take longer than most ops.

#include <cstring>
#include <utility>
#include <vector>

#include "mlx/array.h"
#include "mlx/backend/cpu/encoder.h"
#include "op.h"

namespace voxfast {

// Where what the indices of dimensions first ... last - 1 select begins, in elements.
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

// A copy in one piece, of at least one dimension; complete when what is dispatched next
// begins. It holds what it copies until then, so the op may still throw.
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

// The array itself if it lies in one piece, or such a copy.
inline mx::array make_contiguous(const char* op, const mx::array& x,
                                 mx::cpu::CommandEncoder& encoder) {
  return x.size() <= 1 || x.flags().row_contiguous ? x : contiguous_copy(op, x, encoder);
}

// The array itself if its rows, the last dimension, are dense, or such a copy.
inline mx::array make_rows_contiguous(const char* op, const mx::array& x,
                                      mx::cpu::CommandEncoder& encoder) {
  return x.strides(-1) == 1 || x.shape(-1) == 1 ? x : contiguous_copy(op, x, encoder);
}

}  // namespace voxfast

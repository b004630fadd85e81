#include "empty.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "mlx/primitives.h"
#include "op.h"

namespace voxfast {

namespace {

constexpr const char* NAME = "empty";

// Keeps the pages of memory that was not written to small: a huge one would be taken as a
// whole by the first write into it.
void keep_pages_small(char* data, size_t bytes) {
#if defined(MADV_NOHUGEPAGE)
  constexpr size_t HUGE_PAGE = 2 << 20;
  if (bytes < HUGE_PAGE) {
    return;
  }
  auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  auto begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  // A kernel without huge pages refuses, and needs nothing.
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_NOHUGEPAGE);
#endif
}

class Empty : public mx::Primitive {
 public:
  explicit Empty(mx::Stream s) : Primitive(s) {}

  void eval_cpu(const std::vector<mx::array>&, std::vector<mx::array>& outputs) override {
    auto& out = outputs[0];
    out.set_data(allocate(NAME, out.nbytes()));
    keep_pages_small(out.data<char>(), out.nbytes());
  }
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("[empty] has no GPU kernel");
  }

  const char* name() const override { return "VoxfastEmpty"; }
};

}  // namespace

mx::array empty(const mx::Shape& shape, const mx::Dtype& dtype, mx::StreamOrDevice s_) {
  check_size(NAME, "the array", shape);
  auto s = mx::to_stream(s_);
  if (!use_kernels(s)) {
    return mx::zeros(shape, dtype, s);
  }
  return mx::array(shape, dtype, std::make_shared<Empty>(s), {});
}

}  // namespace voxfast

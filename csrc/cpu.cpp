#include "cpu.h"

#include <cstdlib>
#include <stdexcept>

namespace voxfast {

namespace {

std::vector<const Kernels*> runnable() {
  std::vector<const Kernels*> found{&baseline::kernels};
#if defined(VOXFAST_HAS_avx2)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    found.push_back(&avx2::kernels);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      found.push_back(&avx512::kernels);
      if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
          __builtin_cpu_supports("avx512bf16")) {
        found.push_back(&avx512dot::kernels);
      }
    }
  }
#endif
  return found;
}

const Kernels* choose() {
  auto found = runnable();
  const char* wanted = std::getenv("VOXFAST_ISA");
  if (wanted == nullptr || *wanted == '\0') {
    return found.back();
  }
  std::string names;
  for (const Kernels* candidate : found) {
    if (candidate->isa == std::string(wanted)) {
      return candidate;
    }
    names += std::string(names.empty() ? "" : ", ") + candidate->isa;
  }
  throw std::runtime_error("[voxfast] VOXFAST_ISA=" + std::string(wanted) +
                           " is not available here; choose one of: " + names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels* chosen = choose();
  return *chosen;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* candidate : runnable()) {
    names.emplace_back(candidate->isa);
  }
  return names;
}

}  // namespace voxfast

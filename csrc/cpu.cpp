#include "cpu.h"

#include <cstdlib>
#include <stdexcept>
#if defined(VOXFAST_HAS_avx2)
#include <cpuid.h>
#elif defined(VOXFAST_HAS_neondot) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(VOXFAST_HAS_neondot) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace voxfast {

namespace {

#if defined(VOXFAST_HAS_avx2)
// Clang 14's __builtin_cpu_supports does not know this feature.
bool supports_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#elif defined(VOXFAST_HAS_neondot)
struct ArmFeatures {
  bool dotprod = false, i8mm = false, bf16 = false;
};

ArmFeatures arm_features() {
#if defined(__APPLE__)
  auto has = [](const char* feature) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
  };
  return {has("hw.optional.arm.FEAT_DotProd"), has("hw.optional.arm.FEAT_I8MM"),
          has("hw.optional.arm.FEAT_BF16")};
#elif defined(__linux__)
  auto level2 = getauxval(AT_HWCAP2);
  return {(getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0, (level2 & HWCAP2_I8MM) != 0,
          (level2 & HWCAP2_BF16) != 0};
#else
  return {};
#endif
}
#endif

std::vector<const Kernels*> supported() {
  std::vector<const Kernels*> levels{&VOXFAST_BASE_ISA::kernels};
#if defined(VOXFAST_HAS_avx2)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      supports_f16c()) {
    levels.push_back(&avx2::kernels);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      levels.push_back(&avx512::kernels);
      if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
          __builtin_cpu_supports("avx512bf16")) {
        levels.push_back(&avx512dot::kernels);
      }
    }
  }
#elif defined(VOXFAST_HAS_neondot)
  auto features = arm_features();
  if (features.dotprod) {
    levels.push_back(&neondot::kernels);
    if (features.i8mm && features.bf16) {
      levels.push_back(&neonmm::kernels);
    }
  }
#endif
  return levels;
}

const Kernels* select_kernels() {
  auto levels = supported();
  const char* requested = std::getenv("VOXFAST_ISA");
  if (requested == nullptr || *requested == '\0') {
    return levels.back();
  }
  if (requested == std::string("baseline")) {  // the name of sse2 and neon before 0.2
    return levels.front();
  }
  std::string names;
  for (const Kernels* candidate : levels) {
    if (candidate->isa == std::string(requested)) {
      return candidate;
    }
    names += std::string(names.empty() ? "" : ", ") + candidate->isa;
  }
  throw std::runtime_error("[voxfast] VOXFAST_ISA=" + std::string(requested) +
                           " is not available here; choose one of: " + names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels* chosen = select_kernels();
  return *chosen;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* candidate : supported()) {
    names.emplace_back(candidate->isa);
  }
  return names;
}

}  // namespace voxfast

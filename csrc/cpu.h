#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace voxfast {

// The kernels for this machine: the widest instruction set that was compiled in and
// that the processor has. VOXFAST_ISA=baseline|avx2|avx512 asks for a narrower one;
// asking for one that is not there throws std::runtime_error.
const Kernels& kernels();

// Names of the instruction sets that kernels() could choose on this machine, narrowest
// first.
std::vector<std::string> available_isas();

}  // namespace voxfast

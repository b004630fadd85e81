#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace voxfast {

// The kernels for the widest instruction set that was compiled in and that the processor
// supports, or for the one that VOXFAST_ISA names. Throws std::runtime_error if that one
// is not available.
const Kernels& kernels();

// The names of the available instruction sets, narrowest first.
std::vector<std::string> available_isas();

}  // namespace voxfast

// Compiled once per instruction set, which VOXFAST_ISA names (CMakeLists.txt). All
// kernels are in namespace voxfast::VOXFAST_ISA, and all but the table have internal
// linkage: the linker merges inline functions, and might keep one with instructions that
// the processor lacks. For the same reason kernels use no standard header but <cstdint>
// and <cstring>.

#include "kernels/kernels.h"

#include "kernels/alignment_frame.h"
#include "kernels/linear.h"
#include "kernels/log_mel.h"
#include "kernels/rowwise.h"
#include "kernels/simd.h"
#include "kernels/sliding_attention.h"
#include "kernels/voice.h"

#define VOXFAST_STRING(x) #x
#define VOXFAST_NAME(x) VOXFAST_STRING(x)

namespace voxfast::VOXFAST_ISA {

const Kernels kernels = {
    .isa = VOXFAST_NAME(VOXFAST_ISA),
    .lanes = LANES,
    .alignment_frame = alignment_frame,
    .linear_plan = linear_plan,
    .linear_prepare = linear_prepare,
    .linear_multiply = linear_multiply,
    .log_mel = log_mel,
    .rms_norm = rms_norm,
    .swiglu = swiglu,
    .gelu = gelu,
    .greedy = greedy,
    .sliding_attention_write = sliding_attention_write,
    .sliding_attention_attend = sliding_attention_attend,
    .sliding_attention_merge = sliding_attention_merge,
    .voice = voice,
};

}  // namespace voxfast::VOXFAST_ISA

#pragma once

// linear on the CPU, y = x w^T + bias: picks the kernel of a call and plans its tasks.
//
//   linear_arguments.h         the arguments of a call
//   linear_common.h            panels, loads and stores, the loops of a task
//   linear_float.h             float w
//   linear_float_sixteen.h     float w, 13 to 16 rows of x, AVX-512
//   linear_packed_common.h     packed w: quantized x, unpacked codes
//   linear_packed_gemm.h       packed w, several rows of x
//   linear_packed_gemm_step.h  its inner step
//   linear_packed_gemv.h       packed w, one row of x
//   linear_packed_gemv_bytes.h its inner loop with dot products of bytes
//   linear_packed_gemv_pairs.h its inner loop with any other instruction set
//   linear_packed_few.h        packed w, a few rows of x, AVX-512 VNNI and VBMI
//   linear_packed_sixteen.h    the same, for 13 to 16 rows
//
// Glossary. The files of linear use each word in this sense only.
//
//   M, N, K     rows of x, outputs (rows of w), inputs; their indices are m, n, k
//   gemv, gemm  the kernels for few and for many rows of x. A gemv reads w from memory
//               once and multiplies it in registers. A gemm repacks a panel of w into L1
//               and multiplies it with all rows of x. The kernels whose lanes are rows of
//               x read the panel in place.
//   task        the unit of work of a thread: some outputs of all rows of x
//   split       gemv: one thread's share of the outputs
//   strip       gemv: consecutive rows of w that are read front to back, as one stream.
//               A split has as many strips as a panel has rows.
//   panel       the rows of w that are multiplied together. With strips (has_strips): one
//               row of each strip of a split; else neighbours.
//   slice       up to KC consecutive inputs. Products are summed over a slice in
//               registers, then added to the output, slice by slice.
//   tile        gemm: the rows of x and the outputs whose sums are in registers
//   MC, KC, MR  rows of x per pass over a panel, inputs per slice, rows of x per tile;
//               named as in GotoBLAS (Goto and van de Geijn, 2008)
//   span        inputs of a row of x that are equally spaced in memory. x of
//               [..., K1, K2] has K1 spans of K2 inputs per row.
//   lane        32 bits of a vector. Float w: one float32, or two bfloat16 (AVX-512
//               BF16, BFDOT). Packed w: four bytes (AVX-512 VNNI, SDOT), or two int16
//               (madd, SMLAL).
//   element     one of the numbers that are multiplied within a lane
//   quad        four neighbouring lanes, as in simd.h
//   word        32 bits of packed w in memory
//   code        a weight of packed w, `bits` wide; the weight is code * scale + bias
//   group       group_size consecutive inputs of a row, which share scale and bias
//   block       32 consecutive codes of a row, packed into `bits` words
//   chunk       packed gemv: the codes taken from a row of w per step
//   plane       gemv with bytes: the codes at one bit offset of every byte of a chunk
//   part        sixteen rows of x: outputs whose sums are in registers
//   stage       few rows of x, packed: the codes of a panel that are unpacked at once:
//               whole groups of each row, as few as fill a vector of bytes
//   step        packed gemm: the codes that are multiplied with one vector, or lane, of x
//   integer     a quantized input: x = integer * x_scale. 15 bits and sign; x_scale is a
//               power of two per group (block floating point).
//   digit       bytes: integer = 256 * high digit + low digit, both signed bytes
//   dot         a sum of code * integer, exact in 32 bits
//   prepared x  x converted and laid out for the kernel, by linear_prepare

#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/linear_float.h"
#if defined(__AVX512F__)
#include "kernels/linear_float_sixteen.h"
#endif
#include "kernels/linear_packed_gemm.h"
#include "kernels/linear_packed_gemv.h"
#if defined(VOXFAST_BYTE_DOTS) && defined(__AVX512F__)
#define VOXFAST_FEW
#include "kernels/linear_packed_few.h"
#include "kernels/linear_packed_sixteen.h"
#endif

namespace voxfast::VOXFAST_ISA {
namespace {

// Calls f<Kernel>() with the kernel for these arguments, whose w is float.
template <typename Lane, typename F>
void with_float_kernel(const LinearArguments& a, F f) {
#if defined(__AVX512F__)
  using Sixteen = FloatSixteen<Lane>;
  // Lanes are broadcast as they lie in memory.
  bool has_lanes = Lane::INPUTS == 2 || a.w_type == FloatType::float32;
  if (has_lanes && a.m >= Sixteen::MIN_M && a.m <= Sixteen::MAX_M) {
    return f.template operator()<Sixteen>();
  }
#endif
  return f.template operator()<FloatKernel<Lane>>();
}

// Calls f<Kernel>() with the kernel for these arguments.
template <typename F>
void with_kernel(const LinearArguments& a, F f) {
  if (a.bits == 0) {
    return uses_bf16_pairs(a) ? with_float_kernel<Bf16PairLane>(a, f)
                              : with_float_kernel<FloatLane>(a, f);
  }
  if (a.m == 1) {
    return f.template operator()<PackedGemv>();
  }
#if defined(VOXFAST_FEW)
  if (a.m >= PackedSixteen::MIN_M && a.m <= PackedSixteen::MAX_M) {
    return f.template operator()<PackedSixteen>();
  }
  if (a.m <= PackedFew::MAX_M) {
    return f.template operator()<PackedFew>();
  }
#endif
  return f.template operator()<PackedGemm>();
}

template <typename Kernel>
void plan(LinearArguments& a, int64_t tasks, int64_t threads) {
  // Slices have equal lengths: each prefetches as many bytes as it reads, so that all of
  // w gets prefetched.
  int64_t slices = (a.k + Kernel::KC - 1) / Kernel::KC;
  a.slice = round_up((a.k + slices - 1) / slices, int64_t{128});
  slices = (a.k + a.slice - 1) / a.slice;
  // The prefetch distance: long enough to cover the latency of memory, short enough that
  // no line is evicted before its use.
  constexpr int64_t PREFETCH_BYTES = 8192;
  int64_t bits = a.bits > 0 ? a.bits : 8 * float_size(a.w_type);
  int64_t panel = Kernel::panel(a), panel_bytes = panel * a.slice * bits / 8;
  int64_t distance = (PREFETCH_BYTES + panel_bytes - 1) / panel_bytes;
  a.padded_k = slices * a.slice;
  a.prefetch_panels = distance / slices;
  a.prefetch_inputs = distance % slices * a.slice;
  a.prepared_stride = Kernel::prepared_stride(a);
  a.prepared_bytes = a.m * a.prepared_stride;
  int64_t strip = a.n;  // outputs that are cut into tasks; in a gemm all of them
  a.splits = 1;
  if (Kernel::has_strips(a)) {
    a.splits = min(threads, (a.n + panel - 1) / panel);
    // Odd, since strips that begin a multiple of 4 KB apart compete for the same sets of
    // L1.
    strip = (a.n + a.splits * panel - 1) / (a.splits * panel) | 1;
    tasks = (tasks + a.splits - 1) / a.splits;
  }
  a.strip = strip;
  a.task_outputs = (strip + tasks - 1) / tasks;
  a.task_outputs = Kernel::has_strips(a) ? min(a.task_outputs, MAX_GEMV_TASK)
                                         : round_up(a.task_outputs, panel);
  a.tasks = a.splits * ((strip + a.task_outputs - 1) / a.task_outputs);
}

// ---- entries of the table in kernels.cpp ------------------------------------------

void linear_plan(LinearArguments& a, int64_t tasks, int64_t threads) {
  with_kernel(a, [&]<typename Kernel>() { plan<Kernel>(a, tasks, threads); });
}

void linear_prepare(const LinearArguments& a, int64_t m) {
  with_kernel(a, [&]<typename Kernel>() { Kernel::prepare(a, m); });
}

void linear_multiply(const LinearArguments& a, int64_t task) {
  with_kernel(a, [&]<typename Kernel>() { Kernel::multiply(a, task); });
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

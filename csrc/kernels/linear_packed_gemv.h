#pragma once

// linear with packed w and one row of x. The lanes run along K: codes are multiplied in
// the order they have in memory, since transposing them, as the gemm does, would cost
// more than one product with them. Glossary: linear.h.
//
// Dots are exact integers and groups are added in order, so the output equals the gemm's
// bit for bit.

#include "kernels/horizontal_sums.h"
#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/linear_packed_common.h"
#if defined(VOXFAST_BYTE_DOTS)
#include "kernels/linear_packed_gemv_bytes.h"
#else
#include "kernels/linear_packed_gemv_pairs.h"
#endif
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

typedef float f32x4 __attribute__((vector_size(16)));

struct PackedGemv {
  static constexpr int64_t KC = 512;
  static constexpr int GEMV_PANEL = 4;  // rows of w
  // A vector has the dots of so many groups with each row of the panel.
  static constexpr int GROUPS_PER_VECTOR = LANES / GEMV_PANEL;

  static int64_t panel(const LinearArguments&) { return GEMV_PANEL; }
  static bool has_strips(const LinearArguments&) { return true; }

  // Prepared x: [groups, GEMV_PANEL] the x_scale of each group, repeated for each row of
  // a panel; likewise x_sums, the sums of its integers times x_scale; the integers.
  // Groups are padded to whole vectors, integers to whole chunks.
  float *x_scales, *x_sums;
  char* integers;

  explicit PackedGemv(const LinearArguments& a)
      : x_scales(reinterpret_cast<float*>(a.prepared)),
        x_sums(x_scales + GEMV_PANEL * padded_groups(a)),
        integers(reinterpret_cast<char*>(x_sums + GEMV_PANEL * padded_groups(a))) {}

  static int64_t padded_groups(const LinearArguments& a) {
    return round_up(a.groups, int64_t{LANES});
  }
  static int64_t prepared_stride(const LinearArguments& a) {
    return 2 * GEMV_PANEL * padded_groups(a) * 4 + 2 * round_up(a.k, int64_t{1024});
  }

  static void prepare(const LinearArguments& a, int64_t) {
    const PackedGemv x(a);
    float* const both[] = {x.x_scales, x.x_sums};
    for (float* of_groups : both) {  // the padding
      std::memset(of_groups + GEMV_PANEL * a.groups, 0,
                  sizeof(float) *
                      static_cast<size_t>(GEMV_PANEL * (padded_groups(a) - a.groups)));
    }
    with_format(a, [&]<int BITS, int GROUP>() {
      for (int64_t g = 0; g < a.groups; ++g) {
        int32_t quantized[128];
        const QuantizedGroup group(a, 0, g, quantized);
        for (int64_t i = 0; i < GEMV_PANEL; ++i) {
          x.x_scales[GEMV_PANEL * g + i] = group.scale;
          x.x_sums[GEMV_PANEL * g + i] = group.sum;
        }
        for (int64_t i = 0; i < GROUP; i += BLOCK_CODES) {
          RowChunk<BITS, GROUP>::arrange_x(quantized + i, g * GROUP + i, x.integers);
        }
      }
    });
  }

  static void multiply(const LinearArguments& a, int64_t task) {
    with_format(a, [&]<int BITS, int GROUP>() {
      gemv_task<1, GEMV_PANEL>(a, task, [&](const Panel& panel) {
        return [&a, x = PackedGemv(a),
                w = PanelRows(a, panel)](float (&out)[1][GEMV_PANEL]) mutable {
          f32x4 sum = x.multiply_panel<BITS, GROUP>(a, w);
          std::memcpy(out, &sum, sizeof sum);
          w.advance(a);
        };
      });
    });
  }

  // Loads scales or biases of groups [first, first + LANES). out[i] has those of
  // GROUPS_PER_VECTOR groups, [GROUPS_PER_VECTOR, GEMV_PANEL].
  template <typename T>
  VOXFAST_INLINE static void load_groups(const char* const (&rows)[GEMV_PANEL],
                                         int64_t first, int64_t groups,
                                         f32v (&out)[GEMV_PANEL]) {
#if defined(__aarch64__)
    if constexpr (sizeof(T) == 2) {  // transposed before they take twice the space
      uint16x8_t x[GEMV_PANEL];
      for (int r = 0; r < GEMV_PANEL; ++r) {
        x[r] = load_halves(reinterpret_cast<const T*>(rows[r]) + first, groups - first);
      }
      uint16x8_t even = vzip1q_u16(x[0], x[2]), odd = vzip1q_u16(x[1], x[3]);
      uint16x8_t low = vzip1q_u16(even, odd), high = vzip2q_u16(even, odd);
      out[0] = widen(T{}, vget_low_u16(low));
      out[1] = widen(T{}, vget_high_u16(low));
      out[2] = widen(T{}, vget_low_u16(high));
      out[3] = widen(T{}, vget_high_u16(high));
      return;
    }
#endif
    for (int r = 0; r < GEMV_PANEL; ++r) {
      out[r] = load_n(reinterpret_cast<const T*>(rows[r]) + first, groups - first);
    }
    transpose(out);
  }

#if defined(__aarch64__)
  // Loads min(count, LANES) numbers of 16 bits; the others are 0.
  template <typename T>
  VOXFAST_INLINE static uint16x8_t load_halves(const T* p, int64_t count) {
    T padded[LANES] = {};
    if (count < LANES) {
      std::memcpy(padded, p, static_cast<size_t>(count) * sizeof(T));
      p = padded;
    }
    return vcombine_u16(vld1_u16(&p->bits), vdup_n_u16(0));
  }
#endif

  // The dots of GROUPS_PER_VECTOR consecutive groups with the rows of a panel.
  template <int BITS, int GROUP>
  struct GroupDots {
    using Chunk = RowChunk<BITS, GROUP>;
    // Vectors of partial sums per row of w, and chunks that are added to each.
    // LANES_PER_GROUP lanes of such a vector belong to one group.
    static constexpr int VECTORS = Chunk::LANES_PER_GROUP / GEMV_PANEL;
    static constexpr int CHUNKS = GROUP > Chunk::INPUTS ? GROUP / Chunk::INPUTS : 1;
    static constexpr int LAST = VECTORS * CHUNKS - 1, BYTES = (LAST + 1) * Chunk::BYTES;
    // Bytes read per row: more than BYTES only if a chunk's load is larger than that.
    static constexpr int READ = BYTES < Chunk::LOAD_BYTES ? Chunk::LOAD_BYTES : BYTES;

#if defined(__aarch64__)
    // Sums go on from group to group, and dots are their differences: in groups of 64,
    // clearing would take a quarter as many instructions as SDOT. int32 may wrap around.
    static constexpr bool RUNNING = true;
#else
    static constexpr bool RUNNING = false;
#endif
    typename Chunk::template Sums<GEMV_PANEL> digits[VECTORS] = {};
    u32v before{};  // the running sums up to the last groups

    // Lanes are added before digits where a vector has few lanes: it takes less.
    static constexpr int SUMMANDS = LANES == QUAD ? DIGITS : 1;
    typedef i32v PartialSums[SUMMANDS][VECTORS * GEMV_PANEL];

    // keep_sums takes the sums of vector v, once it is complete; add_up adds lanes and
    // digits, [GROUPS_PER_VECTOR, GEMV_PANEL].
#if defined(VOXFAST_DIGIT_PAIRS)
    VOXFAST_INLINE void keep_sums(int, PartialSums& out) const {
      for (int i = 0; i < GEMV_PANEL / 2; ++i) {
        out[0][i] = (i32v)((u32v)digits[0][i][0] + (u32v)digits[0][i][1]);
      }
    }
    VOXFAST_INLINE static i32v add_up(PartialSums& x) {
      return combine_pairs({x[0][0], x[0][1]});
    }
#else
    VOXFAST_INLINE void keep_sums(int v, PartialSums& out) const {
#pragma GCC unroll 4
      for (int r = 0; r < GEMV_PANEL; ++r) {
        for (int i = 0; i < SUMMANDS; ++i) {
          out[i][v * GEMV_PANEL + r] =
              SUMMANDS == DIGITS ? digits[v][r][i] : combine_digits(digits[v][r]);
        }
      }
    }
    VOXFAST_INLINE static i32v add_up(PartialSums& x) {
      i32v of_digits[DIGITS];
      for (int i = 0; i < SUMMANDS; ++i) {
        of_digits[i] = horizontal_sums<Chunk::LANES_PER_GROUP>(x[i]);
      }
      i32v sums = SUMMANDS == DIGITS ? combine_digits(of_digits) : of_digits[0];
#if defined(__AVX512F__)
      if constexpr (Chunk::LANES_PER_GROUP ==
                    8) {  // [vector, group, row] to [group, row]
        sums = __builtin_shufflevector(sums, sums, 0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7,
                                       12, 13, 14, 15);
      }
#endif
      return sums;
    }
#endif

    // Returns [GROUPS_PER_VECTOR, GEMV_PANEL] of the next groups, which begin `at` bytes
    // into each row.
    VOXFAST_INLINE i32v next(const char* const (&w)[GEMV_PANEL], int64_t at,
                             int64_t prefetch_distance, const char* x) {
#pragma GCC unroll 4
      for (int r = 0; r < GEMV_PANEL; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < BYTES; i += 64) {
          const char* prefetch = w[r] + at + prefetch_distance + i;
          // With few bits per code the kernel waits less for memory, and prefetching into
          // L1 is faster.
          BITS < 6 ? __builtin_prefetch(prefetch) : prefetch_l2(prefetch);
        }
      }
      PartialSums partial_sums;
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        if constexpr (!RUNNING) {
#pragma GCC unroll 8
          for (int r = 0; r < GEMV_PANEL * DIGITS; ++r) {
            digits[v][r / DIGITS][r % DIGITS] = i32v{};
          }
        }
#pragma GCC unroll 4
        for (int i = v * CHUNKS; i < (v + 1) * CHUNKS; ++i) {
          Chunk::add(w, at + i * Chunk::BYTES, i == LAST && READ == BYTES,
                     x + i * 2 * Chunk::INPUTS, digits[v]);
        }
        keep_sums(v, partial_sums);
      }
      i32v sums = add_up(partial_sums);
      if constexpr (RUNNING) {
        auto now = (u32v)sums;
        sums = (i32v)(now - before);
        before = now;
      }
      return sums;
    }

    // The same where the rows end `rest` bytes after `at`. Codes beyond the end are 0, so
    // x may be anything there.
    [[gnu::noinline]] static i32v tail_dots(const char* const (&w)[GEMV_PANEL],
                                            int64_t at, int64_t rest, const char* x) {
      char copies[GEMV_PANEL][READ] = {};
      const char* pointers[GEMV_PANEL];
      for (int r = 0; r < GEMV_PANEL; ++r) {
        std::memcpy(copies[r], w[r] + at, static_cast<size_t>(min(rest, int64_t{BYTES})));
        pointers[r] = copies[r];
      }
      return GroupDots().next(pointers, 0, 0, x);
    }
  };

 private:
  // The rows of w of a panel, and the prefetch distance in bytes of codes.
  struct PanelRows {
    const char *codes[GEMV_PANEL], *scales[GEMV_PANEL], *biases[GEMV_PANEL];
    int64_t prefetch_distance;

    PanelRows(const LinearArguments& a, const Panel& panel)
        : prefetch_distance(a.prefetch_panels * a.w_stride +
                            a.prefetch_inputs / 8 * a.bits) {
      for (int r = 0; r < GEMV_PANEL; ++r) {
        int64_t n = panel.row(r), size = float_size(a.scale_type);
        codes[r] = a.w + n * a.w_stride;
        scales[r] = static_cast<const char*>(a.scales) + n * a.scale_stride * size;
        biases[r] = static_cast<const char*>(a.biases) + n * a.bias_stride * size;
      }
    }

    // Goes on to the next panel.
    VOXFAST_INLINE void advance(const LinearArguments& a) {
      int64_t size = float_size(a.scale_type);
      for (int r = 0; r < GEMV_PANEL; ++r) {
        codes[r] += a.w_stride;
        scales[r] += a.scale_stride * size;
        biases[r] += a.bias_stride * size;
      }
    }
  };

  // The outputs of a panel.
  template <int BITS, int GROUP>
  VOXFAST_INLINE f32x4 multiply_panel(const LinearArguments& a,
                                      const PanelRows& w) const {
    using Dots = GroupDots<BITS, GROUP>;
    const int64_t row_bytes = a.k / 8 * BITS;
    f32x4 total{};
    Dots dots;
    for (int64_t first = 0; first < a.groups; first += LANES) {
      f32v scales[GEMV_PANEL] = {}, biases[GEMV_PANEL] = {};
      with_type(a.scale_type, [&]<typename T>(T*) __attribute__((always_inline)) {
        load_groups<T>(w.scales, first, a.groups, scales);
        load_groups<T>(w.biases, first, a.groups, biases);
      });
#pragma GCC unroll 4
      for (int i = 0; i < GEMV_PANEL; ++i) {
        int64_t g = first + i * GROUPS_PER_VECTOR;
        if (g < a.groups) {
          biases[i] = bias_of_codes(biases[i], scales[i], code_offset(BITS));
          const char* x = integers + 2 * GROUP * g;
          int64_t at = g * GROUP / 8 * BITS;
          i32v dots_i32 = at + Dots::READ <= row_bytes
                              ? dots.next(w.codes, at, w.prefetch_distance, x)
                              : Dots::tail_dots(w.codes, at, row_bytes - at, x);
          f32v terms = group_terms(__builtin_convertvector(dots_i32, f32v), scales[i],
                                   load(x_scales + GEMV_PANEL * g), biases[i],
                                   load(x_sums + GEMV_PANEL * g));
          float lanes[LANES];
          store(lanes, terms);
          for (int t = 0; t < GROUPS_PER_VECTOR; ++t) {
            total += read<f32x4>(lanes + t * GEMV_PANEL);
          }
        }
      }
    }
    return total;
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// linear with packed weights and one row of x: each weight is used as it is read, lanes
// along K. Transposing it, as for more rows, would cost more than its product.
//
// Sums over a group are integers, and groups are added in their order as for more rows:
// what comes out is the same to the bit.

#include "kernels/horizontal_sums.h"
#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/linear_packed_common.h"
#if defined(VOXFAST_VNNI)
#include "kernels/linear_packed_gemv_vnni.h"
#else
#include "kernels/linear_packed_gemv_madd.h"
#endif
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

typedef float f32x4 __attribute__((vector_size(16)));

struct PackedGemv {
  static constexpr int64_t KC = 512;
  static constexpr int GEMV_PANEL = 4;  // rows of w that are met at a time
  static constexpr int GROUPS_PER_VECTOR =
      LANES / GEMV_PANEL;  // groups whose sums share a vector

  static int64_t panel(const LinearArguments&) { return GEMV_PANEL; }
  static bool is_gemv(const LinearArguments&) { return true; }

  // Prepared x: integers, then of each group its unit and the sum of its integers times
  // the unit, both once for each of FEW_N rows of w. Whole blocks, whole vectors.
  float *x_scales, *sums;
  char* integers;

  explicit PackedGemv(const LinearArguments& a)
      : x_scales(reinterpret_cast<float*>(a.prepared)),
        sums(x_scales + GEMV_PANEL * padded_groups(a)),
        integers(reinterpret_cast<char*>(sums + GEMV_PANEL * padded_groups(a))) {}

  static int64_t padded_groups(const LinearArguments& a) {
    return round_up<int64_t>(a.groups, LANES);
  }
  static int64_t prepared_stride(const LinearArguments& a) {
    return 2 * GEMV_PANEL * padded_groups(a) * 4 + 2 * round_up<int64_t>(a.k, 1024);
  }

  static void prepare(const LinearArguments& a, int64_t) {
    const PackedGemv row(a);
    float* const both[] = {row.x_scales, row.sums};
    for (float* numbers : both) {  // what follows the last group
      std::memset(numbers + GEMV_PANEL * a.groups, 0,
                  sizeof(float) *
                      static_cast<size_t>(GEMV_PANEL * (padded_groups(a) - a.groups)));
    }
    with_format(a, [&]<int BITS, int GROUP>() {
      for (int64_t g = 0; g < a.groups; ++g) {
        int32_t integers[128];
        const QuantizedGroup group(a, 0, g, integers);
        for (int64_t i = 0; i < GEMV_PANEL; ++i) {
          row.x_scales[GEMV_PANEL * g + i] = group.scale;
          row.sums[GEMV_PANEL * g + i] = group.sum;
        }
        for (int64_t i = 0; i < GROUP; i += BLOCK_CODES) {
          RowChunk<BITS, GROUP>::arrange_x(integers + i, g * GROUP + i, row.integers);
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

 private:
  // Rows of w: their codes, scales and biases; and how many bytes ahead codes are
  // fetched.
  struct PanelRows {
    const char *codes[GEMV_PANEL], *scales[GEMV_PANEL], *biases[GEMV_PANEL];
    int64_t ahead;

    PanelRows(const LinearArguments& a, const Panel& panel)
        : ahead(a.prefetch_panels * a.w_stride + a.prefetch_inputs / 8 * a.bits) {
      for (int r = 0; r < GEMV_PANEL; ++r) {
        int64_t row = panel.row(r), size = float_size(a.scale_type);
        codes[r] = a.w + row * a.w_stride;
        scales[r] = static_cast<const char*>(a.scales) + row * a.scale_stride * size;
        biases[r] = static_cast<const char*>(a.biases) + row * a.bias_stride * size;
      }
    }

    VOXFAST_INLINE void advance(const LinearArguments& a) {
      int64_t size = float_size(a.scale_type);
      for (int r = 0; r < GEMV_PANEL; ++r) {
        codes[r] += a.w_stride;
        scales[r] += a.scale_stride * size;
        biases[r] += a.bias_stride * size;
      }
    }
  };

  // Calls f<BITS, GROUP>().
  template <typename F>
  static void with_format(const LinearArguments& a, F f) {
    with_bits(a.bits, [&]<int BITS>() {
      switch (a.group_size) {
        case 32:
          return f.template operator()<BITS, 32>();
        case 64:
          return f.template operator()<BITS, 64>();
        default:
          return f.template operator()<BITS, 128>();
      }
    });
  }

  // Products with FEW_N rows of w.
  template <int BITS, int GROUP>
  VOXFAST_INLINE f32x4 multiply_panel(const LinearArguments& a,
                                      const PanelRows& w) const {
    using Dots = GroupDots<BITS, GROUP>;
    const int64_t row_bytes = a.k / 8 * BITS;
    f32x4 total{};
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
          const char* x = integers + 2 * GROUP * g;
          int64_t at = g * GROUP / 8 * BITS;
          i32v dots_i32 = at + Dots::READ <= row_bytes
                              ? Dots::sums(w.codes, at, w.ahead, x)
                              : Dots::tail_dots(w.codes, at, row_bytes - at, x);
          f32v dots = __builtin_convertvector(dots_i32, f32v);
          f32v terms = group_terms(dots, scales[i], load(x_scales + GEMV_PANEL * g),
                                   biases[i], load(sums + GEMV_PANEL * g));
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

  // The numbers of LANES groups from `first` on: out[i] has those of SET groups, of each
  // FEW_N rows.
  template <typename T>
  VOXFAST_INLINE static void load_groups(const char* const (&rows)[GEMV_PANEL],
                                         int64_t first, int64_t groups,
                                         f32v (&out)[GEMV_PANEL]) {
    for (int r = 0; r < GEMV_PANEL; ++r) {
      out[r] = load_n(reinterpret_cast<const T*>(rows[r]) + first, groups - first);
    }
    transpose(out);
  }

  // SET groups of each of FEW_N rows of w.
  template <int BITS, int GROUP>
  struct GroupDots {
    using Chunk = RowChunk<BITS, GROUP>;
    // Vectors of sums that a row of w needs; blocks that are added up in one.
    static constexpr int VECTORS = Chunk::LANES_PER_GROUP / GEMV_PANEL;
    static constexpr int CHUNKS = GROUP > Chunk::INPUTS ? GROUP / Chunk::INPUTS : 1;
    static constexpr int LAST = VECTORS * CHUNKS - 1, BYTES = (LAST + 1) * Chunk::BYTES;
    // Nothing is read beyond the set, unless it is smaller than what is loaded at once.
    static constexpr int READ = BYTES < Chunk::LOAD_BYTES ? Chunk::LOAD_BYTES : BYTES;

    // Sums of codes times integers of x, of each group those of all rows. The set begins
    // `at` bytes after the rows do.
    VOXFAST_INLINE static i32v sums(const char* const (&rows)[GEMV_PANEL], int64_t at,
                                    int64_t ahead, const char* x) {
#pragma GCC unroll 4
      for (int r = 0; r < GEMV_PANEL; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < BYTES; i += 64) {
          const char* prefetch = rows[r] + at + ahead + i;
          // The fewer bits, the less memory is waited for: then the first cache is
          // better.
          BITS < 6 ? __builtin_prefetch(prefetch) : prefetch_l2(prefetch);
        }
      }
      i32v dots[VECTORS * GEMV_PANEL];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        i32v digits[GEMV_PANEL][DIGITS] = {};
#pragma GCC unroll 4
        for (int i = v * CHUNKS; i < (v + 1) * CHUNKS; ++i) {
          Chunk::add(rows, at + i * Chunk::BYTES, i == LAST && READ == BYTES,
                     x + i * 2 * Chunk::INPUTS, digits);
        }
#pragma GCC unroll 4
        for (int r = 0; r < GEMV_PANEL; ++r) {
          dots[v * GEMV_PANEL + r] = combine_digits(digits[r]);
        }
      }
      i32v sums_of_runs = horizontal_sums<Chunk::LANES_PER_GROUP>(dots);
#if defined(__AVX512F__)
      if constexpr (Chunk::LANES_PER_GROUP ==
                    8) {  // of two groups in a vector, the first come first
        sums_of_runs = __builtin_shufflevector(sums_of_runs, sums_of_runs, 0, 1, 2, 3, 8,
                                               9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15);
      }
#endif
      return sums_of_runs;
    }

    // The same of rows that end after `rest` bytes. Codes beyond are 0, whatever x is
    // there.
    [[gnu::noinline]] static i32v tail_dots(const char* const (&rows)[GEMV_PANEL],
                                            int64_t at, int64_t rest, const char* x) {
      char copies[GEMV_PANEL][READ] = {};
      const char* pointers[GEMV_PANEL];
      for (int r = 0; r < GEMV_PANEL; ++r) {
        std::memcpy(copies[r], rows[r] + at,
                    static_cast<size_t>(min<int64_t>(rest, BYTES)));
        pointers[r] = copies[r];
      }
      return sums(pointers, 0, 0, x);
    }
  };
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

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
#if defined(VOXFAST_BYTE_PRODUCTS)
#include "kernels/linear_packed_gemv_vnni.h"
#else
#include "kernels/linear_packed_gemv_madd.h"
#endif
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

typedef float f32x4 __attribute__((vector_size(16)));

struct PackedRow {
  static constexpr int64_t K_BLOCK = 512;
  static constexpr int FEW_N = 4;            // rows of w that are met at a time
  static constexpr int SET = LANES / FEW_N;  // groups whose sums share a vector

  static int64_t panel(const LinearArguments&) { return FEW_N; }
  static bool is_few(const LinearArguments&) { return true; }

  // Prepared x: integers, then of each group its unit and the sum of its integers times
  // the unit, both once for each of FEW_N rows of w. Whole blocks, whole vectors.
  float *units, *sums;
  char* integers;

  explicit PackedRow(const LinearArguments& a)
      : units(reinterpret_cast<float*>(a.prepared)),
        sums(units + FEW_N * padded_groups(a)),
        integers(reinterpret_cast<char*>(sums + FEW_N * padded_groups(a))) {}

  static int64_t padded_groups(const LinearArguments& a) {
    return round_up_to(a.groups, LANES);
  }
  static int64_t prepared_stride(const LinearArguments& a) {
    return 2 * FEW_N * padded_groups(a) * 4 + 2 * round_up_to(a.k, 1024);
  }

  static void prepare(const LinearArguments& a, int64_t) {
    const PackedRow row(a);
    float* const both[] = {row.units, row.sums};
    for (float* numbers : both) {  // what follows the last group
      std::memset(
          numbers + FEW_N * a.groups, 0,
          sizeof(float) * static_cast<size_t>(FEW_N * (padded_groups(a) - a.groups)));
    }
    with_format(a, [&]<int BITS, int GROUP>() {
      for (int64_t g = 0; g < a.groups; ++g) {
        int32_t rounded[128];
        const RoundedGroup group(a, 0, g, rounded);
        for (int64_t i = 0; i < FEW_N; ++i) {
          row.units[FEW_N * g + i] = group.unit;
          row.sums[FEW_N * g + i] = group.sum;
        }
        for (int64_t i = 0; i < GROUP; i += BLOCK_CODES) {
          RowBlock<BITS, GROUP>::lay_out(rounded + i, g * GROUP + i, row.integers);
        }
      }
    });
  }

  static void multiply(const LinearArguments& a, int64_t task) {
    with_format(a, [&]<int BITS, int GROUP>() {
      few_outputs<1, FEW_N>(a, task, [&](const Panel& panel) {
        return
            [&a, x = PackedRow(a), w = Rows(a, panel)](float (&out)[1][FEW_N]) mutable {
              f32x4 sum = x.multiply_rows<BITS, GROUP>(a, w);
              std::memcpy(out, &sum, sizeof sum);
              w.advance(a);
            };
      });
    });
  }

 private:
  // Rows of w: their codes, scales and biases; and how many bytes ahead codes are
  // fetched.
  struct Rows {
    const char *codes[FEW_N], *scales[FEW_N], *biases[FEW_N];
    int64_t ahead;

    Rows(const LinearArguments& a, const Panel& panel)
        : ahead(a.panels_ahead * a.w_stride + a.inputs_ahead / 8 * a.bits) {
      for (int r = 0; r < FEW_N; ++r) {
        int64_t row = panel.row(r), size = float_size(a.scale_type);
        codes[r] = a.w + row * a.w_stride;
        scales[r] = static_cast<const char*>(a.scales) + row * a.scale_stride * size;
        biases[r] = static_cast<const char*>(a.biases) + row * a.bias_stride * size;
      }
    }

    VOXFAST_INLINE void advance(const LinearArguments& a) {
      int64_t size = float_size(a.scale_type);
      for (int r = 0; r < FEW_N; ++r) {
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
  VOXFAST_INLINE f32x4 multiply_rows(const LinearArguments& a, const Rows& w) const {
    using Set = GroupSet<BITS, GROUP>;
    const int64_t row_bytes = a.k / 8 * BITS;
    f32x4 total{};
    for (int64_t first = 0; first < a.groups; first += LANES) {
      f32v scales[FEW_N] = {}, biases[FEW_N] = {};
      with_type(a.scale_type, [&]<typename T>(T*) __attribute__((always_inline)) {
        load_groups<T>(w.scales, first, a.groups, scales);
        load_groups<T>(w.biases, first, a.groups, biases);
      });
#pragma GCC unroll 4
      for (int i = 0; i < FEW_N; ++i) {
        int64_t g = first + i * SET;
        if (g < a.groups) {
          const char* x = integers + 2 * GROUP * g;
          int64_t at = g * GROUP / 8 * BITS;
          i32v sums_of_set = at + Set::READ <= row_bytes
                                 ? Set::sums(w.codes, at, w.ahead, x)
                                 : Set::sums_of_rest(w.codes, at, row_bytes - at, x);
          f32v dots = __builtin_convertvector(sums_of_set, f32v);
          f32v terms = group_terms(dots, scales[i], load(units + FEW_N * g), biases[i],
                                   load(sums + FEW_N * g));
          float lanes[LANES];
          store(lanes, terms);
          for (int t = 0; t < SET; ++t) {
            total += read<f32x4>(lanes + t * FEW_N);
          }
        }
      }
    }
    return total;
  }

  // The numbers of LANES groups from `first` on: out[i] has those of SET groups, of each
  // FEW_N rows.
  template <typename T>
  VOXFAST_INLINE static void load_groups(const char* const (&rows)[FEW_N], int64_t first,
                                         int64_t groups, f32v (&out)[FEW_N]) {
    for (int r = 0; r < FEW_N; ++r) {
      out[r] = load_some(reinterpret_cast<const T*>(rows[r]) + first, groups - first);
    }
    transpose(out);
  }

  // SET groups of each of FEW_N rows of w.
  template <int BITS, int GROUP>
  struct GroupSet {
    using Block = RowBlock<BITS, GROUP>;
    // Vectors of sums that a row of w needs; blocks that are added up in one.
    static constexpr int VECTORS = Block::RUN / FEW_N;
    static constexpr int BLOCKS = GROUP > Block::INPUTS ? GROUP / Block::INPUTS : 1;
    static constexpr int LAST = VECTORS * BLOCKS - 1, BYTES = (LAST + 1) * Block::BYTES;
    // Nothing is read beyond the set, unless it is smaller than what is loaded at once.
    static constexpr int READ = BYTES < Block::LOADED ? Block::LOADED : BYTES;

    // Sums of codes times integers of x, of each group those of all rows. The set begins
    // `at` bytes after the rows do.
    VOXFAST_INLINE static i32v sums(const char* const (&rows)[FEW_N], int64_t at,
                                    int64_t ahead, const char* x) {
#pragma GCC unroll 4
      for (int r = 0; r < FEW_N; ++r) {
#pragma GCC unroll 8
        for (int i = 0; i < BYTES; i += 64) {
          const char* later = rows[r] + at + ahead + i;
          // The fewer bits, the less memory is waited for: then the first cache is
          // better.
          BITS < 6 ? __builtin_prefetch(later) : fetch_line(later);
        }
      }
      i32v dots[VECTORS * FEW_N];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        i32v digits[FEW_N][DIGITS] = {};
#pragma GCC unroll 4
        for (int i = v * BLOCKS; i < (v + 1) * BLOCKS; ++i) {
          Block::add(rows, at + i * Block::BYTES, i == LAST && READ == BYTES,
                     x + i * 2 * Block::INPUTS, digits);
        }
#pragma GCC unroll 4
        for (int r = 0; r < FEW_N; ++r) {
          dots[v * FEW_N + r] = united(digits[r]);
        }
      }
      i32v sums_of_runs = run_sums<Block::RUN>(dots);
#if defined(__AVX512F__)
      if constexpr (Block::RUN == 8) {  // of two groups in a vector, the first come first
        sums_of_runs = __builtin_shufflevector(sums_of_runs, sums_of_runs, 0, 1, 2, 3, 8,
                                               9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15);
      }
#endif
      return sums_of_runs;
    }

    // The same of rows that end after `rest` bytes. Codes beyond are 0, whatever x is
    // there.
    [[gnu::noinline]] static i32v sums_of_rest(const char* const (&rows)[FEW_N],
                                               int64_t at, int64_t rest, const char* x) {
      char copies[FEW_N][READ] = {};
      const char* pointers[FEW_N];
      for (int r = 0; r < FEW_N; ++r) {
        std::memcpy(copies[r], rows[r] + at, static_cast<size_t>(smallest(rest, BYTES)));
        pointers[r] = copies[r];
      }
      return sums(pointers, 0, 0, x);
    }
  };
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

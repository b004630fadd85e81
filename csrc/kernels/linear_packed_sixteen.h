#pragma once

// linear with packed w and about 16 rows of x, on processors with AVX-512 VNNI and VBMI.
// Glossary: linear.h.
//
// Each lane is a row of x, and four bytes of w are broadcast to all lanes: w is neither
// transposed nor stored, and stores of whole vectors are what products cannot overlap
// with (on Zen 5). Dots are exact integers and groups are added in order, so a row's
// result does not depend on the other rows.

#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/linear_packed_common.h"
#include "kernels/linear_packed_few.h"
#include "kernels/linear_packed_gemv_bytes.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// The four bytes at p, in all lanes. (GCC 12 goes through a general register.)
VOXFAST_INLINE i32v broadcast_load(const char* p) {
  i32v x;
  asm("vpbroadcastd %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const char (*)[4]>(p)));
  return x;
}

struct PackedSixteen {
  static constexpr int ROWS = LANES;  // of x; absent ones are 0
  static constexpr int PANEL = LANES;
  static constexpr int PART = 8;                   // outputs whose sums are in registers
  static constexpr int64_t KC = int64_t{1} << 32;  // a slice is a whole row
  // With fewer rows of x, transposing w costs less than lanes that are 0.
  static constexpr int MIN_M = 13, MAX_M = ROWS;
  static constexpr int64_t PREFETCH_BYTES = 512;  // distance along each row of w

  static int64_t panel(const LinearArguments&) { return PANEL; }
  static bool has_strips(const LinearArguments&) { return false; }

  // Prepared x: [groups, lanes of codes, 2, ROWS] the digits of four integers, high and
  // low; [groups, 2, ROWS] the x_scales, and the sums of the integers times x_scale.
  static int64_t prepared_stride(const LinearArguments& a) {
    int64_t bytes = a.groups * ROWS * (2 * a.group_size + 8);
    return (bytes + a.m - 1) / a.m;
  }
  static char* x_integers(const LinearArguments& a, int64_t group) {
    return a.prepared + group * ROWS * 2 * a.group_size;
  }
  static float* x_factors(const LinearArguments& a, int64_t group) {
    return reinterpret_cast<float*>(x_integers(a, a.groups)) + group * 2 * ROWS;
  }

  // How codes are read. A byte has PLANES codes; plane p is code p of every byte. If
  // codes do not fill bytes of w, a stage of bytes is extracted from it, whole groups.
  template <int BITS, int GROUP>
  struct Format {
    static constexpr int PLANES = planes_of(BITS, GROUP), PACKED_BITS = PLANES * BITS;
    static constexpr int GROUP_BYTES = GROUP / PLANES;
    static constexpr bool IS_EXTRACTED = PACKED_BITS < 8;
    static constexpr int STAGE_BYTES = GROUP_BYTES < 64 ? 64 : GROUP_BYTES;
    static constexpr int GROUPS = STAGE_BYTES / GROUP_BYTES;
  };

  // Prepares a share of the groups, not row m: rows share cache lines.
  static void prepare(const LinearArguments& a, int64_t m) {
    with_format(a, [&]<int BITS, int GROUP>() {
      for (int64_t g = a.groups * m / a.m; g < a.groups * (m + 1) / a.m; ++g) {
        prepare_group<BITS, GROUP>(a, g);
      }
    });
  }

  static void multiply(const LinearArguments& a, int64_t task) {
    with_format(a, [&]<int BITS, int GROUP>() {
      gemm_task<PANEL>(a, task,
                       [&](int64_t n, int64_t, int64_t, int64_t, float (*sums)[PANEL]) {
                         add_panel<BITS, GROUP>(a, neighbours<PANEL>(a, n), sums);
                       });
    });
  }

 private:
  template <int BITS, int GROUP>
  static void prepare_group(const LinearArguments& a, int64_t group) {
    char* out = x_integers(a, group);
    float* factors = x_factors(a, group);
    for (int64_t r = 0; r < ROWS; ++r) {
      int32_t integers[GROUP] = {};
      factors[r] = factors[ROWS + r] = 0;
      if (r < a.m) {
        const QuantizedGroup quantized(a, r, group, integers);
        factors[r] = quantized.scale;
        factors[ROWS + r] = quantized.sum;
      }
      for (int i = 0; i < GROUP; i += BLOCK_CODES) {
        char digits[2 * BLOCK_CODES];
        split_digits(integers + i, FEW_ORDER<Format<BITS, GROUP>::PLANES>.from, digits);
        for (int j = 0; j < 2 * BLOCK_CODES / 4; ++j) {
          std::memcpy(out + (i / 2 + j) * 4 * ROWS + 4 * r, digits + 4 * j, 4);
        }
      }
    }
  }

  // Adds the products of a panel's rows of w with all rows of x.
  template <int BITS, int GROUP>
  [[gnu::noinline]] static void add_panel(const LinearArguments& a, const Panel& panel,
                                          float (*out)[PANEL]) {
    using F = Format<BITS, GROUP>;
    const int64_t row_bytes = a.k / 8 * BITS;
    const char *rows[PANEL], *w[PANEL];
    char stage[PANEL][F::STAGE_BYTES];
    for (int r = 0; r < PANEL; ++r) {
      rows[r] = a.w + panel.row(r) * a.w_stride;
      w[r] = F::IS_EXTRACTED ? stage[r] : rows[r];
    }
    f32v scales[LANES], biases[LANES], sums[PANEL] = {};
    for (int64_t g = 0; g < a.groups; ++g) {
      if (g % LANES == 0) {
        with_type(a.scale_type, [&]<typename T>(T*) __attribute__((always_inline)) {
          PackedFew::load_groups<T>(a, a.scales, a.scale_stride, panel, g, scales);
          PackedFew::load_groups<T>(a, a.biases, a.bias_stride, panel, g, biases);
        });
      }
      const int64_t at = g * (GROUP / 8 * BITS);
      if (at % 64 < GROUP / 8 * BITS) {
        int64_t prefetch_at = at + PREFETCH_BYTES;
        if (prefetch_at >= row_bytes) {
          prefetch_at += panel.step * a.w_stride - row_bytes;  // in the next panel
        }
        for (const char* row : rows) {
          __builtin_prefetch(row + prefetch_at);  // may lie beyond w, and cannot fault
        }
      }
      if (F::IS_EXTRACTED && g % F::GROUPS == 0) {
        extract<BITS, GROUP>(rows, at, row_bytes - at, stage);
      }
      const int64_t from = F::IS_EXTRACTED ? g % F::GROUPS * F::GROUP_BYTES : at;
      const f32v x_scales = load(x_factors(a, g)), x_sums = load(x_factors(a, g) + ROWS);
      for (int part = 0; part < PANEL; part += PART) {
        i32v dots[PART][DIGITS] = {};
        add_group<BITS, GROUP>(w + part, from, x_integers(a, g), dots);
#pragma GCC unroll 8
        for (int o = 0; o < PART; ++o) {
          f32v value = __builtin_convertvector(combine_digits(dots[o]), f32v);
          int n = part + o;
          sums[n] =
              sums[n] + group_terms(value, broadcast(scales[g % LANES][n]), x_scales,
                                    broadcast(biases[g % LANES][n]), x_sums);
        }
      }
    }
    transpose(sums);
    for (int64_t m = 0; m < a.m; ++m) {
      store(out[m], load(out[m]) + sums[m]);
    }
  }

  // Extracts the bytes of a stage, `at` bytes into each row, `rest` bytes before its end.
  template <int BITS, int GROUP>
  VOXFAST_INLINE static void extract(const char* const (&rows)[PANEL], int64_t at,
                                     int64_t rest,
                                     char (*out)[Format<BITS, GROUP>::STAGE_BYTES]) {
    using F = Format<BITS, GROUP>;
    constexpr int CHUNK_BYTES = 8 * F::PACKED_BITS;  // for 64 bytes
    for (int i = 0; i < F::STAGE_BYTES; i += 64, at += CHUNK_BYTES, rest -= CHUNK_BYTES) {
      // 0 beyond the row. Less than a chunk remains only in the last stage.
      const __mmask64 mask = ~0ULL >> (64 - min(rest, int64_t{CHUNK_BYTES}));
#pragma GCC unroll 4
      for (int r = 0; r < PANEL; ++r) {
        u32v bytes = extract_bytes<F::PACKED_BITS>(
            _mm512_maskz_loadu_epi8(mask, rows[r] + at), false);
        std::memcpy(out[r] + i, &bytes, sizeof bytes);
      }
    }
  }

  // Adds the dots of a group of PART rows of w, `from` bytes into each, with all rows of
  // x.
  template <int BITS, int GROUP>
  VOXFAST_INLINE static void add_group(const char* const* w, int64_t from, const char* x,
                                       i32v (&dots)[PART][DIGITS]) {
    using F = Format<BITS, GROUP>;
    constexpr int VECTORS = F::PLANES * DIGITS;
#pragma GCC unroll 2
    for (int i = 0; i < F::GROUP_BYTES; i += 4) {
      i32v digits[VECTORS];
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; ++v, x += sizeof(i32v)) {
        digits[v] = read<i32v>(x);
      }
#pragma GCC unroll 8
      for (int o = 0; o < PART; ++o) {
        u32v bytes = (u32v)broadcast_load(w[o] + from + i);
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
          u32v codes = plane_codes<BITS>(bytes, v / DIGITS);
          dots[o][v % DIGITS] = add_dot(dots[o][v % DIGITS], codes, digits[v]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

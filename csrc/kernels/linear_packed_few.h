#pragma once

// linear with packed w and a few rows of x, on processors with AVX-512 VNNI and VBMI.
// Glossary: linear.h.
//
// Each lane is an output, as in linear_packed_gemm.h, but w is read as in a gemv: a panel
// has one row of each of 16 strips, and a stage of it, no more than a vector of bytes per
// row, is transposed and unpacked into L1 just before it is multiplied. So reading and
// unpacking overlap with products. The rows of x are divided into tiles, whose sums are
// in registers; all tiles take a stage before the next one is unpacked. Dots are exact
// integers and groups are added in order, so a row's result does not depend on the other
// rows.

#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/linear_packed_common.h"
#include "kernels/linear_packed_gemv_bytes.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// The order of 32 integers of x: of each lane its high digits, then its low digits, as
// split_digits takes it. Lane l has codes of plane l % PLANES.
template <int PLANES>
struct FewOrder {
  alignas(64) uint8_t from[64] = {};

  constexpr FewOrder() {
    for (int i = 0; i < 32; ++i) {
      int lane = i / 4, input = (lane / PLANES * 4 + i % 4) * PLANES + lane % PLANES;
      from[8 * lane + i % 4] = static_cast<uint8_t>(input);
      from[8 * lane + 4 + i % 4] = static_cast<uint8_t>(32 + input);
    }
  }
};

template <int PLANES>
constexpr FewOrder<PLANES> FEW_ORDER;

struct PackedFew {
  static constexpr int PANEL = LANES;
  static constexpr int64_t KC = int64_t{1} << 32;  // a slice is a whole row
  static constexpr int MAX_M = 24;                 // more rows of x use the gemm
  static constexpr int MAX_MR = 8;
  static constexpr int64_t PREFETCH_BYTES = 512;  // distance along each row of w

  static int64_t panel(const LinearArguments&) { return PANEL; }
  static bool has_strips(const LinearArguments&) { return true; }

  // Prepared x, so that the rows of a tile are neighbours in memory: [groups, M] the
  // integers of a group; [groups, M, 2] the x_scale, and the sum of the integers times
  // x_scale.
  static int64_t prepared_stride(const LinearArguments& a) {
    return a.groups * (2 * a.group_size + 8);
  }
  static char* x_integers(const LinearArguments& a, int64_t group, int64_t m) {
    return a.prepared + (group * a.m + m) * 2 * a.group_size;
  }
  static float* x_factors(const LinearArguments& a, int64_t group, int64_t m) {
    char* all = x_integers(a, a.groups, 0);
    return reinterpret_cast<float*>(all) + 2 * (group * a.m + m);
  }

  // How codes are unpacked. A chunk is a vector of bytes with PLANES codes each. If codes
  // do not fill bytes of w, each byte is extracted from it. Plane p is code p of every
  // byte.
  template <int BITS, int GROUP>
  struct Format {
    static constexpr int PLANES = planes_of(BITS, GROUP), PACKED_BITS = PLANES * BITS;
    static constexpr int CHUNK_CODES = 64 * PLANES, CHUNK_BYTES = 8 * PACKED_BITS;
    static constexpr int STAGE_CODES = GROUP < CHUNK_CODES ? CHUNK_CODES : GROUP;
    static constexpr int GROUPS = STAGE_CODES / GROUP, CHUNKS = STAGE_CODES / CHUNK_CODES;
    static constexpr int GROUP_LANES = GROUP / CODES_PER_LANE;
  };

  static void prepare(const LinearArguments& a, int64_t m) {
    with_format(a, [&]<int BITS, int GROUP>() {
      for (int64_t g = 0; g < a.groups; ++g) {
        int32_t integers[GROUP];
        const QuantizedGroup group(a, m, g, integers);
        float* factors = x_factors(a, g, m);
        factors[0] = group.scale;
        factors[1] = group.sum;
        for (int i = 0; i < GROUP; i += BLOCK_CODES) {
          split_digits(integers + i, FEW_ORDER<Format<BITS, GROUP>::PLANES>.from,
                       x_integers(a, g, m) + 2 * i);
        }
      }
    });
  }

  static void multiply(const LinearArguments& a, int64_t task) {
    int64_t tiles = (a.m + MAX_MR - 1) / MAX_MR;
    with_format(a, [&]<int BITS, int GROUP>() {
      multiply_tiles<MAX_MR, BITS, GROUP>(a, task, (a.m + tiles - 1) / tiles);
    });
  }

  // Loads scales or biases: out[g] has those of group first + g of each row of a panel.
  template <typename T>
  VOXFAST_INLINE static void load_groups(const LinearArguments& a, const void* p,
                                         int64_t stride, const Panel& panel,
                                         int64_t first, f32v (&out)[LANES]) {
    constexpr int NUMBERS = 16 / sizeof(T);  // of a quad
    const char* rows[PANEL];
    for (int64_t r = 0; r < PANEL; ++r) {
      const T* row = static_cast<const T*>(p) + panel.row(r) * stride + first;
      prefetch_l2(row + panel.step * stride);  // of the next panel
      rows[r] = reinterpret_cast<const char*>(row);
    }
    for (int g = 0; g < LANES; g += NUMBERS) {
      int64_t rest =
          min((a.groups - first - g) * static_cast<int64_t>(sizeof(T)), int64_t{16});
      if (rest <= 0) {
        return;
      }
      auto mask = static_cast<__mmask16>((1u << rest) - 1);
      f32v x[QUAD];
#pragma GCC unroll 4
      for (int v = 0; v < QUAD; ++v) {
        auto quad = [&](int i) __attribute__((always_inline)) {
          return _mm_maskz_loadu_epi8(
              mask, rows[QUAD * i + v] + g * static_cast<int>(sizeof(T)));
        };
        __m512i all = _mm512_zextsi128_si512(quad(0));
        all = _mm512_maskz_inserti32x4(0xffff, all, quad(1), 1);
        all = _mm512_maskz_inserti32x4(0xffff, all, quad(2), 2);
        x[v] = (f32v)_mm512_maskz_inserti32x4(0xffff, all, quad(3), 3);
      }
      transpose_within_quads(x);
#pragma GCC unroll 4
      for (int i = 0; i < QUAD; ++i) {
        if constexpr (sizeof(T) == 4) {
          out[g + i] = x[i];
        } else {
          out[g + 2 * i] = widen(T{}, (u32v)x[i] << 16);
          out[g + 2 * i + 1] = widen(T{}, (u32v)x[i] & 0xffff0000u);
        }
      }
    }
  }

  // Lane i of quad j of x[v] becomes lane v of quad j of x[i].
  VOXFAST_INLINE static void transpose_within_quads(f32v (&x)[QUAD]) {
    __m512d low[2], high[2];
    for (int i = 0; i < 2; ++i) {
      auto a = (__m512)x[2 * i], b = (__m512)x[2 * i + 1];
      low[i] = (__m512d)_mm512_maskz_unpacklo_ps(0xffff, a, b);
      high[i] = (__m512d)_mm512_maskz_unpackhi_ps(0xffff, a, b);
    }
    x[0] = (f32v)_mm512_maskz_unpacklo_pd(0xff, low[0], low[1]);
    x[1] = (f32v)_mm512_maskz_unpackhi_pd(0xff, low[0], low[1]);
    x[2] = (f32v)_mm512_maskz_unpacklo_pd(0xff, high[0], high[1]);
    x[3] = (f32v)_mm512_maskz_unpackhi_pd(0xff, high[0], high[1]);
  }

  // The number in the upper half of each lane.
  VOXFAST_INLINE static f32v widen(bf16, u32v x) { return (f32v)x; }
  VOXFAST_INLINE static f32v widen(f16, u32v x) {
    return (f32v)_mm512_maskz_cvtph_ps(
        0xffff, _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)(x >> 16)));
  }

 private:
  // `rows` of x per tile, at most MR; some tiles have one less.
  template <int MR, int BITS, int GROUP>
  static void multiply_tiles(const LinearArguments& a, int64_t task, int64_t rows) {
    if constexpr (MR > 2) {
      if (rows < MR) {
        return multiply_tiles<MR - 1, BITS, GROUP>(a, task, rows);
      }
    }
    gemv_task<MAX_M, PANEL>(a, task, [&](Panel panel) {
      return [&a, panel](float (&sums)[MAX_M][PANEL]) mutable {
        add_panel<MR, BITS, GROUP>(a, panel, sums);
        panel = panel.after(a, 1);
      };
    });
  }

  // Transposes: lane r of x[i] becomes lane i of x[r].
  VOXFAST_INLINE static void transpose_lanes(f32v (&x)[LANES]) {
    f32v y[QUAD][QUAD];
#pragma GCC unroll 4
    for (int q = 0; q < QUAD; ++q) {
#pragma GCC unroll 4
      for (int i = 0; i < QUAD; ++i) {
        y[q][i] = x[QUAD * q + i];
      }
      transpose_within_quads(y[q]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < QUAD; ++i) {
      f32v quads[QUAD] = {y[0][i], y[1][i], y[2][i], y[3][i]};
      transpose_quads(quads);
#pragma GCC unroll 4
      for (int j = 0; j < QUAD; ++j) {
        x[QUAD * j + i] = quads[j];
      }
    }
  }

  // Adds the products of a panel's rows of w with all rows of x.
  template <int MR, int BITS, int GROUP>
  [[gnu::noinline]] static void add_panel(const LinearArguments& a, const Panel& panel,
                                          float (*sums)[PANEL]) {
    using F = Format<BITS, GROUP>;
    const char* rows[PANEL];
    for (int64_t r = 0; r < PANEL; ++r) {
      rows[r] = a.w + panel.row(r) * a.w_stride;
    }
    // Tiles of MR rows of x come first, then those of one less.
    const int64_t tiles = (a.m + MR - 1) / MR, whole = MR * (a.m - tiles * (MR - 1));
    u32v codes[F::STAGE_CODES / CODES_PER_LANE];
    f32v scales[LANES], biases[LANES];
    for (int64_t g = 0, at = 0; g < a.groups; g += F::GROUPS) {
      int64_t first = g % LANES;
      if (first == 0) {
        with_type(a.scale_type, [&]<typename T>(T*) __attribute__((always_inline)) {
          load_groups<T>(a, a.scales, a.scale_stride, panel, g, scales);
          load_groups<T>(a, a.biases, a.bias_stride, panel, g, biases);
        });
      }
#pragma GCC unroll 2
      for (int chunk = 0; chunk < F::CHUNKS; ++chunk, at += F::CHUNK_BYTES) {
        unpack<BITS, GROUP>(rows, at, a.k / 8 * BITS - at,
                            codes + chunk * LANES * F::PLANES);
      }
      const int64_t count = min(int64_t{F::GROUPS}, a.groups - g);
      for (int64_t i = 0; i < count; ++i) {
        const u32v* w = codes + i * F::GROUP_LANES;
        int64_t m = 0;
        for (; m < whole; m += MR) {
          add_tile<MR, GROUP>(a, w, g + i, m, scales[first + i], biases[first + i],
                              sums + m);
        }
        if constexpr (MR > 2) {  // two rows of x are one tile
          for (; m < a.m; m += MR - 1) {
            add_tile<MR - 1, GROUP>(a, w, g + i, m, scales[first + i], biases[first + i],
                                    sums + m);
          }
        }
      }
    }
  }

  // Unpacks a chunk of a panel, `at` bytes into each row, `rest` bytes before its end.
  template <int BITS, int GROUP>
  VOXFAST_INLINE static void unpack(const char* const (&rows)[PANEL], int64_t at,
                                    int64_t rest, u32v* out) {
    using F = Format<BITS, GROUP>;
    // 0 beyond the row. Less than a chunk remains only in the last stage.
    const __mmask64 mask = ~0ULL >> (64 - min(rest, int64_t{F::CHUNK_BYTES}));
    f32v bytes[LANES];
#pragma GCC unroll 16
    for (int r = 0; r < PANEL; ++r) {
      __builtin_prefetch(rows[r] + at + PREFETCH_BYTES);  // then the next panel's row
      bytes[r] = (f32v)extract_bytes<F::PACKED_BITS>(
          _mm512_maskz_loadu_epi8(mask, rows[r] + at), false);
    }
    transpose_lanes(bytes);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) {
#pragma GCC unroll 4
      for (int p = 0; p < F::PLANES; ++p) {
        out[i * F::PLANES + p] = plane_codes<BITS>((u32v)bytes[i], p);
      }
    }
  }

  // Adds the products of a group of a panel with rows [m, m + MR) of x.
  template <int MR, int GROUP>
  VOXFAST_INLINE static void add_tile(const LinearArguments& a, const u32v* w,
                                      int64_t group, int64_t m, f32v scales, f32v biases,
                                      float (*sums)[PANEL]) {
    const char* x = x_integers(a, group, m);
    i32v dots[MR][DIGITS] = {};
#pragma GCC unroll 4
    for (int lane = 0; lane < GROUP / CODES_PER_LANE; ++lane) {
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
        for (int d = 0; d < DIGITS; ++d) {
          add_dot_at(dots[i][d], w[lane], x + i * 2 * GROUP + 8 * lane + 4 * d);
        }
      }
    }
    const float* factors = x_factors(a, group, m);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      f32v value = __builtin_convertvector(combine_digits(dots[i]), f32v);
      f32v terms = group_terms(value, scales, broadcast(factors[2 * i]), biases,
                               broadcast(factors[2 * i + 1]));
      store(sums[i], load(sums[i]) + terms);
    }
  }

  // add_dot with the lane of x at p, broadcast by the instruction itself.
  VOXFAST_INLINE static void add_dot_at(i32v& sum, u32v w, const char* p) {
    asm("vpdpbusd %2%{1to16%}, %1, %0"
        : "+v"(sum)
        : "v"(w), "m"(*reinterpret_cast<const char (*)[4]>(p)));
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// linear with packed w on processors with AVX-512 VNNI and VBMI. Glossary: linear.h.
//
// A vector of w holds one quad, 16 codes as bytes, of each of four rows. It is multiplied
// with the same quad of x, broadcast. Transposing quads takes two shuffles per vector,
// where transposing lanes, as linear_packed_gemm.h does, takes four, and unpacks codes in
// the order they have in memory. The sums of a group have four lanes per output, whatever
// its size and bits: four vectors of sums, of 16 outputs, are added horizontally to one.
//
// Codes are unpacked a stage at a time, between the products with the stage before, so
// that the two can overlap. Dots are exact integers and groups are added in order, so a
// row's result does not depend on the other rows.

#include "kernels/horizontal_sums.h"
#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/linear_packed_common.h"
#include "kernels/linear_packed_gemv_bytes.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

struct PackedQuads {
  static constexpr int64_t PANEL = LANES;
  static constexpr int64_t KC = int64_t{1} << 32;  // a slice is a whole row
  // More rows of x use the gemm. The sums of five take 20 registers of 32; with more
  // tiles of rows, unpacking once for each of them takes longer than repacking once.
  static constexpr int MAX_M = 5;
  static constexpr int VECTORS = PANEL / QUAD;
  static constexpr int QUAD_CODES = 4 * QUAD;
  static constexpr int64_t MAX_STAGE_BYTES = 512;  // of a row of x

  // A quad of all rows of a panel; vector v has rows v, v + 4, v + 8 and v + 12, which is
  // the order that horizontal_sums restores.
  typedef u32v QuadCodes[VECTORS];

  static int64_t panel(const LinearArguments&) { return PANEL; }
  static bool is_gemv(const LinearArguments&) { return false; }

  // Prepared x: of each quad its high digits, then its low digits. The last stage may
  // read beyond a row.
  static int64_t prepared_stride(const LinearArguments& a) {
    return round_up(PreparedRow::bytes(a) + MAX_STAGE_BYTES, int64_t{64});
  }

  // How codes are unpacked. A chunk is a vector of bytes with PLANES codes each. If codes
  // do not fill bytes of w, each byte is extracted from it. Plane p is code p of every
  // byte: the codes of quad i are those of byte quad i / PLANES at plane i % PLANES.
  template <int BITS, int GROUP>
  struct Format {
    static constexpr int PLANES = planes_of(BITS, GROUP), PACKED_BITS = PLANES * BITS;
    static constexpr int CHUNK_CODES = 64 * PLANES, CHUNK_BYTES = 8 * PACKED_BITS;
    static constexpr int STAGE_CODES = GROUP < CHUNK_CODES ? CHUNK_CODES : GROUP;
    static constexpr int STAGE_GROUPS = STAGE_CODES / GROUP;
    static constexpr int CHUNKS = STAGE_CODES / CHUNK_CODES;

    // Writes inputs k ... k + 31 of x.
    static void arrange_x(const int32_t* integers, int64_t k, char* out) {
      constexpr int PLANE_BYTES = 32 / PLANES;
      constexpr int PIECE = PLANE_BYTES < QUAD_CODES ? PLANE_BYTES : QUAD_CODES;
      char digits[64];
      split_digits(integers, PLANE_ORDER<PLANES>.order, digits);
      for (int i = 0; i < 32; i += PIECE) {
        int64_t plane = i / PLANE_BYTES, byte = k / PLANES + i % PLANE_BYTES;
        int64_t quad = byte / QUAD_CODES * PLANES + plane;
        char* to = out + 2 * QUAD_CODES * quad + byte % QUAD_CODES;
        std::memcpy(to, digits + i, PIECE);
        std::memcpy(to + QUAD_CODES, digits + 32 + i, PIECE);
      }
    }
  };

  // Unpacks a stage of a panel piece by piece; a piece is a chunk of four rows.
  template <int BITS, int GROUP>
  struct Unpacking {
    using F = Format<BITS, GROUP>;
    static constexpr int PIECES = F::CHUNKS * VECTORS;

    const char* const* rows;
    int64_t at;            // bytes into each row
    const char* prefetch;  // as many bytes as the stage has
    __mmask64 mask;        // reads 0 beyond the row
    QuadCodes* out;

    VOXFAST_INLINE void unpack(int piece) const {
      const int chunk = piece / VECTORS, v = piece % VECTORS;
      f32v bytes[QUAD];
#pragma GCC unroll 4
      for (int i = 0; i < QUAD; ++i) {
        const char* row = rows[VECTORS * i + v] + chunk * F::CHUNK_BYTES;
        prefetch_l2(prefetch + (piece * QUAD + i) * F::CHUNK_BYTES);
        bytes[i] = (f32v)extract_bytes<F::PACKED_BITS>(
            _mm512_maskz_loadu_epi8(mask, row + at), false);
      }
      transpose_quads(bytes);
      QuadCodes* to = out + chunk * QUAD * F::PLANES;
#pragma GCC unroll 4
      for (int i = 0; i < QUAD; ++i) {
#pragma GCC unroll 4
        for (int p = 0; p < F::PLANES; ++p) {
          to[i * F::PLANES + p][v] = plane_codes<BITS>((u32v)bytes[i], p);
        }
      }
    }
  };

  static void prepare(const LinearArguments& a, int64_t m) {
    with_format(a, [&]<int BITS, int GROUP>() {
      prepare_row(a, m, Format<BITS, GROUP>::arrange_x);
    });
  }

  static void multiply(const LinearArguments& a, int64_t task) {
    with_format(a, [&]<int BITS, int GROUP>() {
      gemm_task<PANEL>(a, task,
                       [&](int64_t n, int64_t, int64_t m, int64_t m_count, float* sums) {
                         add_panel<MAX_M, BITS, GROUP>(a, n, m, m_count, sums);
                       });
    });
  }

 private:
  // Loads scales or biases: out[g] has those of group first + g of each row of a panel.
  template <typename T>
  VOXFAST_INLINE static void load_groups(const LinearArguments& a, const void* p,
                                         int64_t stride, const Panel& panel,
                                         int64_t first, f32v (&out)[LANES]) {
    constexpr int NUMBERS = 16 / sizeof(T);  // of a quad
    const char* rows[PANEL];
    for (int64_t r = 0; r < PANEL; ++r) {
      rows[r] = reinterpret_cast<const char*>(static_cast<const T*>(p) +
                                              panel.row(r) * stride + first);
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

  // Adds the products of a panel's rows of w with rows [m, m + min(MR, m_count)) of x.
  template <int MR, int BITS, int GROUP>
  [[gnu::noinline]] static void add_panel(const LinearArguments& a, int64_t n, int64_t m,
                                          int64_t m_count, float* sums) {
    if constexpr (MR > 1) {
      if (m_count < MR) {
        return add_panel<MR - 1, BITS, GROUP>(a, n, m, m_count, sums);
      }
    }
    using F = Format<BITS, GROUP>;
    constexpr int STAGE_BYTES = F::CHUNKS * F::CHUNK_BYTES;
    const Panel panel{n, PANEL, 1, a.n - 1, PANEL};
    const char* rows[PANEL];
    for (int64_t r = 0; r < PANEL; ++r) {
      rows[r] = a.w + panel.row(r) * a.w_stride;
    }
    const int64_t row_bytes = a.k / 8 * BITS;
    const char* next_panel = rows[0] + PANEL * a.w_stride;
    QuadCodes codes[2][F::STAGE_CODES / QUAD_CODES];  // of this stage and the next
    auto unpacking = [&](int64_t at, QuadCodes* out) {
      int64_t rest = min(max(row_bytes - at, 1), int64_t{F::CHUNK_BYTES});
      return Unpacking<BITS, GROUP>{rows, at, next_panel + PANEL * at,
                                    ~0ULL >> (64 - rest), out};
    };
    for (int i = 0; i < Unpacking<BITS, GROUP>::PIECES; ++i) {
      unpacking(0, codes[0]).unpack(i);
    }
    const PreparedRow x(a, m);
    f32v scales[LANES], biases[LANES];
    int64_t g = 0, at = STAGE_BYTES;
    for (int stage = 0; g < a.groups; g += F::STAGE_GROUPS, at += STAGE_BYTES, ++stage) {
      int64_t first = g % LANES;
      if (first == 0) {
        with_type(a.scale_type, [&]<typename T>(T*) __attribute__((always_inline)) {
          load_groups<T>(a, a.scales, a.scale_stride, panel, g, scales);
          load_groups<T>(a, a.biases, a.bias_stride, panel, g, biases);
        });
      }
      add_stage<MR>(a, x, g, codes[stage % 2], scales + first, biases + first, sums,
                    at < row_bytes, unpacking(at, codes[1 - stage % 2]));
    }
  }

  // Adds the products of the groups of a stage, from group `first` on, and unpacks the
  // next stage meanwhile, if there is one.
  template <int MR, int BITS, int GROUP>
  VOXFAST_INLINE static void add_stage(const LinearArguments& a, const PreparedRow& x,
                                       int64_t first, const QuadCodes* w,
                                       const f32v* scales, const f32v* biases,
                                       float* sums, bool has_next,
                                       const Unpacking<BITS, GROUP>& next) {
    constexpr int GROUPS = Format<BITS, GROUP>::STAGE_GROUPS;
    constexpr int PIECES = Unpacking<BITS, GROUP>::PIECES;
    const char* integers = x.integers + 2 * GROUP * first;
#pragma GCC unroll 4
    for (int g = 0; g < GROUPS; ++g) {
      i32v dots[MR][VECTORS] = {};
#pragma GCC unroll 2
      for (int d = 0; d < DIGITS; ++d) {
        constexpr int AT_ONCE = (PIECES + GROUPS * DIGITS - 1) / (GROUPS * DIGITS);
        const int piece = (g * DIGITS + d) * AT_ONCE;
        if (d > 0) {
          shift_digits(dots);
        }
        add_quads<MR, GROUP>(dots, w + g * (GROUP / QUAD_CODES),
                             integers + 2 * GROUP * g + d * QUAD_CODES,
                             a.prepared_stride);
        if (has_next) {
#pragma GCC unroll 4
          for (int i = 0; i < AT_ONCE; ++i) {
            if (piece + i < PIECES) {
              next.unpack(piece + i);
            }
          }
        }
      }
      if (first + g >= a.groups) {  // only in the last stage
        return;
      }
#pragma GCC unroll 6
      for (int m = 0; m < MR; ++m) {
        const auto at = m * a.prepared_stride / 4 + first + g;
        f32v value = __builtin_convertvector(horizontal_sums<QUAD>(dots[m]), f32v);
        f32v terms = group_terms(value, scales[g], broadcast(x.x_scales[at]), biases[g],
                                 broadcast(x.x_sums[at]));
        store(sums + m * PANEL, load(sums + m * PANEL) + terms);
      }
    }
  }

  // Dots with high digits become part of those with integers.
  template <int MR>
  VOXFAST_INLINE static void shift_digits(i32v (&dots)[MR][VECTORS]) {
#pragma GCC unroll 6
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        dots[m][v] = (i32v)((u32v)dots[m][v] << 8);
      }
    }
  }

  // Adds the dots of a group with one digit of MR rows of x, `stride` bytes apart.
  template <int MR, int GROUP>
  VOXFAST_INLINE static void add_quads(i32v (&dots)[MR][VECTORS], const QuadCodes* w,
                                       const char* x, int64_t stride) {
    for (int i = 0; i < GROUP / QUAD_CODES; ++i) {
      u32v codes[VECTORS];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        codes[v] = w[i][v];
      }
#pragma GCC unroll 6
      for (int m = 0; m < MR; ++m) {
        auto quad = (i32v)broadcast_quad(x + m * stride + 2 * QUAD_CODES * i);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
          dots[m][v] = add_dot(dots[m][v], codes[v], quad);
        }
      }
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

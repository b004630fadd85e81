// The inner loops of linear, each between marks for llvm-mca (tools/arm64/speed). They
// have the bodies of the kernels' own loops, without the cases of ends.

#include "kernels/linear.h"

#if defined(__aarch64__)
#define COMMENT "// "
#else
#define COMMENT "# "
#endif
// %c0 writes a number as such.
#define BEGIN(name, bits) asm volatile(COMMENT "LLVM-MCA-BEGIN " name "%c0" ::"i"(bits))
#define END asm volatile(COMMENT "LLVM-MCA-END")

namespace voxfast::VOXFAST_ISA {

// PackedGemv::multiply_panel: LANES groups of four rows of w per iteration, with scales
// and biases in bfloat16.
template <int BITS>
[[gnu::used]] void gemv(const PackedGemv& x, const char* const (&codes)[4],
                        const char* const (&scales)[4], const char* const (&biases)[4],
                        int64_t groups, int64_t prefetch_distance, float* out) {
  constexpr int GROUP = 64;
  PackedGemv::GroupDots<BITS, GROUP> dots;
  f32x4 total{};
  for (int64_t first = 0; first < groups; first += LANES) {
    BEGIN("gemv", BITS);
    f32v scale[4], bias[4];
    PackedGemv::load_groups<bf16>(scales, first, first + LANES, scale);
    PackedGemv::load_groups<bf16>(biases, first, first + LANES, bias);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      int64_t g = first + i * PackedGemv::GROUPS_PER_VECTOR;
      i32v of_group = dots.next(codes, g * GROUP / 8 * BITS, prefetch_distance,
                                x.integers + 2 * GROUP * g);
      f32v terms = group_terms(
          __builtin_convertvector(of_group, f32v), scale[i], load(x.x_scales + 4 * g),
          bias_of_codes(bias[i], scale[i], code_offset(BITS)), load(x.x_sums + 4 * g));
      float lanes[LANES];
      store(lanes, terms);
      for (int t = 0; t < LANES; t += 4) {
        total += read<f32x4>(lanes + t);
      }
    }
    END;
  }
  std::memcpy(out, &total, sizeof total);
}

// PackedGemm::PanelSlice: 32 * LANES codes of 2 * LANES rows of w per iteration.
template <int BITS>
[[gnu::used]] void unpack(const char* const (&rows)[2][LANES], int64_t bytes,
                          StepCodes* out) {
  constexpr int BLOCK_LANES = BLOCK_CODES / CODES_PER_LANE;
  for (int64_t at = 0; at < bytes;
       at += 4 * LANES * BITS, out += 32 * LANES / STEP_CODES) {
    BEGIN("unpack", BITS);
    auto* codes = reinterpret_cast<u32v(*)[2]>(out);
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      u32v packed[LANES * BITS];
#pragma GCC unroll 8
      for (int c = 0; c < BITS; ++c) {
        f32v x[LANES];
#pragma GCC unroll 16
        for (int r = 0; r < LANES; ++r) {
          x[r] = read<f32v>(rows[v][r] + at + 4 * LANES * c);
        }
        transpose(x);
        std::memcpy(packed + c * LANES, x, sizeof x);
      }
#pragma GCC unroll 16
      for (int b = 0; b < LANES; ++b) {
#pragma GCC unroll 16
        for (int i = 0; i < BLOCK_LANES; ++i) {
          codes[b * BLOCK_LANES + i][v] = unpack_lane<BITS>(packed + b * BITS, i);
        }
      }
    }
    END;
  }
}

// PackedGemm::add_tile: STEP_CODES codes of 2 * LANES rows of w, times six rows of x. The
// same for all bits, as codes are unpacked before.
[[gnu::used]] void gemm_of_codes(const char* const (&x)[6], const StepCodes* w,
                                 int64_t steps, StepDots (&out)[6]) {
  StepDots dots[6];
#pragma GCC unroll 24
  for (int i = 0; i < 12 * DIGITS; ++i) {
    dots[i / (2 * DIGITS)][i / DIGITS % 2][i % DIGITS] = i32v{};
  }
  for (int64_t i = 0; i < steps; ++i, ++w) {
    BEGIN("gemm", 8);
#pragma GCC unroll 6
    for (int m = 0; m < 6; ++m) {
      add_step(dots[m], *w, x[m] + 2 * STEP_CODES * i);
    }
    END;
  }
#pragma GCC unroll 24
  for (int i = 0; i < 12 * DIGITS; ++i) {
    out[i / (2 * DIGITS)][i / DIGITS % 2][i % DIGITS] =
        dots[i / (2 * DIGITS)][i / DIGITS % 2][i % DIGITS];
  }
}

// FloatKernel::add_gemv_slice: FLOAT_VECTORS * LANES lanes of four rows of w per
// iteration, times M rows of x.
constexpr int FLOAT_VECTORS = LANES == QUAD ? 4 : 1;

template <typename Lane, typename T, int M>
VOXFAST_INLINE void add_vector(const typename FloatKernel<Lane>::PanelSlice& s,
                               int64_t at, bool prefetches, const char* const (&x)[M],
                               f32v (&sums)[M][64 / 4 / LANES]) {
  constexpr int OUTPUTS = LANES / QUAD;
  f32v w[4 / OUTPUTS][OUTPUTS];
  for (int v = 0; v < 4 / OUTPUTS; ++v) {
    s.template load_quads<T>(
        v * OUTPUTS, at,
        [](const T* p) __attribute__((always_inline)) { return load(p); }, prefetches,
        w[v]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < OUTPUTS; ++i) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      f32v quad = broadcast_quad(x[m] + 4 * (at + QUAD * i));
#pragma GCC unroll 4
      for (int v = 0; v < 4 / OUTPUTS; ++v) {
        sums[m][v] = Lane::add_dot(sums[m][v], w[v][i], quad);
      }
    }
  }
}

// FloatKernel::add_tile: LANES lanes of w for two vectors of outputs per iteration, times
// MAX_MR rows of x.
#define FLOAT_GEMM(function, mark, bits, Lane)                                    \
  [[gnu::used]] void function(const f32v(*w)[2], const char* x, int64_t x_stride, \
                              int64_t steps, f32v(&out)[24]) {                    \
    constexpr int MR = FloatKernel<Lane>::MAX_MR;                                 \
    f32v sums[MR][2] = {};                                                        \
    for (int64_t i = 0; i < steps; ++i) {                                         \
      BEGIN(mark, bits);                                                          \
      _Pragma("GCC unroll 12") for (int m = 0; m < MR; ++m) {                     \
        f32v quad = broadcast_quad(x + m * x_stride + 4 * QUAD * i);              \
        sums[m][0] = Lane::add_dot(sums[m][0], w[i][0], quad);                    \
        sums[m][1] = Lane::add_dot(sums[m][1], w[i][1], quad);                    \
      }                                                                           \
      END;                                                                        \
    }                                                                             \
    _Pragma("GCC unroll 12") for (int m = 0; m < MR; ++m) {                       \
      out[2 * m] = sums[m][0], out[2 * m + 1] = sums[m][1];                       \
    }                                                                             \
  }

FLOAT_GEMM(gemm_of_floats, "tile", 32, FloatLane)
FLOAT_GEMM(gemm_of_pairs, "tile_bfloat", 16, Bf16PairLane)

#define FLOAT_GEMV(function, mark, bits, Lane, T, M)                                    \
  [[gnu::used]] void function(const FloatKernel<Lane>::PanelSlice& slice,               \
                              const char* const(&rows)[M], f32v(&out)[M][16 / LANES]) { \
    auto s = slice;                                                                     \
    f32v sums[M][16 / LANES] = {};                                                      \
    for (int64_t at = 0; at < s.lanes; at += FLOAT_VECTORS * LANES) {                   \
      BEGIN(mark, bits);                                                                \
      _Pragma("GCC unroll 4") for (int i = 0; i < FLOAT_VECTORS; ++i) {                 \
        add_vector<Lane, T, M>(s, at + i * LANES, i == 0, rows, sums);                  \
      }                                                                                 \
      END;                                                                              \
    }                                                                                   \
    _Pragma("GCC unroll 4") for (int m = 0; m < M; ++m) {                               \
      _Pragma("GCC unroll 4") for (int v = 0; v < 16 / LANES; ++v) {                    \
        out[m][v] = sums[m][v];                                                         \
      }                                                                                 \
    }                                                                                   \
  }

FLOAT_GEMV(gemv_of_float32, "gemv", 32, FloatLane, float, 1)
FLOAT_GEMV(gemv_of_float16, "gemv_float", 16, FloatLane, f16, 1)
FLOAT_GEMV(four_rows_of_float32, "four", 32, FloatLane, float, 4)
FLOAT_GEMV(four_rows_of_float16, "four_float", 16, FloatLane, f16, 4)
#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
FLOAT_GEMV(gemv_of_bfloat16, "gemv_bfloat", 16, Bf16PairLane, float, 1)
FLOAT_GEMV(four_rows_of_bfloat16, "four_bfloat", 16, Bf16PairLane, float, 4)
#else
FLOAT_GEMV(gemv_of_bfloat16, "gemv_bfloat", 16, FloatLane, bf16, 1)
FLOAT_GEMV(four_rows_of_bfloat16, "four_bfloat", 16, FloatLane, bf16, 4)
#endif

#define INSTANTIATE(BITS)                                                             \
  template void unpack<BITS>(const char* const(&)[2][LANES], int64_t, StepCodes*);    \
  template void gemv<BITS>(const PackedGemv&, const char* const(&)[4],                \
                           const char* const(&)[4], const char* const(&)[4], int64_t, \
                           int64_t, float*);
INSTANTIATE(2)
INSTANTIATE(3)
INSTANTIATE(4)
INSTANTIATE(5)
INSTANTIATE(6)
INSTANTIATE(8)

}  // namespace voxfast::VOXFAST_ISA

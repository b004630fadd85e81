// The inner loops of linear and sliding_attention, each between marks for llvm-mca
// (tools/arm64/speed). They have the bodies of the kernels' own loops, without the cases
// of ends.

#include "kernels/attention_products.h"
#include "kernels/linear.h"

// %c0 writes a number as such.
#define BEGIN(name, number) asm volatile("# LLVM-MCA-BEGIN " name "%c0" ::"i"(number))
#define END asm volatile("# LLVM-MCA-END")
// Outside of loops: nothing moves across the marks.
#define BEGIN_ALONE(name, number) \
  asm volatile("# LLVM-MCA-BEGIN " name "%c0" ::"i"(number) : "memory")
#define END_ALONE asm volatile("# LLVM-MCA-END" ::: "memory")
#if defined(__aarch64__)
#define PIN(x) asm volatile("" : "+w"(x))
#else
#define PIN(x) asm volatile("" : "+v"(x))
#endif

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

// PackedGemm::add_tile: STEP_CODES codes of 2 * LANES rows of w, times MR rows of x, and
// what is done at the end of a group. The same for all bits, as codes are unpacked
// before.
template <int MR>
[[gnu::used]] void gemm_of_codes(const char* const (&x)[MR], const StepCodes* w,
                                 int64_t groups, int64_t steps, const f32v (*scales)[4],
                                 const float (*x_factors)[MR][2], float* sums) {
  for (int64_t g = 0; g < groups; ++g) {
    StepDots dots[MR];
#pragma GCC unroll 24
    for (int i = 0; i < 2 * DIGITS * MR; ++i) {
      dots[i / (2 * DIGITS)][i / DIGITS % 2][i % DIGITS] = i32v{};
    }
    for (int64_t i = 0; i < steps; ++i, ++w) {
      BEGIN("gemm", MR);
#pragma GCC unroll 6
      for (int m = 0; m < MR; ++m) {
        add_step(dots[m], *w, x[m] + 2 * STEP_CODES * i);
      }
      END;
    }
    BEGIN_ALONE("group", MR);
#pragma GCC unroll 6
    for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
      for (int i = 0; i < 2 * DIGITS; ++i) {
        PIN(dots[m][i / DIGITS][i % DIGITS]);
      }
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        float* to = sums + (2 * m + v) * LANES;
        f32v value = __builtin_convertvector(combine_step(dots[m][v]), f32v);
        f32v terms = group_terms(value, scales[g][v], broadcast(x_factors[g][m][0]),
                                 scales[g][v + 2], broadcast(x_factors[g][m][1]));
        store(to, load(to) + terms);
      }
    }
    END_ALONE;
  }
}

// FloatKernel::add_tile: LANES lanes of w for two vectors of outputs per iteration, times
// MR rows of x.
template <typename Lane, int MR>
[[gnu::used]] void gemm_of_floats(const f32v (*w)[2], const char* x, int64_t x_stride,
                                  int64_t steps, f32v (&out)[MR][2]) {
  f32v sums[MR][2] = {};
  for (int64_t i = 0; i < steps; ++i) {
    BEGIN("tile_", 100 * Lane::INPUTS + MR);
#pragma GCC unroll 12
    for (int m = 0; m < MR; ++m) {
      f32v quad = broadcast_quad(x + m * x_stride + 4 * QUAD * i);
      sums[m][0] = Lane::add_dot(sums[m][0], w[i][0], quad);
      sums[m][1] = Lane::add_dot(sums[m][1], w[i][1], quad);
    }
    END;
  }
#pragma GCC unroll 12
  for (int m = 0; m < MR; ++m) {
    out[m][0] = sums[m][0], out[m][1] = sums[m][1];
  }
}

// FloatKernel::add_gemv_slice: FLOAT_VECTORS * LANES lanes of W_ROWS rows of w per
// iteration, times M rows of x. TYPE: 32 float32, 16 float16, 116 bfloat16.
constexpr int FLOAT_VECTORS = LANES == QUAD ? 4 : 1;

template <typename Lane, typename T, int TYPE, int M>
[[gnu::used]] void gemv_of_floats(const typename FloatKernel<Lane>::PanelSlice& slice,
                                  const char* const (&rows)[M], f32v* out) {
  constexpr int OUTPUTS = LANES / QUAD;
  constexpr int VECTORS = FloatKernel<Lane>::template GEMV_PANEL<M> / OUTPUTS;
  auto s = slice;
  f32v sums[M][VECTORS] = {};
  for (int64_t at = 0; at < s.lanes; at += FLOAT_VECTORS * LANES) {
    BEGIN("rows_", 1000 * M + TYPE);
#pragma GCC unroll 4
    for (int j = 0; j < FLOAT_VECTORS; ++j) {
      f32v w[VECTORS][OUTPUTS];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        s.template load_quads<T>(
            v * OUTPUTS, at + j * LANES,
            [](const T* p) __attribute__((always_inline)) { return load(p); }, j == 0,
            w[v]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < OUTPUTS; ++i) {
#pragma GCC unroll 12
        for (int m = 0; m < M; ++m) {
          f32v quad = broadcast_quad(rows[m] + 4 * (at + j * LANES + QUAD * i));
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; ++v) {
            sums[m][v] = Lane::add_dot(sums[m][v], w[v][i], quad);
          }
        }
      }
    }
    END;
  }
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      out[m * VECTORS + v] = sums[m][v];
    }
  }
}

#if defined(VOXFAST_FEW)
// PackedFew::add_tile: a lane of codes of LANES rows of w, times MR rows of x, and what
// is done at the end of a group.
template <int MR>
[[gnu::used]] void few_rows(const u32v* w, int64_t lanes, const char* x,
                            const float* factors, f32v scales, f32v biases, float* sums) {
  i32v dots[MR][DIGITS] = {};
  for (int64_t lane = 0; lane < lanes; ++lane) {
    BEGIN("gemm", MR);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
      for (int d = 0; d < DIGITS; ++d) {
        const char* digits = x + i * 128 + 8 * lane + 4 * d;
        asm("vpdpbusd %2%{1to16%}, %1, %0"
            : "+v"(dots[i][d])
            : "v"(w[lane]), "m"(*reinterpret_cast<const char (*)[4]>(digits)));
      }
    }
    END;
  }
  BEGIN_ALONE("group", MR);
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
    for (int d = 0; d < DIGITS; ++d) {
      PIN(dots[i][d]);
    }
    f32v value = __builtin_convertvector(combine_digits(dots[i]), f32v);
    f32v terms = group_terms(value, scales, broadcast(factors[2 * i]), biases,
                             broadcast(factors[2 * i + 1]));
    store(sums + i * LANES, load(sums + i * LANES) + terms);
  }
  END_ALONE;
}

// PackedFew::unpack: a chunk of LANES rows of w.
template <int BITS>
[[gnu::used]] void unpack_few(const char* const (&rows)[LANES], int64_t bytes,
                              u32v* out) {
  constexpr int PLANES = planes_of(BITS, 64), CHUNK_BYTES = 8 * PLANES * BITS;
  for (int64_t at = 0; at < bytes; at += CHUNK_BYTES, out += LANES * PLANES) {
    BEGIN("unpack", BITS);
    f32v x[LANES];
#pragma GCC unroll 16
    for (int r = 0; r < LANES; ++r) {
      __builtin_prefetch(rows[r] + at + 512);
      x[r] = (f32v)extract_bytes<PLANES * BITS>(read<__m512i>(rows[r] + at), false);
    }
    transpose(x);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) {
#pragma GCC unroll 4
      for (int p = 0; p < PLANES; ++p) {
        out[i * PLANES + p] = plane_codes<BITS>((u32v)x[i], p);
      }
    }
    END;
  }
}
#endif

// score_keys: a chunk of dimensions of STEP_KEYS<Q> keys, times Q queries; then the
// horizontal sums.
template <typename T, int Q>
[[gnu::used]] void scores(const float* q, const T* keys, const T* prefetch,
                          int64_t stride, int size, f32v* out) {
  f32v sum[ACCUMULATORS] = {};
  for (int d = 0; d < size; d += CHUNK) {
    BEGIN("scores_", 100 * Q + 8 * sizeof(T));
    const T* key = keys + d;
#pragma GCC unroll 16
    for (int k = 0; k < STEP_KEYS<Q>; ++k) {
      f32v x, y;
      load_chunk(key, x, y);
      prefetch_chunk(prefetch + (key - keys));
      key += k + 1 < STEP_KEYS<Q> ? stride : 0;
#pragma GCC unroll 4
      for (int r = 0; r < Q; ++r) {
        sum[k * Q + r] += x * load(q + r * size + d);
        sum[k * Q + r] += y * load(q + r * size + d + LANES);
      }
    }
    END;
  }
  BEGIN_ALONE("sums_", 100 * Q + 8 * sizeof(T));
#pragma GCC unroll 16
  for (f32v& x : sum) {
    PIN(x);
  }
#pragma GCC unroll 4
  for (int i = 0; i < ACCUMULATORS; i += LANES) {
    out[i / LANES] = horizontal_sums<LANES>(sum + i);
  }
  END_ALONE;
}

// add_values_at: V vectors of a value, times the weights of Q queries.
template <typename T, int Q>
[[gnu::used]] void values(const float* weights, const T* values, const T* prefetch,
                          int size, int count, f32v* out) {
  constexpr int V = ACCUMULATORS / Q < 8 ? ACCUMULATORS / Q : 8;
  f32v sum[Q][V] = {};
  for (int k = 0; k < count; ++k) {
    BEGIN("values_", 100 * Q + 8 * sizeof(T));
#pragma GCC unroll 8
    for (int i = 0; i < V; i += 2) {
      f32v x, y;
      load_chunk(values + k * size + i * LANES, x, y);
      prefetch_chunk(prefetch + k * size + i * LANES);
#pragma GCC unroll 4
      for (int r = 0; r < Q; ++r) {
        sum[r][i] += x * weights[k * Q + r];
        sum[r][i + 1] += y * weights[k * Q + r];
      }
    }
    END;
  }
#pragma GCC unroll 4
  for (int r = 0; r < Q; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < V; ++i) {
      out[r * V + i] = sum[r][i];
    }
  }
}

#define GEMV(BITS)                                                                    \
  template void gemv<BITS>(const PackedGemv&, const char* const(&)[4],                \
                           const char* const(&)[4], const char* const(&)[4], int64_t, \
                           int64_t, float*);
GEMV(2)
GEMV(3)
GEMV(4)
GEMV(5)
GEMV(6)
GEMV(8)

#define FLOAT_GEMV(Lane, T, TYPE, M)                                                   \
  template void gemv_of_floats<Lane, T, TYPE, M>(const FloatKernel<Lane>::PanelSlice&, \
                                                 const char* const(&)[M], f32v*);
#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define FLOAT_ROWS(M)                 \
  FLOAT_GEMV(FloatLane, float, 32, M) \
  FLOAT_GEMV(FloatLane, f16, 16, M)   \
  FLOAT_GEMV(Bf16PairLane, float, 116, M)
#else
#define FLOAT_ROWS(M)                 \
  FLOAT_GEMV(FloatLane, float, 32, M) \
  FLOAT_GEMV(FloatLane, f16, 16, M)   \
  FLOAT_GEMV(FloatLane, bf16, 116, M)
#endif
FLOAT_ROWS(1)
FLOAT_ROWS(2)
FLOAT_ROWS(4)

#if defined(VOXFAST_FEW)
FLOAT_ROWS(8)
FLOAT_ROWS(12)

#define FEW(MR)                                                                     \
  template void few_rows<MR>(const u32v*, int64_t, const char*, const float*, f32v, \
                             f32v, float*);
FEW(2)
FEW(4)
FEW(8)

#define UNPACK_FEW(BITS) \
  template void unpack_few<BITS>(const char* const(&)[LANES], int64_t, u32v*);
UNPACK_FEW(2)
UNPACK_FEW(3)
UNPACK_FEW(4)
UNPACK_FEW(5)
UNPACK_FEW(6)
UNPACK_FEW(8)
#else
#define UNPACK(BITS) \
  template void unpack<BITS>(const char* const(&)[2][LANES], int64_t, StepCodes*);
UNPACK(2)
UNPACK(3)
UNPACK(4)
UNPACK(5)
UNPACK(6)
UNPACK(8)

#define GEMM(MR)                                                                         \
  template void gemm_of_codes<MR>(const char* const(&)[MR], const StepCodes*, int64_t,   \
                                  int64_t, const f32v(*)[4], const float (*)[MR][2],     \
                                  float*);                                               \
  template void gemm_of_floats<FloatLane, MR>(const f32v(*)[2], const char*, int64_t,    \
                                              int64_t, f32v(&)[MR][2]);                  \
  template void gemm_of_floats<Bf16PairLane, MR>(const f32v(*)[2], const char*, int64_t, \
                                                 int64_t, f32v(&)[MR][2]);
GEMM(2)
GEMM(4)
GEMM(6)
#endif

#define ATTENTION(T, Q)                                                              \
  template void scores<T, Q>(const float*, const T*, const T*, int64_t, int, f32v*); \
  template void values<T, Q>(const float*, const T*, const T*, int, int, f32v*);
ATTENTION(float, 1)
ATTENTION(float, 2)
ATTENTION(float, 4)
ATTENTION(bf16, 1)
ATTENTION(bf16, 2)
ATTENTION(bf16, 4)

}  // namespace voxfast::VOXFAST_ISA

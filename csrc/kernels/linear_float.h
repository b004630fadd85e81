#pragma once

// linear with float w, accumulated in float32. Glossary: linear.h.
//
// A lane is one input as float32, or two neighbouring inputs as bfloat16 where x and w
// are bfloat16 and the processor has AVX-512 BF16 or BFDOT; the products of a pair are
// exact in float32. A vector of w holds one quad of each of VECTOR_OUTPUTS rows. It is
// multiplied with the same quad of x, broadcast. Every output thus has four partial sums
// along K, one per lane of a quad. They are added at the end of a slice.
//
// gemv and gemm add the same numbers in the same order, so an output does not depend on
// M, on the other outputs, or on the number of threads.

#include "kernels/horizontal_sums.h"
#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

typedef char LaneBytes[4];

// The lane at p, for assembly that reads it.
VOXFAST_INLINE const LaneBytes& lane_at(const char* p) {
  return *reinterpret_cast<const LaneBytes*>(p);
}

struct FloatLane {
  static constexpr int64_t INPUTS = 1;

#if defined(__AVX512F__)
  // One rounding, as in add_broadcast, also where the compiler contracts nothing (-O1).
  VOXFAST_INLINE static f32v add_dot(f32v sum, f32v w, f32v x) {
    return (f32v)_mm512_fmadd_ps((__m512)w, (__m512)x, (__m512)sum);
  }
  // The same, with the lane at w in all lanes.
  VOXFAST_INLINE static f32v add_broadcast(f32v sum, const char* w, f32v x) {
    asm("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(sum) : "m"(lane_at(w)), "v"(x));
    return sum;
  }
#else
  VOXFAST_INLINE static f32v add_dot(f32v sum, f32v w, f32v x) { return w * x + sum; }
#endif
};

struct Bf16PairLane {
  static constexpr int64_t INPUTS = 2;

  VOXFAST_INLINE static f32v add_dot(f32v sum, f32v w, f32v x) {
#if defined(__AVX512BF16__)
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    asm("bfdot %0.4s, %1.8h, %2.8h" : "+w"(sum) : "w"(w), "w"(x));
#endif
    return sum;
  }
#if defined(__AVX512F__)
  VOXFAST_INLINE static f32v add_broadcast(f32v sum, const char* w, f32v x) {
#if defined(__AVX512BF16__)
    asm("vdpbf16ps %1%{1to16%}, %2, %0" : "+v"(sum) : "m"(lane_at(w)), "v"(x));
#endif
    return sum;
  }
#endif
};

// Whether a lane is a pair of bfloat16.
VOXFAST_INLINE bool uses_bf16_pairs(const LinearArguments& a) {
#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  return a.x_type == FloatType::bfloat16 && a.w_type == FloatType::bfloat16 &&
         a.k % Bf16PairLane::INPUTS == 0;
#else
  return false;
#endif
}

template <typename Lane>
struct FloatKernel {
  // More rows of x use the gemm, which repacks w once for all of them.
  static constexpr int MAX_GEMV_M = LANES == 16 ? 24 : 4;
  static constexpr int MAX_GEMV_MR = LANES == 16 ? 12 : 4;  // as the registers hold
  // Rows of w: streams from memory. Up to two rows of x are bound by reading w, which is
  // fastest with few streams; more rows use every vector of x for twice as many outputs.
  template <int M>
  static constexpr int GEMV_PANEL = LANES == 16 && M > 2 ? 8 : 4;
  static constexpr int64_t PANEL = 16;  // rows of w, gemm
  static constexpr int64_t KC = 256 * Lane::INPUTS;

  static constexpr int64_t INPUT_BYTES = 4 / Lane::INPUTS;  // of prepared x

  static constexpr int VECTOR_OUTPUTS = LANES / QUAD;  // outputs per vector
  static constexpr int VECTORS = 2;                    // vectors of outputs per tile
  static constexpr int MAX_MR = LANES == 16 ? 12 : 6;  // as many as the registers hold

  // A slice of a panel, from input `first` on: `lanes` lanes of each row.
  struct PanelSlice {
    int64_t first, lanes;
    PanelPointers w;

    PanelSlice(const LinearArguments& a, const Panel& panel, int64_t input)
        : first(input),
          lanes(min(a.k - input, a.slice) / Lane::INPUTS),
          w(a, panel, input) {}

    // Calls f(at, load, prefetches) for each vector of a row, `at` being its first lane.
    // load(p) reads it, and zeros for lanes beyond the slice. Where vectors are short,
    // the first of four prefetches for all.
    template <typename T, typename F>
    VOXFAST_INLINE void for_vectors(F f) const {
      constexpr int AT_ONCE = LANES == QUAD ? 4 : 1;
      auto load_whole = [](const T* p) __attribute__((always_inline)) { return load(p); };
      int64_t at = 0;
      for (; at + AT_ONCE * LANES <= lanes; at += AT_ONCE * LANES) {
#pragma GCC unroll 4
        for (int i = 0; i < AT_ONCE; ++i) {
          f(at + i * LANES, load_whole, i == 0);
        }
      }
      for (; AT_ONCE > 1 && at + LANES <= lanes; at += LANES) {
        f(at, load_whole, false);
      }
      if (at < lanes) {
        f(at, [rest = lanes - at](const T* p) { return load_partial(p, rest); }, true);
      }
    }

    // Loads the vector at lane `at` of rows [r, r + VECTOR_OUTPUTS) and transposes quads:
    // out[i] has quad i of every row. Prefetches a later slice if told to.
    template <typename T, typename Load>
    VOXFAST_INLINE void load_quads(int64_t r, int64_t at, Load load_vector,
                                   bool prefetches, f32v (&out)[VECTOR_OUTPUTS]) const {
      for (int i = 0; i < VECTOR_OUTPUTS; ++i) {
        if (prefetches) {
          prefetch_l2(w.prefetch[r + i] + at * static_cast<int64_t>(sizeof(T)));
        }
        const T* p = reinterpret_cast<const T*>(w.current[r + i]) + at;
        out[i] = value_barrier(load_vector(p));  // GCC 12 would load it twice
      }
      transpose_quads(out);
    }
  };

  static int64_t panel(const LinearArguments& a) {
    return !has_strips(a) ? PANEL : a.m > 2 ? GEMV_PANEL<3> : GEMV_PANEL<2>;
  }
  static bool has_strips(const LinearArguments& a) { return a.m <= MAX_GEMV_M; }

  // Prepared x: [slices, M, slice], so that the rows of a tile are neighbours in memory.
  // Zeros follow the last input.
  static int64_t prepared_stride(const LinearArguments& a) {
    return INPUT_BYTES * a.padded_k;
  }
  static char* x_slice(const LinearArguments& a, int64_t m, int64_t first) {
    return a.prepared + INPUT_BYTES * (first * a.m + m * a.slice);
  }

  static void prepare(const LinearArguments& a, int64_t m) {
    for (int64_t first = 0; first < a.k; first += a.slice) {
      char* out = x_slice(a, m, first);
      int64_t count = min(a.k - first, a.slice);
      for_spans(a, m, first, count, [&](int64_t from, int64_t length, int64_t done) {
        copy_inputs(a, from, length, out + INPUT_BYTES * done);
      });
      int64_t rest = round_up(count, int64_t{32}) - count;
      std::memset(out + INPUT_BYTES * count, 0, static_cast<size_t>(INPUT_BYTES * rest));
    }
  }

  static void multiply(const LinearArguments& a, int64_t task) {
    if (!has_strips(a)) {
      return gemm(a, task);
    }
    int64_t tiles = (a.m + MAX_GEMV_MR - 1) / MAX_GEMV_MR;
    with_lane_type(a, [&]<typename T>(T*) {
      gemv<T, MAX_GEMV_MR>(a, task, (a.m + tiles - 1) / tiles);
    });
  }

  // Copies inputs of x to `out` as elements of lanes.
  static void copy_inputs(const LinearArguments& a, int64_t from, int64_t count,
                          char* out) {
    if constexpr (Lane::INPUTS == 1) {
      load_floats(a.x, a.x_type, from, a.x_stride, count, reinterpret_cast<float*>(out));
    } else {
      const auto* x = static_cast<const bf16*>(a.x) + from;
      if (a.x_stride == 1) {
        std::memcpy(out, x, static_cast<size_t>(count) * sizeof *x);
        return;
      }
      for (int64_t i = 0; i < count; ++i) {
        std::memcpy(out + INPUT_BYTES * i, x + i * a.x_stride, sizeof *x);
      }
    }
  }

 private:
  // Calls f with a null pointer to the type that lanes of w are loaded as.
  template <typename F>
  static void with_lane_type(const LinearArguments& a, F f) {
    if constexpr (Lane::INPUTS == 2) {
      f(static_cast<float*>(nullptr));
    } else {
      with_type(a.w_type, f);
    }
  }

  // `rows` of x per tile, at most MR.
  template <typename T, int MR, int W_ROWS = GEMV_PANEL<MR>>
  static void gemv(const LinearArguments& a, int64_t task, int64_t rows) {
    if constexpr (MR > 1) {
      if (rows < MR) {
        return gemv<T, MR - 1>(a, task, rows);
      }
    }
    constexpr int ROWS = MR < MAX_GEMV_MR / 2 ? MR : MAX_GEMV_M;
    gemv_task<ROWS, W_ROWS>(a, task, [&](Panel panel) {
      return [&a, panel](float (&out)[ROWS][W_ROWS]) mutable {
        for (int64_t k = 0; k < a.k; k += a.slice) {
          const PanelSlice slice(a, panel, k);
          int64_t m = 0;
          for (; m + MR <= a.m; m += MR) {
            add_gemv_slice<T, MR, W_ROWS>(a, slice, m, out + m);
          }
          if constexpr (MR > 1) {
            if (m < a.m) {  // tiles differ by at most one row
              add_gemv_slice<T, MR - 1, W_ROWS>(a, slice, m, out + m);
            }
          }
        }
        panel = panel.after(a, 1);
      };
    });
  }

  // Adds a slice's products with rows [first_m, first_m + MR) of x.
  template <typename T, int MR, int W_ROWS>
  [[gnu::noinline]] static void add_gemv_slice(const LinearArguments& a,
                                               const PanelSlice& s, int64_t first_m,
                                               float (*out)[W_ROWS]) {
    constexpr int VECTORS_OF_W = W_ROWS / VECTOR_OUTPUTS;
    const char* x = x_slice(a, first_m, s.first);
    const int64_t x_stride = INPUT_BYTES * a.slice;
    f32v lane_sums[MR][VECTORS_OF_W] = {};
    s.template for_vectors<T>(
        [&](int64_t at, auto load, bool prefetches) __attribute__((always_inline)) {
          f32v w[VECTORS_OF_W][VECTOR_OUTPUTS];
          for (int v = 0; v < VECTORS_OF_W; ++v) {
            s.template load_quads<T>(v * VECTOR_OUTPUTS, at, load,
                                     prefetches && first_m == 0, w[v]);
          }
#pragma GCC unroll 4
          for (int i = 0; i < VECTOR_OUTPUTS; ++i) {
#pragma GCC unroll 12
            for (int m = 0; m < MR; ++m) {
              f32v quad = broadcast_quad(x + m * x_stride + 4 * (at + QUAD * i));
#pragma GCC unroll 4
              for (int v = 0; v < VECTORS_OF_W; ++v) {
                lane_sums[m][v] = Lane::add_dot(lane_sums[m][v], w[v][i], quad);
              }
            }
          }
        });
#pragma GCC unroll 12
    for (int m = 0; m < MR; ++m) {
      f32v sums[QUAD] = {};
      std::memcpy(sums, lane_sums[m], sizeof lane_sums[m]);
      float outputs[LANES];
      store(outputs, quad_sums(sums));
      for (int r = 0; r < W_ROWS; ++r) {
        out[m][r] += outputs[r];
      }
    }
  }

  // A slice of a panel in the order that the tiles read it: [tile, quad, vector].
  struct RepackedSlice {
    static constexpr int TILES = PANEL / (VECTORS * VECTOR_OUTPUTS);
    alignas(64) f32v lanes[TILES][KC / Lane::INPUTS / QUAD][VECTORS];

    RepackedSlice(const LinearArguments& a, const PanelSlice& s) {
      with_lane_type(a, [&]<typename T>(T*) __attribute__((always_inline)) {
        s.template for_vectors<T>(
            [&](int64_t at, auto load, bool prefetches) __attribute__((always_inline)) {
              for (int64_t v = 0; v < PANEL / VECTOR_OUTPUTS; ++v) {
                f32v quads[VECTOR_OUTPUTS];
                s.template load_quads<T>(v * VECTOR_OUTPUTS, at, load, prefetches, quads);
                for (int i = 0; i < VECTOR_OUTPUTS; ++i) {
                  lanes[v / VECTORS][at / QUAD + i][v % VECTORS] = quads[i];
                }
              }
            });
      });
    }
  };

  static void gemm(const LinearArguments& a, int64_t task) {
    gemm_task<PANEL>(
        a, task,
        [&](int64_t n, int64_t k, int64_t m, int64_t m_count, float (*sums)[PANEL]) {
          const PanelSlice slice(a, neighbours<PANEL>(a, n), k);
          const RepackedSlice repacked(a, slice);
          for (int64_t i = 0; i < m_count;) {
            i += add_tile<MAX_MR>(a, slice, repacked, m + i, m_count - i, sums[i]);
          }
        });
  }

  // Adds the slice's products with rows [first_m, first_m + min(MR, m_count)) of x.
  // Returns the number of rows.
  template <int MR>
  static int64_t add_tile(const LinearArguments& a, const PanelSlice& s,
                          const RepackedSlice& w, int64_t first_m, int64_t m_count,
                          float* sums) {
    if constexpr (MR > 1) {
      if (m_count < MR) {
        return add_tile<MR - 1>(a, s, w, first_m, m_count, sums);
      }
    }
    const int64_t steps = (s.lanes + LANES - 1) / LANES * VECTOR_OUTPUTS;
    const char* x = x_slice(a, first_m, s.first);
    const int64_t x_stride = INPUT_BYTES * a.slice;
    for (int tile = 0; tile < RepackedSlice::TILES; ++tile) {
      f32v lane_sums[MR][VECTORS] = {};
      for (int64_t i = 0; i < steps; ++i) {
        const auto& vectors = w.lanes[tile][i];
#pragma GCC unroll 12
        for (int m = 0; m < MR; ++m) {
          f32v quad = broadcast_quad(x + m * x_stride + 4 * QUAD * i);
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v) {
            lane_sums[m][v] = Lane::add_dot(lane_sums[m][v], vectors[v], quad);
          }
        }
      }
      float* to = sums + tile * VECTORS * VECTOR_OUTPUTS;
#pragma GCC unroll 6
      for (int m = 0; m < MR; m += 2, to += 2 * PANEL) {
        constexpr f32v NONE[VECTORS] = {};
        const f32v(&next)[VECTORS] = m + 1 < MR ? lane_sums[m + 1] : NONE;
        f32v two_rows[QUAD] = {lane_sums[m][0], lane_sums[m][1], next[0], next[1]};
        add_halves(quad_sums(two_rows), to, m + 1 < MR ? to + PANEL : nullptr);
      }
    }
    return MR;
  }

  // Adds the lower half of x to `first` and the upper half to `second`, unless it is
  // null.
  VOXFAST_INLINE static void add_halves(f32v x, float* first, float* second) {
    f32h halves[2];
    std::memcpy(halves, &x, sizeof halves);
    f32h sum = read<f32h>(first) + halves[0];
    std::memcpy(first, &sum, sizeof sum);
    if (second != nullptr) {
      sum = read<f32h>(second) + halves[1];
      std::memcpy(second, &sum, sizeof sum);
    }
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

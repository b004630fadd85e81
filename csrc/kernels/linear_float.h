#pragma once

// linear with float weights, accumulated in float32.
//
// A lane of a vector is a word: one input as a float32, or, where the processor
// multiplies pairs of bfloat16 (AVX-512 BF16) and x is of that type, too, two
// neighbouring inputs as they are; their products are exact in float32. Four words in a
// row are a quad. A vector holds a quad of each of OUTPUTS rows of w and meets the same
// quad of x, so four sums, one for each place of a quad, run along K of every output;
// they are added up at the end of a stretch of inputs, and stretches are added in order.
//
// Few rows of x meet weights in registers as they are read. For many rows, those of a
// panel are first brought into that order in the first cache. Both add the same numbers
// in the same order: what one output is does not depend on what is computed beside it.

#include "kernels/horizontal_sums.h"
#include "kernels/linear_arguments.h"
#include "kernels/linear_common.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

struct FloatLane {
  static constexpr int64_t INPUTS = 1;

  VOXFAST_INLINE static f32v add_dot(f32v sum, f32v w, f32v x) { return w * x + sum; }
};

struct Bf16PairLane {
  static constexpr int64_t INPUTS = 2;

  VOXFAST_INLINE static f32v add_dot(f32v sum, f32v w, f32v x) {
#if defined(__AVX512BF16__)
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
#endif
    return sum;
  }
};

// Whether pairs of bfloat16 are multiplied.
VOXFAST_INLINE bool uses_bf16_pairs(const LinearArguments& a) {
#if defined(__AVX512BF16__)
  return a.x_type == FloatType::bfloat16 && a.w_type == FloatType::bfloat16 &&
         a.k % Bf16PairLane::INPUTS == 0;
#else
  return false;
#endif
}

template <typename Lane>
struct FloatKernel {
  // Rows of x that are few, and the rows of w that they meet at a time, which are as many
  // streams from memory; those of many.
  static constexpr int MAX_GEMV_M = 4, GEMV_PANEL = 4;
  static constexpr int64_t PANEL = 16;
  static constexpr int64_t KC = 256 * Lane::INPUTS;

  static constexpr int64_t INPUT_BYTES = 4 / Lane::INPUTS;  // of prepared x

  static constexpr int VECTOR_OUTPUTS = LANES / QUAD;  // of a vector
  static constexpr int VECTORS = 2;  // of outputs that are in the registers
  static constexpr int MAX_MR = LANES == 16 ? 12 : 6;  // rows of x by them

  // A stretch of inputs of some rows of w, K_BLOCK at most. Words are counted in whole
  // vectors: x is zero beyond the last input.
  struct PanelSlice {
    int64_t first, lanes;
    PanelPointers w;

    PanelSlice(const LinearArguments& a, const Panel& panel, int64_t input)
        : first(input),
          lanes(min(a.k - input, a.slice) / Lane::INPUTS),
          w(a, panel, input) {}

    // Calls f(at, load) for every vector of words; load reads it, with zeros after the
    // last word.
    template <typename T, typename F>
    VOXFAST_INLINE void for_vectors(F f) const {
      int64_t at = 0;
      for (; at + LANES <= lanes; at += LANES) {
        f(at, [](const T* p) __attribute__((always_inline)) { return load(p); });
      }
      if (at < lanes) {
        f(at, [rest = lanes - at](const T* p) { return load_partial(p, rest); });
      }
    }

    // The vectors at `at` of OUTPUTS rows of w from r on as quads: first those of all
    // rows that come first. What will be needed later is fetched meanwhile.
    template <typename T, typename Load>
    VOXFAST_INLINE void load_quads(int64_t r, int64_t at, Load load_vector,
                                   f32v (&out)[VECTOR_OUTPUTS]) const {
      for (int i = 0; i < VECTOR_OUTPUTS; ++i) {
        prefetch_l2(w.prefetch[r + i] + at * static_cast<int64_t>(sizeof(T)));
        const T* p = reinterpret_cast<const T*>(w.current[r + i]) + at;
        out[i] = value_barrier(load_vector(p));  // GCC 12 would load it twice
      }
      transpose_quads(out);
    }
  };

  static int64_t panel(const LinearArguments& a) {
    return is_gemv(a) ? GEMV_PANEL : PANEL;
  }
  static bool is_gemv(const LinearArguments& a) { return a.m <= MAX_GEMV_M; }

  // Prepared x: of each stretch the words of every row, one row behind the other, so that
  // a tile's rows are neighbours in the caches.
  static int64_t prepared_stride(const LinearArguments& a) {
    return INPUT_BYTES * a.padded_k;
  }
  static char* x_slice(const LinearArguments& a, int64_t row, int64_t first) {
    return a.prepared + INPUT_BYTES * (first * a.m + row * a.slice);
  }

  static void prepare(const LinearArguments& a, int64_t row) {
    for (int64_t first = 0; first < a.k; first += a.slice) {
      char* out = x_slice(a, row, first);
      int64_t count = min(a.k - first, a.slice);
      for_spans(a, row, first, count, [&](int64_t from, int64_t some, int64_t done) {
        copy_inputs(a, from, some, out + INPUT_BYTES * done);
      });
      int64_t rest = round_up<int64_t>(count, 32) - count;
      std::memset(out + INPUT_BYTES * count, 0, static_cast<size_t>(INPUT_BYTES * rest));
    }
  }

  static void multiply(const LinearArguments& a, int64_t task) {
    if (!is_gemv(a)) {
      return gemm(a, task);
    }
    with_lane_type(a, [&]<typename T>(T*) { gemv<T, MAX_GEMV_M>(a, task); });
  }

 private:
  // Calls f with a null pointer of the type that words of w are read as.
  template <typename F>
  static void with_lane_type(const LinearArguments& a, F f) {
    if constexpr (Lane::INPUTS == 2) {
      f(static_cast<float*>(nullptr));
    } else {
      with_type(a.w_type, f);
    }
  }

  // Writes inputs of x as parts of words.
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

  // MR rows of x, all there are, or fewer.
  template <typename T, int MR>
  [[gnu::noinline]] static void gemv(const LinearArguments& a, int64_t task) {
    if constexpr (MR > 1) {
      if (a.m < MR) {
        return gemv<T, MR - 1>(a, task);
      }
    }
    gemv_task<MR, GEMV_PANEL>(a, task, [&](Panel panel) {
      return [&a, panel](float (&out)[MR][GEMV_PANEL]) mutable {
        for (int64_t k = 0; k < a.k; k += a.slice) {
          add_gemv_slice<T>(a, PanelSlice(a, panel, k), out);
        }
        panel = panel.after(a, 1);
      };
    });
  }

  // Adds the products of a panel's stretch with all rows of x.
  template <typename T, int MR>
  VOXFAST_INLINE static void add_gemv_slice(const LinearArguments& a, const PanelSlice& s,
                                            float (&out)[MR][GEMV_PANEL]) {
    constexpr int VECTORS_OF_W = GEMV_PANEL / VECTOR_OUTPUTS;
    f32v lane_sums[MR][VECTORS_OF_W] = {};
    s.template for_vectors<T>([&](int64_t at, auto load) __attribute__((always_inline)) {
      f32v w[VECTORS_OF_W][VECTOR_OUTPUTS];
      for (int v = 0; v < VECTORS_OF_W; ++v) {
        s.template load_quads<T>(v * VECTOR_OUTPUTS, at, load, w[v]);
      }
      for (int i = 0; i < VECTOR_OUTPUTS; ++i) {
        for (int m = 0; m < MR; ++m) {
          f32v x = broadcast_quad(x_slice(a, m, s.first) + 4 * (at + QUAD * i));
          for (int v = 0; v < VECTORS_OF_W; ++v) {
            lane_sums[m][v] = Lane::add_dot(lane_sums[m][v], w[v][i], x);
          }
        }
      }
    });
    for (int m = 0; m < MR; ++m) {
      f32v some[QUAD] = {};
      std::memcpy(some, lane_sums[m], sizeof lane_sums[m]);
      f32v summed = quad_sums(some);
      for (int r = 0; r < GEMV_PANEL; ++r) {
        out[m][r] += summed[r];
      }
    }
  }

  // A panel's stretch in the order of its use: of each tile of the registers, quad by
  // quad, one vector beside the other.
  struct RepackedSlice {
    static constexpr int TILES = PANEL / (VECTORS * VECTOR_OUTPUTS);
    alignas(64) f32v lanes[TILES][KC / Lane::INPUTS / QUAD][VECTORS];

    RepackedSlice(const LinearArguments& a, const PanelSlice& s) {
      with_lane_type(a, [&]<typename T>(T*) __attribute__((always_inline)) {
        s.template for_vectors<T>(
            [&](int64_t at, auto load) __attribute__((always_inline)) {
              for (int64_t v = 0; v < PANEL / VECTOR_OUTPUTS; ++v) {
                f32v quads[VECTOR_OUTPUTS];
                s.template load_quads<T>(v * VECTOR_OUTPUTS, at, load, quads);
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
        a, task, [&](int64_t first, int64_t k, int64_t m, int64_t rows, float* sums) {
          const PanelSlice slice(a, {first, PANEL, 1, a.n - 1, PANEL}, k);
          const RepackedSlice ordered(a, slice);
          for (int64_t i = 0; i < rows;) {
            i += add_tile<MAX_MR>(a, slice, ordered, m + i, rows - i, sums + i * PANEL);
          }
        });
  }

  // Adds the products with MR rows of x from `row` on, or with fewer where there are but
  // `rows`. Returns how many they were.
  template <int MR>
  static int64_t add_tile(const LinearArguments& a, const PanelSlice& s,
                          const RepackedSlice& w, int64_t row, int64_t rows,
                          float* sums) {
    if constexpr (MR > 1) {
      if (rows < MR) {
        return add_tile<MR - 1>(a, s, w, row, rows, sums);
      }
    }
    const int64_t steps = (s.lanes + LANES - 1) / LANES * VECTOR_OUTPUTS;
    const char* x = x_slice(a, row, s.first);
    const int64_t x_stride = INPUT_BYTES * a.slice;
    for (int tile = 0; tile < RepackedSlice::TILES; ++tile) {
      f32v lane_sums[MR][VECTORS] = {};
      for (int64_t i = 0; i < steps; ++i) {
        const auto& some = w.lanes[tile][i];
#pragma GCC unroll 12
        for (int m = 0; m < MR; ++m) {
          f32v quad = broadcast_quad(x + m * x_stride + 4 * QUAD * i);
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v) {
            lane_sums[m][v] = Lane::add_dot(lane_sums[m][v], some[v], quad);
          }
        }
      }
      float* to = sums + tile * VECTORS * VECTOR_OUTPUTS;
#pragma GCC unroll 6
      for (int m = 0; m < MR; m += 2, to += 2 * PANEL) {
        constexpr f32v NONE[VECTORS] = {};
        const f32v(&next)[VECTORS] = m + 1 < MR ? lane_sums[m + 1] : NONE;
        f32v some[QUAD] = {lane_sums[m][0], lane_sums[m][1], next[0], next[1]};
        add_halves(quad_sums(some), to, m + 1 < MR ? to + PANEL : nullptr);
      }
    }
    return MR;
  }

  // Adds the first half of x to the numbers at `first`, the second to those at `second`,
  // if any.
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

#pragma once

// linear with float weights: dot products in float32, lanes along K, so rows of w are
// read as they lie.
//
// What one output is does not depend on what is computed beside it: for every stretch of
// inputs one vector accumulates in order and its lanes are added up, and these sums are
// added in order. Few rows of x widen each weight in registers as they meet it; for many
// rows a panel of weights is first widened into cached memory, to the same numbers. Where
// the processor multiplies pairs of bfloat16 (AVX-512 BF16) and x is of that type, too,
// neither is widened: their products are exact in float32.

#include "kernels/linear_arguments.h"
#include "kernels/linear_rows.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// Numbers of x as they are prepared for weights of type T, and products with them.
template <typename T>
struct Factors {
  typedef float X;
  typedef f32v Vector;
  static constexpr int64_t COUNT = LANES;

  VOXFAST_INLINE static f32v add_products(f32v w, f32v x, f32v total) {
    return w * x + total;
  }
};

// Two neighbours in each lane.
struct bf16_pairs {
  uint16_t bits;
};

#if defined(__AVX512BF16__)
template <>
struct Factors<bf16_pairs> {
  typedef bf16_pairs X;
  typedef __m512bh Vector;
  static constexpr int64_t COUNT = 2 * LANES;

  VOXFAST_INLINE static f32v add_products(__m512bh w, __m512bh x, f32v total) {
    return (f32v)_mm512_dpbf16_ps((__m512)total, w, x);
  }
};

VOXFAST_INLINE __m512bh load(const bf16_pairs* p) { return read<__m512bh>(p); }

VOXFAST_INLINE __m512bh load_first(const bf16_pairs* p, int64_t count) {
  auto mask = static_cast<__mmask32>((1u << count) - 1);
  return (__m512bh)_mm512_maskz_loadu_epi16(mask, p);
}
#endif

struct FloatWeights {
  static constexpr int64_t FEW_ROWS = 4;  // of x: weights are used as they are read
  static constexpr int64_t PANEL = 24;    // rows of w, of many rows of x

  // Rows of x by rows of w in the registers, of many rows of x.
  static constexpr int TILE_M = LANES == 8 ? 3 : 4;
  static constexpr int TILE_N = LANES == 16 ? 6 : 4;

  static constexpr int64_t K_BLOCK = 1024;

  // A stretch of inputs of some rows of w, K_BLOCK at most.
  struct Stretch {
    int64_t first, count;
    RowPointers w;

    Stretch(const LinearArguments& a, const Panel& panel, int64_t first_)
        : first(first_), count(smallest(a.k - first_, a.stretch)), w(a, panel, first_) {}
  };

  // Whether pairs of bfloat16 are multiplied.
  static bool pairs(const LinearArguments& a) {
#if defined(__AVX512BF16__)
    return a.x_type == FloatType::bfloat16 && a.w_type == FloatType::bfloat16;
#else
    return false;
#endif
  }

  static int64_t panel(const LinearArguments& a) {
    return a.m <= FEW_ROWS ? FEW_N : PANEL;
  }
  static int64_t most_task_rows(const LinearArguments& a) {
    return a.m <= FEW_ROWS ? FEW_TASK : a.n;
  }

  // Prepared x: rows of floats, or of bfloat16 for pairs, whole vectors.
  static int64_t prepared_stride(const LinearArguments& a) {
    return (pairs(a) ? 2 : 4) * round_up_to(a.k, 32);
  }

  static void prepare(const LinearArguments& a, int64_t row) {
    char* out = a.prepared + row * a.prepared_stride;
    if (pairs(a)) {
      const auto* x = static_cast<const bf16*>(a.x) + a.x_rows[row];
      auto* to = reinterpret_cast<bf16*>(out);
      for (int64_t k = 0; k < a.k; ++k) {
        to[k] = read<bf16>(x + k * a.x_stride);
      }
      std::memset(to + a.k, 0, static_cast<size_t>(round_up_to(a.k, 32) - a.k) * 2);
    } else {
      auto* to = reinterpret_cast<float*>(out);
      load_floats(a.x, a.x_type, a.x_rows[row], a.x_stride, a.k, to);
      std::memset(to + a.k, 0, static_cast<size_t>(round_up_to(a.k, 32) - a.k) * 4);
    }
  }

  // Outputs n ... n + width - 1 of all rows of x.
  static void multiply(const LinearArguments& a, int64_t n, int64_t width) {
    (a.m <= FEW_ROWS ? multiply_few : multiply_many)(a, n, width);
  }

 private:
  static void multiply_few(const LinearArguments& a, int64_t n, int64_t width) {
    few_outputs<FEW_ROWS>(a, n, width, [&](const Panel& panel, auto& out) {
      for (int64_t k = 0; k < a.k; k += a.stretch) {
        add_few<FEW_ROWS>(a, Stretch(a, panel, k), out[0]);
      }
    });
  }

  static void multiply_many(const LinearArguments& a, int64_t n, int64_t width) {
    many_outputs<PANEL>(
        a, n, width, [&](int64_t first, int64_t k, int64_t m, int64_t rows, float* sums) {
          add_many(a, Stretch(a, {first, PANEL, 1, PANEL}, k), m, rows, sums);
        });
  }

  // Adds the products of MR rows of x, all there are, with FEW_N rows of w.
  template <int MR>
  static void add_few(const LinearArguments& a, const Stretch& s, float* out) {
    if constexpr (MR > 1) {
      if (a.m < MR) {
        return add_few<MR - 1>(a, s, out);
      }
    }
    constexpr int NR = MR < 4 || LANES == 16 ? 4 : 2;  // as many as the registers hold
    for (int r = 0; r < FEW_N; r += NR) {
      switch (a.w_type) {
        case FloatType::float32:
          add_tile<float, MR, NR>(a, s, 0, s.w.here + r, s.w.later + r, out + r, FEW_N);
          break;
        case FloatType::float16:
          add_tile<f16, MR, NR>(a, s, 0, s.w.here + r, s.w.later + r, out + r, FEW_N);
          break;
        case FloatType::bfloat16:
#if defined(__AVX512BF16__)
          if (pairs(a)) {
            add_tile<bf16_pairs, MR, NR>(a, s, 0, s.w.here + r, s.w.later + r, out + r,
                                         FEW_N);
            break;
          }
#endif
          add_tile<bf16, MR, NR>(a, s, 0, s.w.here + r, s.w.later + r, out + r, FEW_N);
          break;
      }
    }
  }

  // TILE_N rows of w from r on, widened where they have to be.
  struct Widened {
    const char* rows[TILE_N];
    alignas(64) float numbers[TILE_N * K_BLOCK];

    Widened(const LinearArguments& a, const Stretch& s, int64_t r) {
      for (int i = 0; i < TILE_N; ++i) {
        rows[i] = s.w.here[r + i];
        if (a.w_type != FloatType::float32 && !pairs(a)) {
          load_floats(s.w.here[r + i], a.w_type, 0, 1, s.count, numbers + i * K_BLOCK);
          rows[i] = reinterpret_cast<const char*>(numbers + i * K_BLOCK);
        }
      }
    }
  };

  // Adds the products of `rows` rows of x from `row` on. A tile's rows of w stay in the
  // first cache while those of x pass by.
  static void add_many(const LinearArguments& a, const Stretch& s, int64_t row,
                       int64_t rows, float* out) {
    for (int64_t r = 0; r < PANEL; r += TILE_N) {
      const Widened widened(a, s, r);
      float* to = out + r;
      int64_t m = 0;
      for (; m + TILE_M <= rows; m += TILE_M) {
        add_widened<TILE_M>(a, s, widened, row + m, to + m * PANEL);
      }
      for (; m < rows; ++m) {
        add_widened<1>(a, s, widened, row + m, to + m * PANEL);
      }
    }
  }

  // Adds the products of MR rows of x from `row` on with those widened.
  template <int MR>
  static void add_widened(const LinearArguments& a, const Stretch& s,
                          const Widened& widened, int64_t row, float* out) {
#if defined(__AVX512BF16__)
    if (pairs(a)) {
      return add_tile<bf16_pairs, MR, TILE_N>(a, s, row, widened.rows, nullptr, out,
                                              PANEL);
    }
#endif
    add_tile<float, MR, TILE_N>(a, s, row, widened.rows, nullptr, out, PANEL);
  }

  template <typename T, int MR, int NR>
  VOXFAST_INLINE static void add_tile(const LinearArguments& a, const Stretch& s,
                                      int64_t row, const char* const* w,
                                      const char* const* later, float* out,
                                      int64_t out_stride) {
    using F = Factors<T>;
    const auto* x =
        reinterpret_cast<const typename F::X*>(a.prepared + row * a.prepared_stride) +
        s.first;
    int64_t stride = a.prepared_stride / static_cast<int64_t>(sizeof *x);
    f32v totals[MR][NR] = {};
    auto step = [&](int64_t k, auto load_w) __attribute__((always_inline)) {
      typename F::Vector xs[MR];
      for (int m = 0; m < MR; ++m) {
        xs[m] = load(x + m * stride + k);
      }
      for (int r = 0; r < NR; ++r) {
        if (later != nullptr) {
          __builtin_prefetch(later[r] + k * sizeof(T));
        }
        typename F::Vector weights = load_w(reinterpret_cast<const T*>(w[r]) + k);
        for (int m = 0; m < MR; ++m) {
          totals[m][r] = F::add_products(weights, xs[m], totals[m][r]);
        }
      }
    };
    int64_t whole = s.count / F::COUNT * F::COUNT;
    for (int64_t k = 0; k < whole; k += F::COUNT) {
      step(k, [](const T* p) __attribute__((always_inline)) { return load(p); });
    }
    if (whole < s.count) {
      step(whole, [&](const T* p) __attribute__((always_inline)) {
        return load_first(p, s.count - whole);
      });
    }
    add_lane_sums(totals, out, out_stride);
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// linear: what its kernels share. Panels, loads and stores of any float type, and the
// loops of a task. Glossary: linear.h.

#include "kernels/horizontal_sums.h"
#include "kernels/linear_arguments.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

constexpr int64_t MC = 144;            // rows of x that share a repacked slice of a panel
constexpr int64_t MAX_PANEL = 32;      // rows of w
constexpr int64_t MAX_GEMV_TASK = 64;  // outputs per task and strip

VOXFAST_INLINE int64_t float_size(FloatType type) {
  return type == FloatType::float32 ? 4 : 2;
}

// The indices of a panel's rows of w: first + r * spacing, at most `last`. The next panel
// begins `step` rows later.
struct Panel {
  int64_t first, count, spacing, last, step;

  VOXFAST_INLINE Panel after(const LinearArguments& a, int64_t steps) const {
    return {first + steps * step, count, spacing, min(last + steps * step, a.n - 1),
            step};
  }
  VOXFAST_INLINE int64_t row(int64_t r) const { return min(first + r * spacing, last); }
};

// PANEL neighbouring rows of w from n on: a panel of a gemm.
template <int64_t PANEL>
VOXFAST_INLINE Panel neighbours(const LinearArguments& a, int64_t n) {
  return {n, PANEL, 1, a.n - 1, PANEL};
}

// Addresses of a slice of each row of a panel, and of the slice to prefetch meanwhile.
struct PanelPointers {
  const char *current[MAX_PANEL], *prefetch[MAX_PANEL];

  PanelPointers(const LinearArguments& a, const Panel& panel, int64_t first) {
    int64_t bits = a.bits > 0 ? a.bits : 8 * float_size(a.w_type);
    int64_t start = first + a.prefetch_inputs, over = start >= a.padded_k ? 1 : 0;
    start -= over * a.padded_k;
    Panel then = panel.after(a, a.prefetch_panels + over);
    for (int64_t r = 0; r < panel.count; ++r) {
      current[r] = a.w + panel.row(r) * a.w_stride + first / 8 * bits;
      prefetch[r] = a.w + then.row(r) * a.w_stride + start / 8 * bits;
    }
  }
};

// Loads `count` < LANES numbers; the other lanes are 0. Reads nothing beyond them.
template <typename T>
VOXFAST_INLINE f32v load_partial(const T* p, int64_t count) {
#if defined(__AVX512BW__)
  auto mask = static_cast<__mmask16>((1u << count) - 1);
  if constexpr (sizeof(T) == 4) {
    return (f32v)_mm512_maskz_loadu_ps(mask, p);
  } else {
    T padded[LANES];
    _mm256_storeu_si256((__m256i*)padded, _mm256_maskz_loadu_epi16(mask, p));
    return load(padded);
  }
#else
  T padded[LANES] = {};
  std::memcpy(padded, p, static_cast<size_t>(count) * sizeof(T));
  return load(padded);
#endif
}

// Loads min(count, LANES) numbers; the other lanes are 0.
template <typename T>
VOXFAST_INLINE f32v load_n(const T* p, int64_t count) {
  return count < LANES ? load_partial(p, count) : load(p);
}

template <typename T>
void load_strided(const T* p, int64_t stride, int64_t count, float* out) {
  int64_t i = 0;
  if (stride == 1) {
    for (; i + LANES <= count; i += LANES) {
      store(out + i, load(p + i));
    }
  }
  for (; i < count; ++i) {
    out[i] = to_float(read<T>(p + i * stride));
  }
}

// Converts `count` numbers from element `first` on, `stride` elements apart.
VOXFAST_INLINE void load_floats(const void* p, FloatType type, int64_t first,
                                int64_t stride, int64_t count, float* out) {
  with_type(type, [&]<typename T>(T*) __attribute__((always_inline)) {
    load_strided(static_cast<const T*>(p) + first, stride, count, out);
  });
}

// Calls f(from, length, done) for each span, or part of one, of inputs
// [first, first + count) of a row of x: `length` inputs that begin at element `from` of x
// and at input first + done.
template <typename F>
VOXFAST_INLINE void for_spans(const LinearArguments& a, int64_t m, int64_t first,
                              int64_t count, F f) {
  int64_t span = first / a.x_span, within = first % a.x_span;
  for (int64_t done = 0; done < count; ++span, within = 0) {
    int64_t length = min(count - done, a.x_span - within);
    f(a.x_row_offsets[m] + a.x_span_offsets[span] + within * a.x_stride, length, done);
    done += length;
  }
}

template <typename T>
void store_floats(T* p, const float* x, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    store(p + i, load(x + i));
  }
  if (i == count) {
    return;
  }
#if defined(__AVX512BW__)
  auto mask = static_cast<__mmask16>((1u << (count - i)) - 1);
  T rest[LANES];
  store(rest, load_partial(x + i, count - i));
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(p + i, mask, read<__m512>(rest));
  } else {
    _mm256_mask_storeu_epi16(p + i, mask, read<__m256i>(rest));
  }
#else
  for (; i < count; ++i) {
    p[i] = from_float<T>(x[i]);
  }
#endif
}

// gemv: adds the bias to outputs [n, n + count) of row m of x, in place, and stores them.
VOXFAST_INLINE void write_outputs(const LinearArguments& a, int64_t m, int64_t n,
                                  int64_t count, float* x) {
  constexpr int64_t STEP = 64;
  float bias[STEP];
  for (int64_t i = 0; a.bias != nullptr && i < count; i += STEP) {
    int64_t width = min(count - i, STEP);
    load_floats(a.bias, a.bias_type, n + i, 1, width, bias);
    for (int64_t j = 0; j < width; ++j) {
      x[i + j] += bias[j];
    }
  }
  int64_t first = m * a.n + n;
  with_type(a.out_type, [&]<typename T>(T*) __attribute__((always_inline)) {
    store_floats(static_cast<T*>(a.out) + first, x, count);
  });
}

// gemm: adds the bias to outputs [n, n + count) of rows [m, m + m_count) of x, in place,
// and stores them.
template <int64_t PANEL>
VOXFAST_INLINE void write_panel(const LinearArguments& a, int64_t m, int64_t m_count,
                                int64_t n, int64_t count, float (*x)[PANEL]) {
  alignas(64) float bias[PANEL] = {};
  if (a.bias != nullptr) {
    load_floats(a.bias, a.bias_type, n, 1, count, bias);
  }
  with_type(a.out_type, [&]<typename T>(T*) __attribute__((always_inline)) {
    T* out = static_cast<T*>(a.out) + m * a.n + n;
    for (int64_t i = 0; i < m_count; ++i, out += a.n) {
      for (int64_t j = 0; a.bias != nullptr && j < PANEL; j += LANES) {
        store(x[i] + j, load(x[i] + j) + load(bias + j));
      }
      if (count < PANEL) {
        store_floats(out, x[i], count);
        continue;
      }
      for (int64_t j = 0; j < PANEL; j += LANES) {
        store(out + j, load(x[i] + j));
      }
    }
  });
}

// out[r][i] = outputs[i][m][r] for i < count.
template <int ROWS, int PANEL>
VOXFAST_INLINE void transpose_outputs(const float (&outputs)[MAX_GEMV_TASK][ROWS][PANEL],
                                      int64_t m, int64_t count,
                                      float (&out)[PANEL][MAX_GEMV_TASK]) {
  if constexpr (LANES == 16 && PANEL % LANES == 0) {
    for (int64_t i = 0; i < count; i += LANES) {
      for (int r = 0; r < PANEL; r += LANES) {
        f32v x[LANES];
#pragma GCC unroll 16
        for (int j = 0; j < LANES; ++j) {
          x[j] = load(outputs[min(i + j, count - 1)][m] + r);
        }
        transpose(x);
#pragma GCC unroll 16
        for (int j = 0; j < LANES; ++j) {
          store(out[r + j] + i, x[j]);
        }
      }
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      for (int r = 0; r < PANEL; ++r) {
        out[r][i] = outputs[i][m][r];
      }
    }
  }
}

// A gemv task for at most ROWS rows of x. Each panel has one row of w from each of PANEL
// strips, so that the task reads PANEL sequential streams, which hardware prefetchers
// follow. start(panel) returns a functor that adds the next panel's outputs per call to
// zeros, [ROWS][PANEL].
template <int ROWS, int PANEL, typename F>
VOXFAST_INLINE void gemv_task(const LinearArguments& a, int64_t task, F start) {
  alignas(64) float outputs[MAX_GEMV_TASK][ROWS][PANEL];
  int64_t begin = task / a.splits * a.task_outputs;  // in each strip
  int64_t count = min(a.task_outputs, a.strip - begin);
  int64_t first = task % a.splits * PANEL * a.strip + begin;
  // A strip that w ends in takes the last rows of w instead, and skips the outputs that
  // an earlier strip or task has computed.
  int64_t latest = a.n - count;
  auto compute = start(Panel{first, PANEL, a.strip, latest, 1});
  for (int64_t i = 0; i < count; ++i) {
    std::memset(outputs[i], 0, static_cast<size_t>(a.m) * sizeof outputs[i][0]);
    compute(outputs[i]);
  }
  for (int64_t m = 0; m < a.m; ++m) {
    alignas(64) float of_strips[PANEL][MAX_GEMV_TASK];
    transpose_outputs(outputs, m, count, of_strips);
    for (int64_t r = 0, n = first; r < PANEL && n < a.n; ++r, n += a.strip) {
      int64_t skipped = n - min(n, latest);
      write_outputs(a, m, n, count - skipped, of_strips[r] + skipped);
    }
  }
}

// A gemm task, panel by panel. add(n, k, m, m_count, sums) adds to sums[m_count][PANEL]
// what the slice at input k contributes to outputs [n, n + PANEL) of rows [m, m +
// m_count) of x.
template <int64_t PANEL, typename F>
VOXFAST_INLINE void gemm_task(const LinearArguments& a, int64_t task, F add) {
  alignas(64) float sums[MC][PANEL];
  int64_t n = task * a.task_outputs, end = min(a.n, n + a.task_outputs);
  for (; n < end; n += PANEL) {
    for (int64_t m = 0; m < a.m; m += MC) {
      int64_t m_count = min(a.m - m, MC);
      std::memset(sums, 0, static_cast<size_t>(m_count * PANEL) * sizeof(float));
      for (int64_t k = 0; k < a.k; k += a.slice) {
        add(n, k, m, m_count, sums);
      }
      write_panel<PANEL>(a, m, m_count, n, min(end - n, PANEL), sums);
    }
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

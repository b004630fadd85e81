#pragma once

// linear: what its kernels share. Rows of any float type in and out, and sums.

#include "kernels/horizontal_sums.h"
#include "kernels/linear_arguments.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

// How the work is cut. Inputs are summed up by stretches, each on its own; many rows of x
// share a panel of rows of w in cached memory.
constexpr int64_t MC = 144;
constexpr int64_t MAX_PANEL = 32;  // of w in a panel

// Few rows of x use weights as they are read. The most rows of a run in a task then:
constexpr int64_t MAX_GEMV_TASK = 64;

VOXFAST_INLINE int64_t float_size(FloatType type) {
  return type == FloatType::float32 ? 4 : 2;
}

// Rows of w that are computed together: `count` of them, `spacing` apart, but none after
// row `last`. The next ones come `step` later.
struct Panel {
  int64_t first, count, spacing, last, step;

  VOXFAST_INLINE Panel after(const LinearArguments& a, int64_t steps) const {
    return {first + steps * step, count, spacing, min(last + steps * step, a.n - 1),
            step};
  }
  VOXFAST_INLINE int64_t row(int64_t r) const { return min(first + r * spacing, last); }
};

// Where the bits of a panel lie for one stretch of inputs, and for one that is computed
// later, so that it can be fetched early.
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

// The first `count` numbers, fewer than a vector, and zeros.
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

// As many of the `count` numbers as a vector holds; zeros if there are fewer.
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

// Reads `count` numbers from element `first` on, `stride` elements apart.
VOXFAST_INLINE void load_floats(const void* p, FloatType type, int64_t first,
                                int64_t stride, int64_t count, float* out) {
  switch (type) {
    case FloatType::float32:
      return load_strided(static_cast<const float*>(p) + first, stride, count, out);
    case FloatType::float16:
      return load_strided(static_cast<const f16*>(p) + first, stride, count, out);
    case FloatType::bfloat16:
      return load_strided(static_cast<const bf16*>(p) + first, stride, count, out);
  }
}

// Calls f(from, count, done) for what is in one piece of `count` inputs of a row of x
// from input `first` on: it begins at element `from` of x and comes after `done` others.
template <typename F>
VOXFAST_INLINE void for_spans(const LinearArguments& a, int64_t row, int64_t first,
                              int64_t count, F f) {
  int64_t span = first / a.x_span, within = first % a.x_span;
  for (int64_t done = 0; done < count; ++span, within = 0) {
    int64_t length = min(count - done, a.x_span - within);
    f(a.x_row_offsets[row] + a.x_span_offsets[span] + within * a.x_stride, length, done);
    done += length;
  }
}

template <typename T>
void store_floats(T* p, const float* x, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    store(p + i, load(x + i));
  }
  for (; i < count; ++i) {
    p[i] = from_float<T>(x[i]);
  }
}

// Adds the bias to outputs n ... n + count - 1 of row m and writes them.
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
  switch (a.out_type) {
    case FloatType::float32:
      return store_floats(static_cast<float*>(a.out) + first, x, count);
    case FloatType::float16:
      return store_floats(static_cast<f16*>(a.out) + first, x, count);
    case FloatType::bfloat16:
      return store_floats(static_cast<bf16*>(a.out) + first, x, count);
  }
}

// One task of few rows of x, ROWS at most. The COUNT rows of w that are computed together
// are one of each run of a segment: every run is read from its beginning to its end,
// which is what the processor's own fetching ahead expects. start(panel) returns what,
// called over and over, computes out[ROWS][COUNT] for that panel and for those after it.
template <int ROWS, int COUNT, typename F>
VOXFAST_INLINE void gemv_task(const LinearArguments& a, int64_t task, F start) {
  float outputs[ROWS][COUNT][MAX_GEMV_TASK];
  int64_t begin = task / a.splits * a.task_outputs;  // in each run
  int64_t rows = min(a.task_outputs, a.strip - begin);
  int64_t first = task % a.splits * COUNT * a.strip + begin;
  // Where w ends too early for so many rows of a run, the last ones of all are taken.
  int64_t latest = a.n - rows;
  auto compute = start(Panel{first, COUNT, a.strip, latest, 1});
  for (int64_t i = 0; i < rows; ++i) {
    float some[ROWS][COUNT] = {};
    compute(some);
    for (int64_t m = 0; m < a.m; ++m) {
      for (int64_t r = 0; r < COUNT; ++r) {
        outputs[m][r][i] = some[m][r];
      }
    }
  }
  for (int64_t r = 0, n = first; r < COUNT && n < a.n; ++r, n += a.strip) {
    int64_t skipped = n - min(n, latest);
    for (int64_t m = 0; m < a.m; ++m) {
      write_outputs(a, m, n, rows - skipped, outputs[m][r] + skipped);
    }
  }
}

// One task of many rows of x, by panels of PANEL neighbouring rows of
// w: add(n, k, m, rows, sums) adds the products of the stretch at k with `rows` rows of x
// from row m on to sums[rows][PANEL].
template <int64_t PANEL, typename F>
VOXFAST_INLINE void gemm_task(const LinearArguments& a, int64_t task, F add) {
  alignas(64) float sums[MC * PANEL];
  int64_t n = task * a.task_outputs, end = min(a.n, n + a.task_outputs);
  for (; n < end; n += PANEL) {
    for (int64_t m = 0; m < a.m; m += MC) {
      int64_t rows = min(a.m - m, MC);
      std::memset(sums, 0, static_cast<size_t>(rows * PANEL) * sizeof(float));
      for (int64_t k = 0; k < a.k; k += a.slice) {
        add(n, k, m, rows, sums);
      }
      for (int64_t i = 0; i < rows; ++i) {
        write_outputs(a, m + i, n, min(end - n, PANEL), sums + i * PANEL);
      }
    }
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

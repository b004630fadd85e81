#pragma once

// linear with packed weights: products of 16-bit integers, exact, summed up in 32 bits
// over each group, then in float32 over groups.
//
// Each group of a row of x is rounded to integers of 15 bits and sign with a power of two
// as its unit: 2^-15 of the greatest number in the group is about the most that any
// number loses, and those of half precision lose nothing unless they are much smaller
// than it. With codes c worth c * scale + bias, a group adds
//   scale * unit * (sum of c * integer) + bias * unit * (sum of integers).
// Since sums of integers do not depend on their order, rows of x can be computed in any
// company, from codes in registers or in a panel, to the same result.

#include "kernels/linear_arguments.h"
#if defined(__AVX512VNNI__)
#include "kernels/linear_codes_bytes.h"
#else
#include "kernels/linear_codes.h"
#endif
#include "kernels/linear_rows.h"
#include "kernels/simd.h"
#include "kernels/with_type.h"

namespace voxfast::VOXFAST_ISA {
namespace {

struct PackedWeights {
  static constexpr int TILE_M = LANES == 8 ? 3 : 4;
  static constexpr int TILE_N = 4;
  static constexpr int64_t K_BLOCK = 2048;
  static constexpr int64_t FEW_ROWS = VECTOR_CODES == 64 ? 4 : 2;
  static constexpr int64_t MAX_GROUPS = K_BLOCK / 32;

  // A stretch of inputs of some rows of w, K_BLOCK at most.
  struct Stretch {
    int64_t first, count, first_group, groups;
    RowPointers w;
    // Of each group; biases are zeros up to whole vectors.
    alignas(64) float scales[N_BLOCK * MAX_GROUPS], biases[N_BLOCK * MAX_GROUPS];

    Stretch(const LinearArguments& a, const Panel& panel, int64_t first_)
        : first(first_),
          count(smallest(a.k - first_, a.stretch)),
          first_group(first_ / a.group_size),
          groups(count / a.group_size),
          w(a, panel, first_) {
      with_type(a.scale_type, [&]<typename T>(T*) __attribute__((always_inline)) {
        load_groups<T>(a, panel);
      });
    }

   private:
    template <typename T>
    void load_groups(const LinearArguments& a, const Panel& panel) {
      for (int64_t r = 0; r < panel.count; ++r) {
        int64_t row = panel.row(a, r);
        const T* s = static_cast<const T*>(a.scales) + row * a.scale_stride + first_group;
        const T* b = static_cast<const T*>(a.biases) + row * a.bias_stride + first_group;
        int64_t whole = groups / LANES * LANES, to = r * MAX_GROUPS;
        for (int64_t g = 0; g < whole; g += LANES) {
          store(scales + to + g, load(s + g));
          store(biases + to + g, load(b + g));
        }
        if (whole < groups) {
          store(scales + to + whole, load_first(s + whole, groups - whole));
          store(biases + to + whole, load_first(b + whole, groups - whole));
        }
      }
    }
  };

  // Prepared x, of each row: the integers, in the order of the codes' lanes; then of each
  // group the unit, and the sum of its integers times the unit.
  static void plan(LinearArguments& a) {
    // Whole vectors from any stretch's first group on.
    a.padded_groups = round_up_to(a.k / a.group_size, 16) + 16;
    a.prepared_stride = 2 * round_up_to(a.k, 64) + round_up_to(8 * a.padded_groups, 64);
  }

  struct Row {
    char* integers;
    float *units, *sums;

    VOXFAST_INLINE Row(const LinearArguments& a, int64_t row) {
      integers = a.prepared + row * a.prepared_stride;
      units = reinterpret_cast<float*>(integers + 2 * round_up_to(a.k, 64));
      sums = units + a.padded_groups;
    }
  };

  static void prepare(const LinearArguments& a, int64_t row) {
    Row out(a, row);
    int64_t groups = a.k / a.group_size;
    for (int64_t g = 0; g < groups; ++g) {
      alignas(64) float x[128];
      alignas(64) int32_t rounded[128];
      load_floats(a.x, a.x_type, a.x_rows[row] + g * a.group_size * a.x_stride,
                  a.x_stride, a.group_size, x);
      round_group(a.group_size, x, rounded, out.units[g], out.sums[g]);
      lay_out(a.bits, g * a.group_size, a.group_size, rounded, out.integers);
    }
    for (int64_t g = groups; g < a.padded_groups; ++g) {
      out.units[g] = out.sums[g] = 0;
    }
  }

  // Adds the products of MR rows of x, all there are, with FEW_N rows of w.
  template <int MR>
  static void add_few(const LinearArguments& a, const Stretch& s, float* out) {
    switch (a.bits) {
      case 2:
        return add_few_codes<2, MR>(a, s, out);
      case 3:
        return add_few_codes<3, MR>(a, s, out);
      case 4:
        return add_few_codes<4, MR>(a, s, out);
      case 5:
        return add_few_codes<5, MR>(a, s, out);
      case 6:
        return add_few_codes<6, MR>(a, s, out);
      default:
        return add_few_codes<8, MR>(a, s, out);
    }
  }

  // The codes of TILE_N rows of w from r on, unpacked.
  struct Widened {
    // Not a power of two: rows would compete for the same lines of the cache.
    static constexpr int64_t STRIDE = K_BLOCK + VECTOR_CODES;
    alignas(64) Code numbers[TILE_N * STRIDE];

    Widened(const LinearArguments& a, const Stretch& s, int64_t r) {
      for (int i = 0; i < TILE_N; ++i) {
        unpack(a.bits, s.w.here[r + i], s.w.later[r + i], s.count, numbers + i * STRIDE);
      }
    }
  };

  // Adds the products of MR rows of x from `row` on with those unpacked, rows r ...
  // of the stretch.
  template <int MR>
  static void add_many(const LinearArguments& a, const Stretch& s, const Widened& widened,
                       int64_t row, int64_t r, float* out) {
    auto codes_of = [&](int n, int64_t k, int v) __attribute__((always_inline)) {
      return read<Codes>(widened.numbers + n * Widened::STRIDE + k + v * VECTOR_CODES);
    };
    with_group(a.group_size, [&]<int GROUP>() {
      add_tile<GROUP, MR, TILE_N>(a, s, row, r, out, codes_of);
    });
  }

 private:
  // Numbers as integers times `unit`; `sum_of_x` is that of what they became.
  static void round_group(int count, const float* x, int32_t* rounded, float& unit,
                          float& sum_of_x) {
    f32v greatest{}, finite{};
    for (int i = 0; i < count; i += LANES) {
      f32v v = load(x + i);
      greatest = max(greatest, max(v, -v));
      finite = finite + v * 0.0f;  // NaN of an infinity, too
    }
    float most = maximum(greatest), factor = 0;
    unit = 0;
    if (!(sum(finite) == 0.0f)) {
      unit = __builtin_nanf("");
    } else if (most > 0x1p-100f) {
      // most * 1.004 < 2^(exponent - 126), which 2^15 units make: to the base 256, high
      // digits are then 127 at the most.
      uint32_t exponent = float_to_bits(most * 1.004f) >> 23;
      unit = bits_to_float((exponent - 14) << 23);
      factor = bits_to_float((254 + 14 - exponent) << 23);
    }
    const f32v shifter = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds
    i32v total{};
    for (int i = 0; i < count; i += LANES) {
      f32v scaled = factor == 0 ? f32v{} : load(x + i) * factor;
      i32v integers = (i32v)(scaled + shifter) - (i32v)shifter;
      std::memcpy(rounded + i, &integers, sizeof integers);
      total += integers;
    }
    int32_t lanes[LANES], whole = 0;
    std::memcpy(lanes, &total, sizeof lanes);
    for (int32_t lane : lanes) {
      whole += lane;
    }
    sum_of_x = unit * static_cast<float>(whole);
  }

  template <int BITS>
  static void unpack_codes(const char* block, const char* later, int64_t count,
                           Code* out) {
    for (int64_t k = 0; k < count; k += BLOCK_CODES) {
      __builtin_prefetch(later);
      for (int v = 0; v < BLOCK_CODES / VECTOR_CODES; ++v) {
        Codes some = codes<BITS>(block, v, count - k);
        std::memcpy(out + k + v * VECTOR_CODES, &some, sizeof some);
      }
      block += BLOCK_CODES * BITS / 8;
      later += BLOCK_CODES * BITS / 8;
    }
  }

  static void unpack(int bits, const char* block, const char* later, int64_t count,
                     Code* out) {
    switch (bits) {
      case 2:
        return unpack_codes<2>(block, later, count, out);
      case 3:
        return unpack_codes<3>(block, later, count, out);
      case 4:
        return unpack_codes<4>(block, later, count, out);
      case 5:
        return unpack_codes<5>(block, later, count, out);
      case 6:
        return unpack_codes<6>(block, later, count, out);
      default:
        return unpack_codes<8>(block, later, count, out);
    }
  }

  template <int BITS, int MR>
  static void add_few_codes(const LinearArguments& a, const Stretch& s, float* out) {
    with_group(a.group_size, [&]<int GROUP>() {
      auto codes_of = [&](int n, int64_t k, int v) __attribute__((always_inline)) {
        if (v == 0 && k / 8 * BITS % 64 < BLOCK_CODES * BITS / 8) {
          __builtin_prefetch(s.w.later[n] + k / 8 * BITS);
        }
        // Only groups of 32 can leave a block unfinished.
        return codes<BITS>(s.w.here[n] + k / 8 * BITS, v, GROUP == 32 ? s.count - k : 64);
      };
      add_tile<GROUP, MR, FEW_N>(a, s, 0, 0, out, codes_of);
    });
  }

  // Calls f<GROUP>() for the group size.
  template <typename F>
  VOXFAST_INLINE static void with_group(int group_size, F f) {
    switch (group_size) {
      case 32:
        return f.template operator()<32>();
      case 64:
        return f.template operator()<64>();
      default:
        return f.template operator()<128>();
    }
  }

  // Adds the products of MR rows of x from `row` on with NR rows of w, row r of the
  // stretch and the following; codes_of(n, k, v) are those in vector v of the block at k
  // of row r + n. Loops over registers must not stay loops.
  template <int GROUP, int MR, int NR, typename F>
  VOXFAST_INLINE static void add_tile(const LinearArguments& a, const Stretch& s,
                                      int64_t row, int64_t r, float* out, F codes_of) {
    const char* integers[MR];
    // What a sum of codes times integers is worth, of each group.
    alignas(64) float worth[MR][NR][K_BLOCK / GROUP + LANES];
    const float *scales = s.scales + r * MAX_GROUPS, *biases = s.biases + r * MAX_GROUPS;
    f32v totals[MR][NR];
#pragma GCC unroll 4
    for (int m = 0; m < MR; ++m) {
      const Row x(a, row + m);
      integers[m] = x.integers + 2 * s.first;
      const float *units = x.units + s.first_group, *sums_of_x = x.sums + s.first_group;
#pragma GCC unroll 4
      for (int n = 0; n < NR; ++n) {
        totals[m][n] = f32v{};
        for (int64_t g = 0; g < s.groups; g += LANES) {
          store(worth[m][n] + g, load(scales + n * MAX_GROUPS + g) * load(units + g));
          totals[m][n] =
              load(biases + n * MAX_GROUPS + g) * load(sums_of_x + g) + totals[m][n];
        }
      }
    }
    constexpr int INPUTS = SECTION<GROUP>;
    for (int64_t first = 0, section = 0; first < s.count; first += INPUTS, ++section) {
      i32v dots[MR][NR];
#pragma GCC unroll 4
      for (int b = 0; b < INPUTS; b += BLOCK_CODES) {
        int64_t k = first + b;
#pragma GCC unroll 4
        for (int v = 0; v < BLOCK_CODES / VECTOR_CODES; ++v) {
          Inputs xs[MR];
#pragma GCC unroll 4
          for (int m = 0; m < MR; ++m) {
            xs[m] = inputs_at(integers[m] + 2 * k, v);
          }
#pragma GCC unroll 4
          for (int n = 0; n < NR; ++n) {
            Codes w = codes_of(n, k, v);
#pragma GCC unroll 4
            for (int m = 0; m < MR; ++m) {
              dots[m][n] = add_products(dots[m][n], b + v == 0, w, xs[m]);
            }
          }
        }
      }
#pragma GCC unroll 4
      for (int n = 0; n < NR; ++n) {
#pragma GCC unroll 4
        for (int m = 0; m < MR; ++m) {
          totals[m][n] = __builtin_convertvector(dots[m][n], f32v) *
                             worth_of<GROUP>(worth[m][n], section) +
                         totals[m][n];
        }
      }
    }
    add_lane_sums(totals, out, N_BLOCK);
  }
};

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

#pragma once

// Power spectra of LANES64 frames of 400 real samples, one frame per lane, so that no
// step mixes lanes. In float64: the power of speech spans nine decades, and with float32
// the quiet bins of loud frames are off by 1e-4.
//
// 16 and 25 are coprime, so the DFT of 400 points is 25 DFTs of 16 points and 16 DFTs of
// 25 points without twiddle factors (prime-factor algorithm; I. J. Good, 1958). The
// samples are real, so of the outputs of a 16-point DFT 0 and 8 are real, 1 ... 7
// complex, and the others their conjugates. Columns 0 and 8 are combined to one complex
// column, which leaves eight complex DFTs of 25 points.

#include "kernels/log_mel_arguments.h"
#include "kernels/simd.h"

namespace voxfast::VOXFAST_ISA {
namespace {

struct Complex {
  f64v re, im;
};

VOXFAST_INLINE Complex operator+(Complex a, Complex b) {
  return {a.re + b.re, a.im + b.im};
}
VOXFAST_INLINE Complex operator-(Complex a, Complex b) {
  return {a.re - b.re, a.im - b.im};
}
VOXFAST_INLINE Complex times_minus_i(Complex a) { return {a.im, -a.re}; }

// a * (cosine - i sine)
VOXFAST_INLINE Complex rotate(Complex a, double cosine, double sine) {
  return {a.re * cosine + a.im * sine, a.im * cosine - a.re * sine};
}

constexpr double SQRT_HALF = 0.707106781186547524;
constexpr double COS_PI_8 = 0.923879532511286756;
constexpr double SIN_PI_8 = 0.382683432365089772;

// The DFT of 16 real samples, in place: x[0 ... 8] become the real parts of outputs 0 ...
// 8, x[9 ... 15] the imaginary parts of outputs 1 ... 7.
VOXFAST_INLINE void real_dft16(f64v (&x)[16]) {
  // DFTs of 4 points with stride 4; output 3 is the conjugate of output 1.
  f64v zero[4], two[4];
  Complex one[4];
  for (int r = 0; r < 4; ++r) {
    f64v s = x[r] + x[r + 8], t = x[r + 4] + x[r + 12];
    zero[r] = s + t;
    two[r] = s - t;
    one[r] = {x[r] - x[r + 8], x[r + 12] - x[r + 4]};
  }
  // Outputs 0, 4, 8.
  f64v s = zero[0] + zero[2], t = zero[1] + zero[3];
  x[0] = s + t;
  x[8] = s - t;
  x[4] = zero[0] - zero[2];
  x[12] = zero[3] - zero[1];
  // Outputs 2, 6.
  f64v u = (two[1] - two[3]) * SQRT_HALF, v = (two[1] + two[3]) * SQRT_HALF;
  x[2] = two[0] + u;
  x[10] = -two[2] - v;
  x[6] = two[0] - u;
  x[14] = two[2] - v;
  // Outputs 1, 5, and 9, 13, the conjugates of 7, 3.
  Complex b = rotate(one[1], COS_PI_8, SIN_PI_8);
  Complex c = {(one[2].re + one[2].im) * SQRT_HALF, (one[2].im - one[2].re) * SQRT_HALF};
  Complex d = rotate(one[3], SIN_PI_8, COS_PI_8);
  Complex ac = one[0] + c, bd = b + d, a_c = one[0] - c, b_d = times_minus_i(b - d);
  Complex first = ac + bd, fifth = a_c + b_d, ninth = ac - bd, thirteenth = a_c - b_d;
  x[1] = first.re;
  x[9] = first.im;
  x[5] = fifth.re;
  x[13] = fifth.im;
  x[7] = ninth.re;
  x[15] = -ninth.im;
  x[3] = thirteenth.re;
  x[11] = -thirteenth.im;
}

constexpr double COS_2PI_5 = 0.309016994374947424;
constexpr double COS_4PI_5 = -0.809016994374947424;
constexpr double SIN_2PI_5 = 0.951056516295153572;
constexpr double SIN_4PI_5 = 0.587785252292473129;

VOXFAST_INLINE void dft5(Complex (&x)[5]) {
  Complex p = x[1] + x[4], q = x[2] + x[3], r = x[1] - x[4], s = x[2] - x[3];
  Complex a = {x[0].re + p.re * COS_2PI_5 + q.re * COS_4PI_5,
               x[0].im + p.im * COS_2PI_5 + q.im * COS_4PI_5};
  Complex b = {x[0].re + p.re * COS_4PI_5 + q.re * COS_2PI_5,
               x[0].im + p.im * COS_4PI_5 + q.im * COS_2PI_5};
  Complex c = {r.re * SIN_2PI_5 + s.re * SIN_4PI_5, r.im * SIN_2PI_5 + s.im * SIN_4PI_5};
  Complex d = {r.re * SIN_4PI_5 - s.re * SIN_2PI_5, r.im * SIN_4PI_5 - s.im * SIN_2PI_5};
  x[0] = x[0] + p + q;
  x[1] = a + times_minus_i(c);
  x[2] = b + times_minus_i(d);
  x[3] = b - times_minus_i(d);
  x[4] = a - times_minus_i(c);
}

// The DFT of column `column` of x [25, 16], with the imaginary parts in column + 8, as
// DFTs of 5 points with stride 5, twiddle factors, and DFTs of 5 points.
VOXFAST_INLINE void dft25(const f64v* x, int column, const LogMelTables& tables,
                          Complex (&out)[25]) {
  Complex between[5][5];  // [output of the first DFTs, n mod 5]
  for (int n = 0; n < 5; ++n) {
    Complex y[5];
    for (int i = 0; i < 5; ++i) {
      const f64v* at = x + 16 * (5 * i + n) + column;
      y[i] = {at[0], at[8]};
    }
    dft5(y);
    between[0][n] = y[0];
    for (int k = 1; k < 5; ++k) {
      between[k][n] = rotate(y[k], tables.cosines[n * k], tables.sines[n * k]);
    }
  }
  for (int k = 0; k < 5; ++k) {
    dft5(between[k]);
    for (int i = 0; i < 5; ++i) {
      out[k + 5 * i] = between[k][i];
    }
  }
}

// The power spectrum |X|^2 of windowed samples [N_FFT, LANES64]. Bin k is written to
// power + k * LANES.
void power_spectrum(const float* samples, const LogMelTables& tables, float* power) {
  // Negligible; keeps float32 results from being subnormal, which is slow.
  constexpr double TINY = 1e-30;
  auto put = [&](int row, int k, f64v re, f64v im) {
    store(power + tables.bins[row][k] * LANES, re * re + (im * im + TINY));
  };
  f64v columns[25 * 16];
  for (int b = 0; b < 25; ++b) {
    f64v x[16];
    for (int a = 0; a < 16; ++a) {
      int n = tables.order[b][a];
      x[a] = load_f64(samples + n * LANES64) * tables.window[n];
    }
    real_dft16(x);
    for (int i = 0; i < 16; ++i) {
      columns[16 * b + i] = x[i];
    }
  }
  Complex z[25];
  // Column 0 combines the real columns 0 and 8: separate them by symmetry.
  dft25(columns, 0, tables, z);
  put(0, 0, z[0].re, f64v{});
  put(8, 0, z[0].im, f64v{});
  for (int k = 1; k < 13; ++k) {
    Complex sum = z[k] + z[25 - k], difference = z[k] - z[25 - k];
    put(0, k, sum.re * 0.5, difference.im * 0.5);
    put(8, k, difference.re * 0.5, sum.im * 0.5);
  }
  for (int column = 1; column < 8; ++column) {
    dft25(columns, column, tables, z);
    for (int k = 0; k < 25; ++k) {
      put(column, k, z[k].re, z[k].im);
    }
  }
}

}  // namespace
}  // namespace voxfast::VOXFAST_ISA

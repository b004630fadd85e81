#pragma once

// What the CPU kernels offer, once per instruction set. Plain data only: this header is
// seen by translation units compiled with different instruction sets, so it must not
// define anything that the linker could share between them.

#include <cstdint>

namespace voxfast {

// A float type as it lies in memory.
enum class FloatType : uint8_t { float32, float16, bfloat16 };

// Sizes of Whisper's front end: 25 ms frames every 10 ms at 16 kHz.
constexpr int SAMPLE_RATE = 16000;
constexpr int N_FFT = 400;
constexpr int HOP_LENGTH = 160;
constexpr int N_FREQS = N_FFT / 2 + 1;

// Constants of log_mel, computed in float64 (csrc/log_mel.cpp). The real transform of
// 400 = 16 * 25 takes sample (25 a + 16 b) mod 400 as sample (a, b) of a transform of 16
// by one of 25; then bin k is bin (k mod 16, k mod 25).
struct LogMelTables {
  double window[N_FFT];  // periodic Hann
  double cosines[25];    // of 2 pi i / 25
  double sines[25];
  uint16_t order[25][16];  // sample n of (b, a)
  uint8_t bins[9][25];     // bin k of (k mod 16, k mod 25), for k > 200 bin 400 - k
  int32_t n_mels;
  const int32_t* first_bin;  // [n_mels] of each filter
  const int32_t* n_bins;     // [n_mels] of each filter; never falls from one to the next
  const float* weights;      // of all filters, one after the other
};

struct LogMelArguments {
  const LogMelTables* tables;
  const void* samples;
  FloatType type;
  int64_t stride;       // from one sample to the next, in elements
  const int64_t* rows;  // offset of the first sample of each row, in elements
  int64_t frames_per_row;
  int64_t n_frames;  // in all rows
  float* out;        // [n_frames, n_mels]
  float log_floor;   // in log10 units
  float shift;
  float scale;
};

struct AlignmentTile;
struct LinearArguments;
struct RowwiseArguments;
struct SlidingAttentionArguments;

struct Kernels {
  const char* isa;
  int lanes;  // float32 lanes of one vector

  // Finds the best key of each row of a tile (alignment_frame_arguments.h).
  void (*alignment_frame)(const AlignmentTile&);

  // linear (linear_arguments.h): how the work is cut, into about so many tasks; one row
  // of x; one task.
  void (*linear_plan)(LinearArguments&, int64_t tasks, int64_t threads);
  void (*linear_prepare)(const LinearArguments&, int64_t row);
  void (*linear_multiply)(const LinearArguments&, int64_t task);
  // Computes `lanes` frames from `first` on, as far as there are any. What a frame
  // becomes does not depend on its neighbours.
  void (*log_mel)(const LogMelArguments& arguments, int64_t first);

  // Rows first ... last - 1 (rowwise.h).
  void (*rms_norm)(const RowwiseArguments&, int64_t first, int64_t last);
  void (*swiglu)(const RowwiseArguments&, int64_t first, int64_t last);
  void (*gelu)(const RowwiseArguments&, int64_t first, int64_t last);
  void (*greedy)(const RowwiseArguments&, int64_t first, int64_t last);

  // The three passes of sliding_attention; csrc/sliding_attention.cpp runs them.
  // Index b * H_kv + h: writes the new rows of one KV head of one batch row.
  void (*sliding_attention_write)(const SlidingAttentionArguments&, int64_t index);
  // One task: one split of one tile.
  void (*sliding_attention_attend)(const SlidingAttentionArguments&, int64_t task);
  // Index (b * H_kv + h) * tiles + tile: unites the splits of one tile.
  void (*sliding_attention_merge)(const SlidingAttentionArguments&, int64_t index);
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx512dot {  // with dot products of bytes and of bfloat16
extern const Kernels kernels;
}

}  // namespace voxfast

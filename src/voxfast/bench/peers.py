"""What others published, with the hardware they measured on and where they say so.

None of it was measured by voxfast, nor on the same recordings: it shows where a figure lies,
and decides nothing.
"""

from dataclasses import dataclass

__all__ = ["PUBLISHED", "Published"]


@dataclass(frozen=True, slots=True)
class Published:
    """A published figure.

    Attributes:
        system, hardware, data: what ran, where, and on what.
        source: where it is published.
        real_time_factor: compute over audio.
        word_error_rate: 0 to 1; None if it was not published for the same run.
    """

    system: str
    hardware: str
    data: str
    source: str
    real_time_factor: float
    word_error_rate: float | None = None


_WLK = "WhisperLiveKit, benchmarks/archive (2026-03-15)"
_CLEAN = "LibriSpeech test-clean"

PUBLISHED = (
    Published("Voxtral 4B, vLLM", "H100", f"{_CLEAN}, 91 clips", _WLK, 0.137, 0.0271),
    Published(
        "Qwen3-ASR 0.6B AlignAtt, KV reuse", "H100", f"{_CLEAN}, 91 clips", _WLK, 0.109, 0.0644
    ),
    Published(
        "Qwen3-ASR 1.7B AlignAtt, KV reuse", "H100", f"{_CLEAN}, 91 clips", _WLK, 0.117, 0.0809
    ),
    Published(
        "Qwen3-ASR 0.6B AlignAtt, MLX", "Apple M5", f"{_CLEAN}, 500 clips", _WLK, 0.263, 0.0330
    ),
    Published(
        "Qwen3-ASR 1.7B AlignAtt, MLX", "Apple M5", f"{_CLEAN}, 500 clips", _WLK, 0.944, 0.0407
    ),
    Published(
        "mlx-qwen3-asr 0.6B, 2 s chunks",
        "Apple M4 Pro",
        "100 multilingual clips",
        "mlx-qwen3-asr, README",
        0.08,
        0.113,
    ),
    Published("voxtral.c 4B, fp16", "M3 Max (Metal)", "20 clips", "voxtral.c, README", 0.385),
    Published(
        "WhisperLiveKit voxtral-mlx, 6 bit",
        "Apple M4",
        "its own test files",
        "WhisperLiveKit, BENCHMARK.md",
        0.31,
    ),
)

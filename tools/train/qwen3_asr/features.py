"""Log-mel features of Whisper and Qwen3-ASR, in float32."""

import torch
from torch import Tensor
from torch.nn import functional

from ..mel import N_FFT, mel_power

__all__ = ["DYNAMIC_RANGE", "log_mel"]

DYNAMIC_RANGE = 8.0  # in log10 below the loudest bin of the utterance


def log_mel(
    audio: Tensor,
    tilt: Tensor | None = None,
    channel: Tensor | None = None,
    filters: Tensor | None = None,
) -> Tensor:
    """[N] float32 audio -> [N // 160, N_MELS] float32, reflected beyond the ends.

    Args:
        tilt, channel, filters: as in ``mel_power``, without the dimension of the batch.
    """
    padded = functional.pad(audio[None], (N_FFT // 2, N_FFT // 2), mode="reflect")
    power = mel_power(padded, channel, filters)[0, :-1]
    log_power = torch.log10(power.clamp_min(1e-10))
    if tilt is not None:
        log_power = log_power + tilt
    return (torch.maximum(log_power, log_power.max() - DYNAMIC_RANGE) + 4) / 4

"""Log-mel features of Voxtral Realtime, batched, in float32."""

import torch
from torch import Tensor
from torch.nn import functional

from ..mel import N_FFT, mel_power

__all__ = ["LOG_MEL_MAX", "log_mel"]

LOG_MEL_MAX = 1.5  # global_log_mel_max; everything more than 8 (80 dB) below it is clamped


def log_mel(
    audio: Tensor,
    tilt: Tensor | None = None,
    channel: Tensor | None = None,
    filters: Tensor | None = None,
) -> Tensor:
    """[B, N] float32 audio, N a multiple of 160 -> [B, N / 160, N_MELS] float32.

    Frame t is centred on sample 160 t, with zeros beyond the ends of the audio.

    Args:
        tilt: [B, 1, N_MELS] added to the base-10 logarithm, to change the colour of the sound.
        channel, filters: as in ``mel_power``.
    """
    padded = functional.pad(audio, (N_FFT // 2, N_FFT // 2))
    log_power = torch.log10(mel_power(padded, channel, filters)[:, :-1].clamp_min(1e-10))
    if tilt is not None:
        log_power = log_power + tilt
    return (log_power.clamp_min(LOG_MEL_MAX - 8) + 4) / 4

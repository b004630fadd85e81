"""Log-mel features of Voxtral Realtime, batched, in float32."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .speech import SAMPLE_RATE

__all__ = ["LOG_MEL_MAX", "N_FFT", "N_MELS", "log_mel", "mel_filterbank"]

N_FFT, HOP, N_MELS = 400, 160, 128
LOG_MEL_MAX = 1.5  # global_log_mel_max; everything more than 8 (80 dB) below it is clamped


def _mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale: 15 mels to 1000 Hz linearly, then 27 mels per factor 6.4."""
    return np.where(mel < 15, mel * (200 / 3), 1000 * 6.4 ** ((mel - 15) / 27))


@cache
def mel_filterbank() -> Tensor:
    """[N_FFT // 2 + 1, N_MELS] float32: triangles of equal area between 0 and 8000 Hz."""
    nyquist = SAMPLE_RATE / 2
    top = 15 + 27 * np.log(nyquist / 1000) / np.log(6.4)
    edges = _mel_to_hertz(np.linspace(0, top, N_MELS + 2))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.linspace(0, nyquist, N_FFT // 2 + 1)[:, None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return torch.from_numpy(triangles.astype(np.float32))


def log_mel(audio: Tensor, tilt: Tensor | None = None) -> Tensor:
    """[B, N] float32 audio, N a multiple of 160 -> [B, N / 160, N_MELS] float32.

    Frame t is centred on sample 160 t, with zeros beyond the ends of the audio.

    Args:
        tilt: [B, 1, N_MELS] added to the base-10 logarithm, to change the colour of the sound.
    """
    frames = functional.pad(audio, (N_FFT // 2, N_FFT // 2)).unfold(-1, N_FFT, HOP)[:, :-1]
    spectrum = torch.fft.rfft(frames * torch.hann_window(N_FFT, periodic=True))
    power = spectrum.real.square() + spectrum.imag.square()
    log_power = torch.log10((power @ mel_filterbank()).clamp_min(1e-10))
    if tilt is not None:
        log_power = log_power + tilt
    return (log_power.clamp_min(LOG_MEL_MAX - 8) + 4) / 4

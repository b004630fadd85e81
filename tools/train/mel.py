"""Power in the mel bands of both models, batched, in float32."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .speech import SAMPLE_RATE

__all__ = ["HOP", "MEL_BINS", "N_FFT", "N_MELS", "mel_filterbank", "mel_power"]

N_FFT, HOP, N_MELS = 400, 160, 128
MEL_BINS = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)  # Hz


def _mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale: 15 mels to 1000 Hz linearly, then 27 mels per factor 6.4."""
    return np.where(mel < 15, mel * (200 / 3), 1000 * 6.4 ** ((mel - 15) / 27))


@cache
def mel_filterbank() -> Tensor:
    """[N_FFT // 2 + 1, N_MELS] float32: triangles of equal area between 0 and 8000 Hz."""
    top = 15 + 27 * np.log(SAMPLE_RATE / 2 / 1000) / np.log(6.4)
    edges = _mel_to_hertz(np.linspace(0, top, N_MELS + 2))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins = MEL_BINS[:, None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return torch.from_numpy(triangles.astype(np.float32))


def mel_power(
    padded: Tensor, channel: Tensor | None = None, filters: Tensor | None = None
) -> Tensor:
    """[B, N] float32 audio -> [B, frames, N_MELS] float32, frame t from sample 160 t on.

    Args:
        channel: [B, 1, bins] times which the power is taken.
        filters: [B, bins, N_MELS] in place of ``mel_filterbank()``.
    """
    frames = padded.unfold(-1, N_FFT, HOP)
    spectrum = torch.fft.rfft(frames * torch.hann_window(N_FFT, periodic=True))
    power = spectrum.real.square() + spectrum.imag.square()
    if channel is not None:
        power = power * channel
    mel: Tensor = power @ (mel_filterbank() if filters is None else filters)
    return mel

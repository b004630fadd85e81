"""Causal attention with a true sliding window, and rotary positions.

Dimension letters: B batch, H query heads, H_kv key/value heads, L positions, D head size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import StackConfig

__all__ = [
    "KV",
    "Attention",
    "Rotary",
    "attend",
    "dense_attention",
    "rotary",
    "sliding_attention",
    "window_mask",
]

Rotary = tuple[Tensor, Tensor]  # cosines and sines, [L, D / 2] float32
KV = tuple[Tensor, Tensor]  # keys and values, [B, H_kv, at most window, D]


def rotary(
    positions: range, head_dim: int, theta: float, device: torch.device | None = None
) -> Rotary:
    """Rotary factors of ``positions``; the angles are float64, so that late ones are exact too."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    steps = torch.arange(positions.start, positions.stop, dtype=torch.float64)
    angles = steps[:, None] * frequencies
    return angles.cos().float().to(device), angles.sin().float().to(device)


def rotate(x: Tensor, rows: Rotary) -> Tensor:
    """x [B, H, L, D] with its interleaved pairs (2 i, 2 i + 1) rotated."""
    cosines, sines = rows
    even, odd = torch.unflatten(x.float(), -1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def window_mask(queries: int, keys: int, window: int, device: torch.device | None = None) -> Tensor:
    """[queries, keys] bool, true where attended; the last query stands at the last key."""
    place = torch.arange(keys, device=device)
    age = place[keys - queries :, None] - place
    return (age >= 0) & (age < window)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention: q [..., H, L, D], k and v [..., H_kv, S, D], mask [..., L, S] or None.

    Written out, because torch's fused CPU kernel (2.13) is slow backwards at these sizes: with it
    a whole training step takes 2.5 times as long.
    """
    groups = q.shape[-3] // k.shape[-3]
    q = torch.unflatten(q, -3, (-1, groups)) * q.shape[-1] ** -0.5
    scores = (q @ k.unsqueeze(-3).transpose(-1, -2)).float()
    if mask is not None:
        scores = scores.masked_fill(~mask[..., None, None, :, :], -torch.inf)
    attended = torch.softmax(scores, dim=-1).to(v.dtype) @ v.unsqueeze(-3)
    return attended.flatten(-4, -3)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Windowed attention by a full mask: q [B, H, L, D], k and v [B, H_kv, L, D]."""
    return attend(q, k, v, window_mask(q.shape[2], k.shape[2], window, q.device))


def sliding_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """The same as ``dense_attention``, in time and memory L × window for long inputs.

    The positions are cut into chunks of one window: a chunk of queries sees its own keys and
    those of the chunk before.
    """
    length = q.shape[2]
    if length <= 2 * window:
        return dense_attention(q, k, v, window)
    chunks = -(-length // window)
    mask = window_mask(window, 2 * window, window, q.device).repeat(chunks, 1, 1)
    mask[0, :, :window] = False  # nothing precedes the first chunk

    def cut(x: Tensor) -> Tensor:
        padded = functional.pad(x, (0, 0, 0, chunks * window - length))
        return torch.unflatten(padded, 2, (chunks, window)).transpose(
            1, 2
        )  # [B, chunks, H, window, D]

    def with_chunk_before(x: Tensor) -> Tensor:
        x = cut(x)
        before = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)
        return torch.cat((before, x), dim=3)

    attended = attend(cut(q), with_chunk_before(k), with_chunk_before(v), mask)
    return attended.transpose(1, 2).flatten(2, 3)[:, :, :length]


class Attention(nn.Module):
    """Grouped-query attention with rotary positions within a sliding window."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.head_dim, self.window = config.head_dim, config.window
        inner, inner_kv = config.n_heads * self.head_dim, config.n_kv_heads * self.head_dim
        self.wq = nn.Linear(config.dim, inner, bias=config.biases)
        self.wk = nn.Linear(config.dim, inner_kv, bias=False)
        self.wv = nn.Linear(config.dim, inner_kv, bias=config.biases)
        self.wo = nn.Linear(inner, config.dim, bias=config.biases)

    def forward(self, x: Tensor, rows: Rotary) -> Tensor:
        """x [B, L, dim] -> [B, L, dim]."""
        return self._join(sliding_attention(*self._project(x, rows), self.window))

    def step(self, x: Tensor, rows: Rotary, cache: KV | None) -> tuple[Tensor, KV]:
        """One position, x [B, 1, dim], after those whose keys and values are in ``cache``."""
        q, k, v = self._project(x, rows)
        if cache is not None:
            k, v = torch.cat((cache[0], k), dim=2), torch.cat((cache[1], v), dim=2)
        k, v = k[:, :, -self.window :], v[:, :, -self.window :]
        return self._join(attend(q, k, v)), (k, v)

    def _project(self, x: Tensor, rows: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for part in (self.wq(x), self.wk(x), self.wv(x))
        )
        return rotate(q, rows), rotate(k, rows), v

    def _join(self, attended: Tensor) -> Tensor:
        y: Tensor = self.wo(attended.transpose(1, 2).flatten(2))
        return y

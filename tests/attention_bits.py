"""Rows of sliding_attention, computed one at a time and in any other way."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
from attention_reference import DTYPES, normal, quantized

from voxfast.ops import rotary_tables, sliding_attention


@dataclass
class Positions:
    """Queries, keys and values [B, N, H or H_kv, D] of positions ``first`` on."""

    heads: int
    kv_heads: int
    size: int
    window: int
    dtype: mx.Dtype
    first: int  # the oldest position that has a key
    n: int
    batch: int = 1
    rotary: bool = False
    causal: bool = True
    kv_bits: int | None = None
    q: mx.array = field(init=False)
    k: mx.array = field(init=False)
    v: mx.array = field(init=False)
    stored_k: mx.array = field(init=False)  # as the rings hold them
    stored_v: mx.array = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.n)
        self.q = normal(rng, (self.batch, self.n, self.heads, self.size), self.dtype)
        self.k = normal(rng, (self.batch, self.n, self.kv_heads, self.size), self.dtype)
        self.v = normal(rng, (self.batch, self.n, self.kv_heads, self.size), self.dtype)
        self.stored_k, self.stored_v = self.k, self.v
        if self.rotary or self.kv_bits:
            ring = mx.zeros((self.batch, self.kv_heads, self.n, self.size), self.dtype)
            ring = quantized(ring) if self.kv_bits else ring
            rotary = rotary_tables(self.first, self.n, self.size, 1e4) if self.rotary else None
            _, *rings = sliding_attention(
                self.q, self.k, self.v, ring, ring, self.first, window=1, scale=1.0,
                rotary=rotary, stream=mx.cpu,
            )  # fmt: skip
            slots = mx.array(np.arange(self.first, self.first + self.n) % self.n)
            self.stored_k, self.stored_v = (ring[:, :, slots].swapaxes(1, 2) for ring in rings)

    def _ring(self, x: mx.array, offset: int, capacity: int) -> mx.array:
        """The rows before ``offset`` that a row may see; NaN in all other slots."""
        oldest = max(self.first, offset - self.window + 1)
        slots = np.arange(oldest, offset) % capacity
        shape = (x.shape[0], x.shape[2], capacity, x.shape[3])
        # All bits set are a NaN, too: the scale of a row in 8 bits.
        ring = mx.full(shape, -1 if self.kv_bits else float("nan"), x.dtype)
        if len(slots):
            rows = x[:, oldest - self.first : offset - self.first].swapaxes(1, 2)
            ring[:, :, mx.array(slots)] = rows
        return ring

    def rows(
        self, offset: int, length: int, slack: int = 0, batch: slice = slice(None)
    ) -> np.ndarray:
        """The bits of the rows ``offset`` ..., [B, L, H, D], computed in one call."""
        capacity = min(offset, self.window - 1) + length + slack
        new = slice(offset - self.first, offset - self.first + length)
        rotary = rotary_tables(offset, length, self.size, 1e4) if self.rotary else None
        out, *_ = sliding_attention(
            *(x[batch, new] for x in (self.q, self.k, self.v)),
            self._ring(self.stored_k[batch], offset, capacity),
            self._ring(self.stored_v[batch], offset, capacity),
            offset,
            window=self.window,
            scale=self.size**-0.5,
            rotary=rotary,
            causal=self.causal,
            stream=mx.cpu,
        )
        return np.array(out.view(mx.uint32 if self.dtype == mx.float32 else mx.uint16))

    def one_by_one(self, offset: int, length: int) -> np.ndarray:
        """The same, a row and a sequence at a time."""
        sequences = [
            np.concatenate(
                [self.rows(offset + i, 1, batch=slice(b, b + 1)) for i in range(length)], axis=1
            )
            for b in range(self.batch)
        ]
        return np.concatenate(sequences)


def sweep() -> None:
    """Compare rows of all kernels, and write their digest to the file DIGEST, if set."""
    digest = hashlib.sha256()
    for heads, kv_heads, size, window, offset, length in (
        (4, 4, 64, 50, 300, 17),
        (8, 2, 128, 750, 1531, 4),
        (4, 1, 32, 3000, 2990, 23),
        (2, 1, 128, 2000, 2100, 1),
        (6, 6, 31, 257, 511, 5),
        (12, 1, 80, 300, 2, 40),
        (3, 1, 256, 300, 1000, 3),
    ):
        first = max(0, offset - window + 1)
        n = offset + length - first
        for dtype, kv_bits in (*((dtype, None) for dtype in DTYPES), (mx.bfloat16, 8)):
            shape = (heads, kv_heads, size, window, dtype, first, n)
            positions = Positions(*shape, kv_bits=kv_bits)
            together = positions.rows(offset, length)
            alone = positions.one_by_one(offset, length)
            np.testing.assert_array_equal(
                together, alone, f"{positions.q.shape}, {dtype}, {kv_bits}"
            )
            digest.update(alone.tobytes())
    if path := os.environ.get("DIGEST"):
        Path(path).write_text(digest.hexdigest())

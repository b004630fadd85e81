"""Rows of several streams in one array: products and norms see all, attention those of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import mlx.core as mx

from voxfast.cache import SlidingKVCache, attend_streams
from voxfast.ops import Rotary, rotary_tables

__all__ = ["History", "histories", "joined", "split"]


@dataclass(frozen=True, slots=True)
class History:
    """What the rows of a layer attend to: those of several streams, one after the other.

    Attributes:
        caches: of each stream.
        lengths: rows of each stream.
        rotary: the tables of all rows; None: nothing is rotated.
    """

    caches: Sequence[SlidingKVCache]
    lengths: Sequence[int]
    rotary: Rotary | None = None

    def attend(
        self,
        q: mx.array,
        k: mx.array,
        v: mx.array,
        *,
        scale: float,
        traditional: bool = True,
        causal: bool = True,
    ) -> mx.array:
        """:func:`.attend_streams` with these caches."""
        return attend_streams(
            self.caches, q, k, v, self.lengths,
            scale=scale, rotary=self.rotary, traditional=traditional, causal=causal,
        )  # fmt: skip


def joined(parts: Sequence[mx.array]) -> mx.array:
    """[1, L, …] of several streams as the rows of one array."""
    return parts[0] if len(parts) == 1 else mx.concatenate(list(parts), axis=1)


def split(x: mx.array, lengths: Sequence[int]) -> list[mx.array]:
    """The rows of each stream: what :func:`joined` has joined."""
    if len(lengths) == 1:
        return [x]
    # MLX's stub says that it is one array.
    return cast(list[mx.array], mx.split(x, list(accumulate(lengths))[:-1], axis=1))


def histories(
    caches: Sequence[Sequence[SlidingKVCache]],
    lengths: Sequence[int],
    head_dim: int = 0,
    rope_theta: float | None = None,
) -> list[History]:
    """The history of each layer.

    Args:
        caches: for each stream those of its layers.
        lengths: rows of each stream.
        head_dim, rope_theta: see :func:`.rotary_tables`; without ``rope_theta`` nothing is rotated.
    """
    rotary = None
    if rope_theta is not None:
        offsets = [layers[0].offset for layers in caches]
        rotary = rotary_tables(offsets, lengths, head_dim, rope_theta)
    return [History(layer, lengths, rotary) for layer in zip(*caches, strict=True)]

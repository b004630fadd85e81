"""The ring buffers of keys and values of an attention layer.

Dimension letters: B batch, L new positions, S stored positions, H query heads, H_kv KV
heads, D head size.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from typing import Self

import mlx.core as mx

from voxfast._native import _ext
from voxfast.ops import SCALE_BYTES, Rings, Rotary, sliding_attention, sliding_attentions

__all__ = ["SlidingKVCache", "attend_streams"]

# Of a ring that has all of its rows at once. A larger one belongs to a limit of the context, which
# few streams reach, and not to a window.
MAX_FULL_RING_BYTES = 32 << 20


class SlidingKVCache:
    """Keys and values of the last ``window`` positions of one layer, in two rings.

    A row of a ring is written once and never moved; memory is constant once the window is full.
    Parity: any split of a stream into calls gives the result of one call over the whole
    stream with a causal mask of that window.

    The rings are updated in place. If ``state`` is referenced elsewhere during a step, that
    step copies the rings; the result is the same.

    >>> cache = SlidingKVCache(window=750, max_rows=4)
    >>> out = cache.attend(q, k, v, scale=64**-0.5)  # q [B, L, H, D], k, v [B, L, H_kv, D]

    Args:
        window: positions that a position attends to, including itself; ≥ 1.
        max_rows: the most new positions of one call; ≥ 1. At full size the rings have
            ``window + max_rows - 1`` rows, so :meth:`trim` can always take back this number
            of positions.
        start: absolute index of the first position; ``offset`` counts from it.
        block: rows by which the rings grow until they are full size. On a CPU a ring of at most
            32 MB does not grow: memory that was never written to takes none.
        kv_bits: 8: rows are held as int8 with a scale each, as :func:`.sliding_attention` says;
            None: in the dtype of the keys.

    Raises:
        ValueError: for a window, max_rows or block below 1, a negative start, or other kv_bits.
    """

    def __init__(
        self,
        window: int,
        *,
        max_rows: int = 1,
        start: int = 0,
        block: int = 256,
        kv_bits: int | None = None,
    ) -> None:
        if kv_bits not in (None, 8):
            raise ValueError(f"[SlidingKVCache] kv_bits must be 8 or None; got {kv_bits}")
        if window < 1 or max_rows < 1 or block < 1 or start < 0:
            raise ValueError(
                "[SlidingKVCache] window, max_rows and block must be at least 1 and start not "
                f"negative; got {window}, {max_rows}, {block} and {start}"
            )
        self.window = window
        self.max_rows = max_rows
        self.start = start
        self.block = block
        self.kv_bits = kv_bits
        self._rings: Rings | None = None
        self._is_shared = False  # whether a copy has the rings, too
        self._full = window + max_rows - 1
        self._capacity = 0  # rows of the rings
        self._room = 0  # rows of those that are being written
        self._rows = 0  # rows written and not taken back
        self._reached = 0  # the most rows ever written; the rows they overwrote are lost

    # ---- attention --------------------------------------------------------------------

    def attend(
        self,
        q: mx.array,
        k: mx.array,
        v: mx.array,
        *,
        scale: float,
        rotary: Rotary | None = None,
        traditional: bool = True,
        causal: bool = True,
        stream: mx.Stream | mx.Device | None = None,
    ) -> mx.array:
        """Store L new positions and attend from them; see :func:`.sliding_attention`.

        Args:
            q: [B, L, H, D]; k, v: [B, L, H_kv, D], one dtype; 1 ≤ L ≤ max_rows.
            scale, rotary, traditional, causal, stream: as in :func:`.sliding_attention`; the
                tables are those of positions ``offset`` to ``offset + L - 1``.

        Returns:
            [B, L, H, D] of q's dtype, unevaluated.

        Raises:
            ValueError: for L above max_rows, and for shapes or dtypes that do not match each
                other or the stored rows. The cache is then unchanged.
        """
        keys, values = self._rings_with_room(k, v, k.shape[1], stream)
        out, keys, values = sliding_attention(
            q,
            k,
            v,
            keys,
            values,
            self._rows,
            window=self.window,
            scale=scale,
            rotary=rotary,
            traditional=traditional,
            causal=causal,
            stream=stream,
        )
        self._written((keys, values), k.shape[1])
        return out

    # ---- going back -------------------------------------------------------------------

    def trim(self, n: int) -> int:
        """Remove the newest ``n`` positions, as if they had never been written.

        A ring that has wrapped has lost the rows that the newest ones overwrote. Trimming is
        exact as long as the window of the next position is complete: up to ``max_rows``
        positions, counted from the furthest one ever written.

        Returns:
            n.

        Raises:
            ValueError: if n is negative or too large.
        """
        most = self._most_trimmed()
        if not 0 <= n <= most:
            raise ValueError(
                f"[SlidingKVCache] cannot take back {n} of {self._rows} rows; at most {most} are "
                f"possible here. Rows before {max(0, self._reached - self._capacity)} are "
                "overwritten: a larger max_rows keeps more"
            )
        self._rows -= n
        return n

    def _most_trimmed(self) -> int:
        lost = self._reached - self._capacity  # rows before this one are overwritten
        if lost <= 0 or self.window == 1:
            return self._rows
        return max(0, self._rows - lost - self.window + 1)

    def copy(self) -> Self:
        """Another cache that goes on from here; each copies the rows once it writes to them."""
        self._is_shared = True
        return copy(self)

    # ---- what is there ----------------------------------------------------------------

    @property
    def offset(self) -> int:
        """Absolute index of the next position: start + number of stored ones."""
        return self.start + self._rows

    @property
    def state(self) -> tuple[mx.array, ...]:
        """The rings (keys, values), to evaluate; empty at first.

        [B, H_kv, C, D] each, in 8 bits [B, H_kv, C, D + 4] of int8.
        """
        return () if self._rings is None else self._rings

    # ---- inside -----------------------------------------------------------------------

    def _written(self, rings: Rings, length: int) -> None:
        """Keep rings to which ``length`` positions have been written."""
        self._rings, self._capacity = rings, self._room
        self._is_shared = False
        self._rows += length
        self._reached = max(self._reached, self._rows)

    def _rings_with_room(
        self,
        k: mx.array,
        v: mx.array,
        length: int | None = None,
        stream: mx.Stream | mx.Device | None = None,
    ) -> Rings:
        """The rings, grown if the positions of k and v, or ``length`` of them, need more rows."""
        if k.ndim != 4 or v.ndim != 4:
            raise ValueError(
                f"[SlidingKVCache] keys and values must have 4 dimensions; got {k.shape} and "
                f"{v.shape}"
            )
        length = k.shape[1] if length is None else length
        if not 1 <= length <= self.max_rows:
            raise ValueError(
                f"[SlidingKVCache] one call may bring 1 to {self.max_rows} rows; got {length}. "
                "Make the cache with a larger max_rows, or call with fewer rows at a time"
            )
        needed = min(self._full, self._rows + length)
        if self._rings is not None and needed <= self._capacity and not self._is_shared:
            self._room = self._capacity
            return self._rings
        in_bits = self.kv_bits is not None
        dtypes = (mx.int8, mx.int8) if in_bits else (k.dtype, v.dtype)
        batch, heads, size = k.shape[0], k.shape[2], k.shape[3] + in_bits * SCALE_BYTES
        row_bytes = batch * heads * size * dtypes[0].size
        self._room = max(self._capacity, self._room_for(needed, row_bytes, stream))
        if self._rings is None:
            shape = (batch, heads, self._room, size)
            keys, values = (_ext.empty(shape, dtype, stream=stream) for dtype in dtypes)
            return keys, values
        if self._reached > self._capacity:  # they have wrapped: the op copies all rows
            return self._rings
        keys, values = (_moved(ring, self._rows, self._room, stream) for ring in self._rings)
        return keys, values

    def _room_for(self, rows: int, row_bytes: int, stream: mx.Stream | mx.Device | None) -> int:
        """The rows of a ring that has room for so many."""
        if self._full * row_bytes <= MAX_FULL_RING_BYTES and _ext.runs_kernels(stream=stream):
            return self._full
        return min(self._full, -(-rows // self.block) * self.block)


def attend_streams(
    caches: Sequence[SlidingKVCache],
    q: mx.array,
    k: mx.array,
    v: mx.array,
    lengths: Sequence[int],
    *,
    scale: float,
    rotary: Rotary | None = None,
    traditional: bool = True,
    causal: bool = True,
) -> mx.array:
    """:meth:`SlidingKVCache.attend` of several streams as one op, with the bits of one call each.

    Args:
        caches: of each stream, with one window.
        q: [1, R, H, D], k, v: [1, R, H_kv, D]: the rows of all streams, one after the other.
        lengths: rows of each stream, R in all.
        scale, traditional, causal: as in :func:`.sliding_attention`.
        rotary: the tables of all rows, [1, R, D / 2].

    Returns:
        [1, R, H, D], unevaluated.

    Raises:
        ValueError: as :meth:`SlidingKVCache.attend`, and for windows that differ. No cache is
            changed then.
    """
    if len(caches) == 1:
        return caches[0].attend(
            q, k, v, scale=scale, rotary=rotary, traditional=traditional, causal=causal
        )
    windows = {cache.window for cache in caches}
    if len(windows) != 1:
        raise ValueError(f"[attend_streams] caches must have one window; got {sorted(windows)}")
    parts = list(zip(caches, lengths, strict=True))
    out, rings = sliding_attentions(
        q,
        k,
        v,
        [cache._rings_with_room(k, v, length) for cache, length in parts],
        [cache._rows for cache in caches],
        lengths,
        window=windows.pop(),
        scale=scale,
        rotary=rotary,
        traditional=traditional,
        causal=causal,
    )
    for (cache, length), written in zip(parts, rings, strict=True):
        cache._written(written, length)
    return out


def _moved(
    ring: mx.array, rows: int, capacity: int, stream: mx.Stream | mx.Device | None
) -> mx.array:
    """The first rows of a ring, in another one."""
    batch, heads, _, size = ring.shape
    moved = _ext.empty((batch, heads, capacity, size), ring.dtype, stream=stream)
    with nullcontext() if stream is None else mx.stream(stream):
        moved[:, :, :rows] = ring[:, :, :rows]
    return moved

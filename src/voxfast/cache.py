"""The rotating cache of keys and values that lies under every attention layer.

Dimension letters: B batch, L new positions, S stored positions, H query heads, H_kv KV
heads, D head size.
"""

import mlx.core as mx

from voxfast.ops import Rotary, sliding_attention

__all__ = ["SlidingKVCache"]


class SlidingKVCache:
    """Keys and values of the last ``window`` positions of one layer, in two rings.

    A row is written once and never moved; memory stops growing when the window is full.
    Chunking never matters: any split of a stream into calls gives what one call over the
    whole stream would, with a causal mask of that window.

    The cache owns its rings and gives them away to be written in place. Whoever keeps
    ``state`` or what :meth:`update_and_fetch` returned past the next step makes that step
    copy the rings; nothing else goes wrong.

    >>> cache = SlidingKVCache(window=750, max_rows=4)
    >>> out = cache.attend(q, k, v, scale=64**-0.5)  # q [B, L, H, D], k, v [B, L, H_kv, D]

    Args:
        window: positions that one position sees, itself included; ≥ 1.
        max_rows: the most new positions that one call brings; ≥ 1. The rings hold
            ``window + max_rows - 1`` rows in the end, so it is also the number of
            positions that can always be taken back by :meth:`trim`.
        start: absolute position of the first row, where ``offset`` counts from.
        block: the rings grow by so many rows at a time until they are full size.

    Raises:
        ValueError: on a window, max_rows or block below 1, or a negative start.
    """

    def __init__(self, window: int, *, max_rows: int = 1, start: int = 0, block: int = 256) -> None:
        if window < 1 or max_rows < 1 or block < 1 or start < 0:
            raise ValueError(
                "[SlidingKVCache] window, max_rows and block must be at least 1 and start not "
                f"negative; got {window}, {max_rows}, {block} and {start}"
            )
        self.window = window
        self.max_rows = max_rows
        self.start = start
        self.block = block
        self._rings: tuple[mx.array, mx.array] | None = None
        self._rows = 0  # rows written and not taken back
        self._reached = 0  # the most rows there ever were: what they overwrote is gone

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
        stream: mx.Stream | mx.Device | None = None,
    ) -> mx.array:
        """Store L new positions and attend from them; see :func:`.sliding_attention`.

        Args:
            q: [B, L, H, D]; k, v: [B, L, H_kv, D], one dtype; 1 ≤ L ≤ max_rows.
            scale, rotary, traditional, stream: as in :func:`.sliding_attention`; the tables
                are those of positions ``offset`` to ``offset + L - 1``.

        Returns:
            [B, L, H, D] of q's dtype, unevaluated.

        Raises:
            ValueError: on L above max_rows, or shapes or a dtype that do not fit together
                or not the rows before. The cache is then as it was.
        """
        keys, values = self._room(k, v, axis=1)
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
            stream=stream,
        )
        self._keep(keys, values, k.shape[1])
        return out

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Store L new positions and return the stored ones, in the manner of mlx-lm.

        A second way for code that does its own attention: the rows come back in temporal
        order, which takes a copy as soon as the ring has wrapped. :meth:`make_mask` gives
        the mask that goes with them. Prefer :meth:`attend`.

        Args:
            keys, values: [B, H_kv, L, D], one dtype; 1 ≤ L ≤ max_rows.

        Returns:
            (keys, values), each [B, H_kv, S, D], S = min(rows so far, window + L - 1).

        Raises:
            ValueError: as :meth:`attend`.
        """
        if keys.shape != values.shape or keys.dtype != values.dtype:
            raise ValueError(
                "[SlidingKVCache] keys and values must have one shape and dtype; got "
                f"{keys.shape}, {keys.dtype} and {values.shape}, {values.dtype}"
            )
        rings = self._room(keys, values, axis=2)
        if keys.dtype != rings[0].dtype or any(
            keys.shape[i] != rings[0].shape[i] for i in (0, 1, 3)
        ):
            raise ValueError(
                f"[SlidingKVCache] new rows of shape {keys.shape} and dtype {keys.dtype} do not "
                f"fit rings of {rings[0].shape} and {rings[0].dtype}"
            )
        length = keys.shape[2]
        first, second = (
            _write(ring, rows, self._rows) for ring, rows in zip(rings, (keys, values), strict=True)
        )
        self._keep(first, second, length)
        end = self._rows
        size = min(end, self.window + length - 1)
        return _read(first, end - size, size), _read(second, end - size, size)

    def make_mask(
        self, length: int, window_size: int | None = None, return_array: bool = False
    ) -> mx.array | str | None:
        """The mask for ``length`` new positions, asked for before they are stored.

        Args:
            length: L, the number of new positions.
            window_size: a narrower window than the cache's, if any.
            return_array: always make an array.

        Returns:
            None where everything is visible; "causal"; or [L, S] of bool, True where the
            new position sees the stored one, for the rows that :meth:`update_and_fetch`
            is going to return.

        Raises:
            ValueError: on a window_size that is wider than the cache's, or below 1.
        """
        window = self.window if window_size is None else window_size
        if not 1 <= window <= self.window:
            raise ValueError(
                f"[SlidingKVCache] window_size must lie in 1 ... {self.window}; got {window_size}"
            )
        end = self._rows + length
        size = min(end, self.window + length - 1)
        if not return_array and size <= window:
            return None if length == 1 else "causal"
        stored = mx.arange(end - size, end)
        asking = mx.arange(self._rows, end)[:, None]
        return (stored <= asking) & (stored > asking - window)

    # ---- going back -------------------------------------------------------------------

    def is_trimmable(self) -> bool:
        """Whether :meth:`trim` can take back at least one position now."""
        return self._most_trimmed() > 0

    def trim(self, n: int) -> int:
        """Take back the newest ``n`` positions, as if they had never been written.

        A ring that has wrapped has lost the rows under the newest ones. As long as the
        window of the next position is complete the rest is exact; ``max_rows`` positions
        beyond the furthest one ever written are always possible.

        Returns:
            n.

        Raises:
            ValueError: if n is negative, or more than can be taken back.
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

    # ---- what is there ----------------------------------------------------------------

    @property
    def offset(self) -> int:
        """Absolute position of the next row: start + rows so far."""
        return self.start + self._rows

    @property
    def size(self) -> int:
        """Number of stored positions within the window: min(rows so far, window)."""
        return min(self._rows, self.window)

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return True  # an empty cache is still a cache

    @property
    def nbytes(self) -> int:
        """Bytes of both rings."""
        return 0 if self._rings is None else sum(ring.nbytes for ring in self._rings)

    @property
    def state(self) -> tuple[mx.array, ...]:
        """The rings (keys, values), [B, H_kv, C, D] each; empty before the first row.

        For ``mx.eval(cache.state)`` and, with :attr:`meta_state`, for saving.
        """
        return () if self._rings is None else self._rings

    @state.setter
    def state(self, rings: tuple[mx.array, ...]) -> None:
        if not rings:
            self._rings = None
            self._rows = self._reached = 0
            return
        keys, values = rings
        if keys.ndim != 4 or keys.shape != values.shape or keys.dtype != values.dtype:
            raise ValueError(
                "[SlidingKVCache] state must be keys and values [B, H_kv, C, D] of one dtype; got "
                f"{keys.shape}, {keys.dtype} and {values.shape}, {values.dtype}"
            )
        self._rings = (keys, values)

    @property
    def meta_state(self) -> tuple[str, ...]:
        """What else makes the cache: window, max_rows, start, block, rows, rows reached."""
        numbers = (self.window, self.max_rows, self.start, self.block, self._rows, self._reached)
        return tuple(str(number) for number in numbers)

    @meta_state.setter
    def meta_state(self, numbers: tuple[str, ...]) -> None:
        (self.window, self.max_rows, self.start, self.block, self._rows, self._reached) = (
            int(number) for number in numbers
        )

    # ---- inside -----------------------------------------------------------------------

    @property
    def _capacity(self) -> int:
        return 0 if self._rings is None else int(self._rings[0].shape[2])

    def _room(self, k: mx.array, v: mx.array, axis: int) -> tuple[mx.array, mx.array]:
        """The rings with room for the rows of k and v, whose L is at ``axis``."""
        if k.ndim != 4 or v.ndim != 4:
            raise ValueError(
                f"[SlidingKVCache] keys and values must have 4 dimensions; got {k.shape} and "
                f"{v.shape}"
            )
        length = k.shape[axis]
        if not 1 <= length <= self.max_rows:
            raise ValueError(
                f"[SlidingKVCache] one call may bring 1 to {self.max_rows} rows; got {length}. "
                "Make the cache with a larger max_rows, or call with fewer rows at a time"
            )
        full = self.window + self.max_rows - 1
        needed = min(full, self._rows + length)
        missing = min(full, -(-needed // self.block) * self.block) - self._capacity
        heads = k.shape[3 - axis]
        if self._rings is None:
            shape = (k.shape[0], heads, missing, k.shape[3])
            return mx.zeros(shape, k.dtype), mx.zeros(shape, v.dtype)
        if missing <= 0:
            return self._rings
        # Not full size, so nothing has wrapped yet, and rows keep their slots.
        return _grow(self._rings[0], missing), _grow(self._rings[1], missing)

    def _keep(self, keys: mx.array, values: mx.array, length: int) -> None:
        self._rings = (keys, values)
        self._rows += length
        self._reached = max(self._reached, self._rows)


def _grow(ring: mx.array, rows: int) -> mx.array:
    """The ring with ``rows`` more rows of zeros at its end."""
    shape = (*ring.shape[:2], rows, ring.shape[3])
    return mx.concatenate([ring, mx.zeros(shape, ring.dtype)], axis=2)


def _write(ring: mx.array, rows: mx.array, position: int) -> mx.array:
    """The ring [B, H_kv, C, D] with rows [B, H_kv, L, D] from ``position`` on."""
    capacity, length = ring.shape[2], rows.shape[2]
    slot = position % capacity
    first = min(length, capacity - slot)
    ring = mx.slice_update(ring, rows[:, :, :first], mx.array([slot]), axes=(2,))
    if first < length:
        ring = mx.slice_update(ring, rows[:, :, first:], mx.array([0]), axes=(2,))
    return ring


def _read(ring: mx.array, position: int, size: int) -> mx.array:
    """``size`` rows of the ring from ``position`` on, in temporal order."""
    capacity = ring.shape[2]
    slot = position % capacity
    if slot + size <= capacity:
        return ring[:, :, slot : slot + size]
    return mx.concatenate([ring[:, :, slot:], ring[:, :, : slot + size - capacity]], axis=2)

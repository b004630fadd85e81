"""How many positions a pass of the decoder takes.

A pass over several positions guesses the tokens between them, and keeps what was guessed right
(:class:`.TokenStream`). More rows are more positions per read of the weights, and more products
in vain. What pays depends on the machine and on the audio, so both are measured as it runs.
"""

import time
from collections.abc import Mapping

__all__ = ["MAX_ROWS", "Acceptance", "PassCosts"]

# Rows of a pass, and the positions that it advances by: guesses repeated from the last pass, on
# speech with pauses.
_USUAL = {
    1: 1.0, 2: 1.5, 3: 1.9, 4: 2.1, 6: 2.5, 8: 2.8, 12: 3.7, 16: 4.7, 24: 6.2, 32: 8.0, 48: 11.0,
}  # fmt: skip
MAX_ROWS = max(_USUAL)

_ROW_COST = 0.06  # of a pass of one row, where a further row was never measured
_WEIGHT = 0.1  # of the newest measurement
_OUTLIER = 2.0  # times the usual: something else had the processor
_DRIFT = 0.0005  # towards the usual gain per pass of one row, so that more rows are tried again


class PassCosts:
    """Seconds of a pass by its rows, of one model on this machine.

    Passes follow each other on the model's thread, so the time between two ends is the cost of
    the later one, with all that the host does for it.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._once: dict[int, float] = {}  # what was measured only once
        self._last_end: float | None = None

    def finished(self, rows: int) -> None:
        """A pass of so many rows ended just now."""
        now = time.perf_counter()
        if self._last_end is not None:
            self.note(rows, now - self._last_end)
        self._last_end = now

    def interrupted(self) -> None:
        """Other work comes before the next pass."""
        self._last_end = None

    def note(self, rows: int, seconds: float) -> None:
        """Take note that a pass of so many rows took so long."""
        usual = self._seconds.get(rows)
        if usual is not None:
            self._seconds[rows] = usual + _WEIGHT * (min(seconds, _OUTLIER * usual) - usual)
        elif rows == 1 or rows in self._once:
            self._seconds[rows] = min(seconds, self._once.pop(rows, seconds))
        else:  # if something else had the processor, this size would never be tried again
            self._once[rows] = seconds

    @property
    def is_known(self) -> bool:
        """Whether a pass of one row was measured, to which others can be compared."""
        return 1 in self._seconds

    def estimate(self, rows: int) -> float:
        """Seconds of a pass, on the line between the measured ones next to it."""
        below = max(known for known in self._seconds if known <= rows)
        above = min((known for known in self._seconds if known >= rows), default=None)
        if above is None:
            return self._seconds[below] + _ROW_COST * (rows - below) * self._seconds[1]
        return _between(rows, below, above, self._seconds)


class Acceptance:
    """How far passes advance in one stream.

    ``gain`` is what their further rows are worth, relative to the usual: one number, because
    audio that is easy to guess is so for passes of any size.
    """

    def __init__(self) -> None:
        self._gain = 1.0

    def note(self, rows: int, accepted: int) -> None:
        """Take note that a pass of so many rows advanced by ``accepted``."""
        if rows == 1:
            self._gain += _DRIFT * max(0.0, 1 - self._gain)
        else:
            self._gain += _WEIGHT * ((accepted - 1) / (_usual(rows) - 1) - self._gain)

    def rows(self, due: int, costs: PassCosts, beside: int = 0) -> int:
        """The rows of the next pass, at most ``due``, that advance the most per second.

        Args:
            beside: other streams in the pass, of one row each at least.
        """
        if due == 1 or not costs.is_known:
            return 1

        def speed(rows: int) -> float:
            positions = min(1 + self._gain * (_usual(rows) - 1), rows)
            return (beside + positions) / costs.estimate(beside + rows)

        return max({min(due, rows) for rows in _USUAL}, key=lambda rows: (speed(rows), rows))


def _usual(rows: int) -> float:
    """Positions that a pass of ``rows``, at most MAX_ROWS, usually advances by."""
    below = max(known for known in _USUAL if known <= rows)
    above = min(known for known in _USUAL if known >= rows)
    return _between(rows, below, above, _USUAL)


def _between(rows: int, below: int, above: int, values: Mapping[int, float]) -> float:
    part = (rows - below) / max(1, above - below)
    return (1 - part) * values[below] + part * values[above]

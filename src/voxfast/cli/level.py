"""How loud a microphone is: a meter below the text, and what the level alone says is wrong."""

import contextlib
import math
import os
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from voxfast.cli.console import note
from voxfast.cli.output import Output

_FLOOR_DB = -120.0
_SILENT_DB = -70.0
"""A peak below it is no sound: an open microphone's own noise is above."""
_SILENT_SECONDS = 5.0
_FULL_SCALE = 0.999
_CLIPPED_PART = 0.003
"""Of a second's samples; a shout that touches full scale now and then is no harm."""
_FALL_DB = 20.0
"""How far a peak's mark falls in a second."""

_METER_DB = -60.0
_METER_CELLS = 30
_REDRAW_SECONDS = 0.08

# The text's line ends at the cursor. To go below it, where the screen may have no line yet: index
# (down one line in the same column, which scrolls), up, save; after the meter, restore.
_BELOW, _BACK = "\x1bD\x1b[A\x1b7\x1b[B\r", "\x1b8"
_CLEAR = "\x1b[J"


class Level:
    """The level of the microphone's blocks.

    Attributes:
        rms: of the last block, in dBFS; 0 is that of a square wave at full scale.
        peak: the highest peak of late, in dBFS.
    """

    def __init__(self, rate: float) -> None:
        self.rms = self.peak = _FLOOR_DB
        self._rate = rate
        self._silent = 0.0  # seconds since the last sound
        self._said_silent = self._said_clips = False
        self._heard = self._clipped = 0  # samples of the second that goes on

    def step(self, block: npt.NDArray[np.float32]) -> list[str]:
        """Take note of more audio.

        Args:
            block: [N] at the rate of the microphone.

        Returns:
            What is to be said about it, after the microphone's name.
        """
        seconds = len(block) / self._rate
        # A converter's constant offset is no sound.
        sound = block - block.mean()
        self.rms = _decibels(math.sqrt(np.square(sound).mean()))
        peak = _decibels(float(np.abs(sound).max()))
        self.peak = max(peak, self.peak - _FALL_DB * seconds)
        messages = []
        if self._is_silent(peak, seconds):
            messages.append(
                "hears nothing: is the microphone muted, or another one wanted? see --list-devices"
            )
        if self._clips(block):
            messages.append("clips: turn its input level down, or go further away from it")
        return messages

    def _is_silent(self, peak: float, seconds: float) -> bool:
        """Whether it has been silent for so long that it is to be said, once until a sound."""
        if peak > _SILENT_DB:
            self._silent, self._said_silent = 0.0, False
            return False
        self._silent += seconds
        if self._said_silent or self._silent < _SILENT_SECONDS:
            return False
        self._said_silent = True
        return True

    def _clips(self, block: npt.NDArray[np.float32]) -> bool:
        """Whether many samples of a second are at full scale, which is to be said once."""
        self._heard += len(block)
        self._clipped += int(np.count_nonzero(np.abs(block) >= _FULL_SCALE))
        if self._heard < self._rate:
            return False
        is_clipped = self._clipped >= _CLIPPED_PART * self._heard and not self._said_clips
        self._said_clips |= is_clipped
        self._heard = self._clipped = 0
        return is_clipped


class Meter:
    """A line on stderr that shows a level, below the line of text that is being written.

    The cursor stays at the end of the text. What else is written to the terminal is written
    within :meth:`above`, so that nothing of the meter is left beside it.

    Args:
        is_shown: whether stderr is a terminal and the meter is wanted; if not, nothing is drawn.
    """

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown and os.environ.get("TERM") not in ("dumb", "unknown")
        self._line = ""
        self._is_drawn = False
        self._column = 0  # of the cursor, counted on where the terminal breaks the line
        self._waited = math.inf  # seconds of audio since the line was made

    def step(self, level: Level, seconds: float) -> None:
        """Show the level, if that was not done a moment ago.

        Args:
            seconds: of audio since the last call.
        """
        self._waited += seconds
        if self._is_shown and self._waited >= _REDRAW_SECONDS:
            self._waited = 0.0
            self._line = _line(level)
            self._draw()

    def hide(self) -> None:
        """Remove the line."""
        self._erase()
        self._line = ""

    @contextlib.contextmanager
    def above(self, text: str) -> Iterator[None]:
        """Lift the line while a text is written to the terminal."""
        from rich.cells import cell_len

        self._erase()
        yield
        _, newline, rest = text.rpartition("\n")
        self._column = cell_len(rest) + (0 if newline else self._column)
        self._draw()

    def note(self, text: str) -> None:
        """As :func:`voxfast.cli.console.note`, on a line of its own."""
        begin = "\n" if self._is_shown and self._column else ""
        with self.above("\n"):
            note(begin + text)

    def _draw(self) -> None:
        columns = _columns()
        # At the end of a full line the terminal waits with the line's break; moving the cursor
        # would lose that, and erasing the last character.
        is_full = self._column > 0 and self._column % columns == 0
        if self._line and not is_full:
            self._is_drawn = True
            _write(f"{_CLEAR}{_BELOW}{self._line[: columns - 1]}{_BACK}")

    def _erase(self) -> None:
        if self._is_drawn:
            self._is_drawn = False
            _write(_CLEAR)


class OutputAboveMeter(Output):
    """An output to the terminal that a meter is on."""

    def __init__(self, format_: str, source: str, meter: Meter) -> None:
        super().__init__(format_, None, source)
        self._meter = meter

    def _write(self, text: str) -> None:
        if text:
            with self._meter.above(text):
                super()._write(text)


def _line(level: Level) -> str:
    """A bar of the level with a mark at the peak: ``[#####....|...] -34 dBFS, peak -12``."""

    def cells(level_db: float) -> int:
        return round(_METER_CELLS * min(1.0, max(0.0, 1 - level_db / _METER_DB)))

    filled, mark = cells(level.rms), cells(level.peak)
    bar = ("#" * filled).ljust(_METER_CELLS, ".")
    if mark > filled:
        bar = f"{bar[: mark - 1]}|{bar[mark:]}"
    return f"[{bar}] {level.rms:4.0f} dBFS, peak {level.peak:.0f}"


def _decibels(amplitude: float) -> float:
    """dB of full scale; NaN, as a broken driver gives it, counts as nothing."""
    return max(_FLOOR_DB, 20 * math.log10(max(1e-9, amplitude)))


def _columns() -> int:
    """Of the terminal that stderr is."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    return 80


def _write(text: str) -> None:
    """Write to stderr; not being able to is no reason to stop."""
    with contextlib.suppress(OSError, UnicodeError):
        sys.stderr.write(text)
        sys.stderr.flush()

"""The meter of a microphone, on a terminal that text is written to."""

import re
import sys

import numpy as np
import pytest
from command_line import Terminal
from fakes import FakeSession
from test_listen import listen_to, noise, silence

from voxfast.cli.level import Level, Meter

COLUMNS, ROWS = 80, 8  # 80 is taken where a terminal does not tell
METER = re.compile(r"\[([#.|]{30})\] +(-\d+) dBFS, peak (-?\d+)")


class Screen(Terminal):
    """A terminal for stdout and stderr that understands what the meter needs.

    As on a real one, the line's break waits behind the last column: moving the cursor loses it,
    and erasing takes the last character along.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines = [""]
        self.top = self.row = self.column = 0
        self.saved = (0, 0)

    def write(self, text: str) -> int:
        for token in re.findall(r"\x1b\[.|\x1b.|.", text, re.DOTALL):
            self._take(token)
        return len(text)

    def _take(self, token: str) -> None:
        if token.startswith("\x1b") or token == "\r":
            self.column = min(self.column, COLUMNS - 1)
        if token == "\x1b[J":
            self.lines[self.row :] = [self.lines[self.row][: self.column]]
        elif token == "\x1b[A":
            self.row = max(self.top, self.row - 1)
        elif token == "\x1b[B":
            self._move_to(min(self.row + 1, self.top + ROWS - 1))
        elif token == "\x1bD":
            self._move_to(self.row + 1)
        elif token == "\x1b7":
            self.saved = (self.row - self.top, self.column)  # of the screen, not of the text
        elif token == "\x1b8":
            self._move_to(self.top + self.saved[0])
            self.column = self.saved[1]
        elif token == "\r":
            self.column = 0
        elif token == "\n":
            self._move_to(self.row + 1)
            self.column = 0
        else:
            assert token.isprintable()
            self._put(token)

    def _put(self, character: str) -> None:
        if self.column == COLUMNS:
            self._move_to(self.row + 1)
            self.column = 0
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def _move_to(self, row: int) -> None:
        self.row = row
        self.lines += [""] * (row + 1 - len(self.lines))
        self.top = max(self.top, row - ROWS + 1)


def put_screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A screen as stdout and stderr; called in the test, since pytest sets both when it begins."""
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    return screen


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(" w{}", id="short words"),
        pytest.param(" w{:07d}", id="nine words fill a line"),
        pytest.param(" Go{}.", id="a line for each word"),
    ],
)
def test_text_stays_whole_beside_the_meter(model, monkeypatch, text):
    screen = put_screen(monkeypatch)
    model.text = text
    seen: list[tuple[list[str], int]] = []
    model.on_feed = lambda session: seen.append((list(screen.lines), screen.row))
    # Blocks that are too short to redraw the meter for each.
    listen_to(monkeypatch, noise(24), "--chunk-ms", "20")
    model.on_feed = None
    quiet = put_screen(monkeypatch)
    listen_to(monkeypatch, noise(24), "--quiet")

    def words(screen: Screen) -> list[str]:
        return [line for line in screen.lines if not line.startswith("voxfast:")]

    assert words(screen) == words(quiet)
    assert not any(METER.search(line) for line in screen.lines)  # it is gone
    assert len(seen) == 1201
    *recording, (after, _) = seen
    assert not any(METER.search(line) for line in after)
    for lines, row in recording:
        shown = [number for number, line in enumerate(lines) if METER.search(line)]
        is_full = len(lines[row]) == COLUMNS
        assert shown == ([] if is_full else [row + 1])
        assert all(METER.fullmatch(lines[number]) for number in shown)


def test_text_goes_to_a_file_and_the_meter_to_the_terminal(model, monkeypatch, tmp_path):
    screen = put_screen(monkeypatch)
    seen = []
    model.on_feed = lambda session: seen.append(screen.lines[-1])
    listen_to(monkeypatch, noise(2), "-o", "talk.txt")
    assert (tmp_path / "talk.txt").read_text() == "w1 w2 w3 w4 end\n"
    assert all(METER.fullmatch(line) for line in seen[:-1])
    assert not any(METER.search(line) for line in screen.lines)


def test_a_warning_does_not_go_on_the_line_of_text(model, monkeypatch):
    screen = put_screen(monkeypatch)
    listen_to(monkeypatch, np.concatenate([noise(1), silence(6)]))
    (place,) = (n for n, line in enumerate(screen.lines) if "hears nothing" in line)
    assert screen.lines[place].startswith("voxfast: warning: Mic")
    assert screen.lines[place - 1].split()[-1] == "w12"


def test_the_meter_goes_when_recognition_fails(model, monkeypatch):
    screen = put_screen(monkeypatch)

    def fail(session: FakeSession) -> None:
        raise ValueError("broken")

    model.on_feed = fail
    with pytest.raises(AssertionError):  # the exit code
        listen_to(monkeypatch, noise(1))
    assert "broken" in screen.lines[-2] + screen.lines[-1]
    assert not any(METER.search(line) for line in screen.lines)


def test_no_meter_on_a_dumb_terminal(model, monkeypatch):
    screen = put_screen(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    seen = []
    model.on_feed = lambda session: seen.append("".join(screen.lines))
    listen_to(monkeypatch, noise(1))
    assert "dBFS" not in "".join(seen)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_what_the_meter_shows(rate, monkeypatch):
    screen = put_screen(monkeypatch)
    level, meter = Level(rate), Meter(is_shown=True)

    def shown(amplitude: float) -> tuple[str, int, int]:
        block = amplitude * np.sin(np.arange(rate // 10) * 2 * np.pi * 1000 / rate)
        level.step(block.astype(np.float32))
        meter.step(level, 0.1)
        (found,) = map(METER.fullmatch, screen.lines[-1:])
        return found[1], int(found[2]), int(found[3])

    # The RMS of a sine is 3 dB below its peak.
    assert shown(1.0) == ("#" * 28 + ".|", -3, 0)
    assert shown(0.01) == ("#" * 8 + "." * 20 + "|.", -43, -2)  # the mark falls by 20 dB/s
    for _ in range(20):
        last = shown(0.01)
    assert last == ("#" * 8 + ".|" + "." * 20, -43, -40)
    assert shown(0.0) == ("." * 8 + "|" + "." * 21, -120, -42)


def test_short_blocks_do_not_redraw_the_meter_each_time(monkeypatch):
    screen = put_screen(monkeypatch)
    drawn = []
    monkeypatch.setattr(screen, "write", drawn.append)
    level, meter = Level(16000), Meter(is_shown=True)
    for _ in range(1000):
        level.step(np.ones(16, np.float32))
        meter.step(level, 0.001)
    assert 10 <= len(drawn) <= 14

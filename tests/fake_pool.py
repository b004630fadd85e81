"""Workers that are none, for tests of what a batch makes of their results."""

import json
from collections import Counter, deque
from pathlib import Path

import pytest

from voxfast.batch import job
from voxfast.batch.pools import Loss
from voxfast.batch.recordings import Recording
from voxfast.batch.transcriber import Result
from voxfast.timed import Transcript, Word

__all__ = ["FakePool", "ids_of", "lines_of"]


class FakePool:
    """Workers that take the name of a file for its transcript; some come to an end."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.busy: list[Recording] = []
        self.given: list[str] = []
        self.lost: Counter[str] = Counter()  # how often an id loses its worker
        self.failing: set[str] = set()
        self.cut: set[str] = set()  # ids of which a part can be heard
        self.suffixes = ("json",)
        self.is_closed = False

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch, folder: Path) -> "FakePool":
        """One that jobs will use, in this folder."""
        pool = cls()
        monkeypatch.setattr(job, "_pool", lambda *_: pool)
        monkeypatch.chdir(folder)
        return pool

    def __enter__(self) -> "FakePool":
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True

    @property
    def is_busy(self) -> bool:
        return bool(self.busy)

    def fill(self, queue: deque[Recording]) -> None:
        while queue and len(self.busy) < self.size:
            self.busy.append(queue.popleft())
            self.given.append(self.busy[-1].id)

    def wait(self) -> list[Result | Loss]:
        recording = self.busy.pop()
        if self.lost[recording.id]:
            self.lost[recording.id] -= 1
            return [Loss(recording, "its worker was lost")]
        if recording.id in self.failing:
            return [Result(recording, error="it is broken")]
        transcript = Transcript((Word(f" {recording.id}", 0.0, 1.0),), 1.0)
        if recording.id in self.cut:
            texts = dict.fromkeys(self.suffixes, "a part")
            return [Result(recording, texts, transcript, error="it is cut off")]
        texts = dict.fromkeys(self.suffixes, recording.id)
        return [Result(recording, texts, transcript, seconds=0.5)]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids_of(path: Path) -> list[str]:
    return [line["id"] for line in lines_of(path)]

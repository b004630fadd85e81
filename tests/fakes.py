"""A model that needs no weights, for tests of everything around sessions."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from voxfast.audio import SAMPLE_RATE, check_samples
from voxfast.errors import InvalidOptionError, SessionClosedError
from voxfast.timed import Word

WORD_SECONDS = 0.5


class FakeSession:
    """Commits " w1", " w2", ... at the end of every half second, and " end" at the end.

    ``model.text`` is another text than " w{}".
    """

    def __init__(self, model: "FakeModel", options: dict[str, object]) -> None:
        self.model, self.options = model, options
        self.language = options.get("language")
        self.skipped = 0.25 if options.get("skip_silence") else 0.0
        self.chunks: list[int] = []
        self.committed: list[Word] = []
        self.unreturned: list[Word] = []
        self.closed = False

    def take(self) -> list[Word]:
        """Words that were committed and never returned."""
        words, self.unreturned = self.unreturned, []
        return words

    @property
    def heard(self) -> float:
        return sum(self.chunks) / SAMPLE_RATE

    def feed(self, samples: np.ndarray) -> list[Word]:
        assert not self.closed
        self.chunks.append(len(check_samples(samples)))
        time.sleep(self.model.feed_seconds)
        if self.model.on_feed:
            self.model.on_feed(self)
        before = len(self.committed)
        while (len(self.committed) + 1) * WORD_SECONDS <= self.heard:
            n = len(self.committed) + 1
            self.committed.append(
                Word(
                    self.model.text.format(n),
                    (n - 1) * WORD_SECONDS,
                    n * WORD_SECONDS,
                    probability=0.5,
                )
            )
        return self.committed[before:]

    def finish(self) -> list[Word]:
        if self.closed:
            raise SessionClosedError("finished")
        self.closed = True
        time.sleep(self.model.finish_seconds)
        self.committed.append(Word(" end", self.heard, self.heard, 1.0))
        return self.committed[-1:]

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> "FakeSession":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class FakeModel:
    """What ``voxfast.load`` returns."""

    name = "fake"
    sample_rate = SAMPLE_RATE
    description = "a model for tests that understands nothing"
    is_demo = True

    def __init__(self) -> None:
        self.sessions: list[FakeSession] = []
        self.loads: list[tuple[str, object]] = []
        self.kv_bits: int | None = None
        self.recordings: list[float] = []
        self.is_open = True
        self.text = " w{}"
        self.feed_seconds = self.finish_seconds = 0.0
        self.on_feed: Callable[[FakeSession], None] | None = None

    def load(
        self, name: str = "voxtral-numbers", *, dtype: object = None, kv_bits: int | None = None
    ) -> "FakeModel":
        self.loads.append((name, dtype))
        self.kv_bits = kv_bits
        return self

    def session(
        self,
        *,
        delay_ms: int | None = None,
        language: str | None = None,
        prompt: str | None = None,
        vocabulary: tuple[tuple[str, float], ...] = (),
        endpoint_ms: float | None = None,
        skip_silence: bool = False,
    ) -> FakeSession:
        if delay_ms is not None and delay_ms % 80:
            raise InvalidOptionError(f"a delay of {delay_ms} ms; expected a multiple of 80")
        options = {
            "delay_ms": delay_ms,
            "language": language,
            "prompt": prompt,
            "vocabulary": vocabulary,
            "endpoint_ms": endpoint_ms,
            "skip_silence": skip_silence,
        }
        self.sessions.append(FakeSession(self, options))
        return self.sessions[-1]

    def recording_session(self, seconds: float, **options: Any) -> FakeSession:
        self.recordings.append(seconds)
        return self.session(**options)

    @property
    def streamed(self) -> int:
        """How many sessions were fed."""
        return sum(bool(session.chunks) for session in self.sessions)

    def close(self) -> None:
        self.is_open = False


def signal_after(seconds: float, number: signal.Signals) -> Callable[[FakeSession], None]:
    """Raise a signal in this process once a session has heard so much."""

    def on_feed(session: FakeSession) -> None:
        if session.heard >= seconds and session.model.on_feed:
            session.model.on_feed = None
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    return on_feed

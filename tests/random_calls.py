"""Random sequences of calls on a session or a processor, against a simple model of them.

What is known of a stream is a list of events: audio, flushes, pauses, processing. Whatever
else was called in between (empty inserts, rejected input, getters), the words must be those
of another session that was given the same events, and nothing that a bystander is fed, a
session of the same model, may show in them. With Voxtral, whose blocks are always the
same, they must not depend on processing either; Qwen3-ASR takes what has come when it is called.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import pytest

import voxfast
from voxfast.timed import Word

__all__ = ["check_sequence"]

SIZES = (0, 1, 2, 79, 160, 400, 1279, 1280, 1281, 2560, 4001, 8000, 16000, 16000, 32000)
BAD: tuple[Any, ...] = (
    np.zeros(9),
    np.zeros((2, 9), np.float32),
    np.array([0, np.nan], np.float32),
    np.array([np.inf], np.float32),
    np.full(5, 3e4, np.float32),
    np.zeros(9, np.int32),
    np.ma.masked_array(np.zeros(9, np.float32)),
    [0.0, 0.1],
    b"\0\0",
    None,
)


@dataclass
class Expected:
    """The simple model.

    Attributes:
        events: [N] of samples; "flush"; "process"; or seconds of a pause.
        samples: inserted so far.
        waiting: samples inserted since something was processed.
        pauses: seconds.
        words: all that were returned.
    """

    events: list[np.ndarray | str | float] = field(default_factory=list)
    samples: int = 0
    waiting: int = 0
    pauses: float = 0.0
    words: list[Word] = field(default_factory=list)

    @property
    def heard(self) -> float:
        return self.samples / 16000 + self.pauses


class Driver:
    """One sequence of calls.

    Args:
        audio: a long recording, parts of which are inserted.
    """

    def __init__(self, model: voxfast.Model, rng: Random, audio: np.ndarray) -> None:
        self._rng, self._audio = rng, audio
        self._is_processor = rng.random() < 0.4
        self._is_voxtral = bool(model.delays_ms)
        self._options = _voxtral(rng, model) if self._is_voxtral else _qwen3_asr(rng)
        listening = _listening(rng)
        self._listens = bool(listening)
        self._options |= listening
        # Of audio that may wait for more after a call that processed: Voxtral's look-ahead, too.
        self._block = self._options["block_ms"] / 1000 + 0.0025 * self._is_voxtral
        self._model = model
        self._processor = model.processor(**self._options)
        self._bystander = model.session()
        # The processor's own session, so that both faces are checked alike.
        self._session = self._processor._session
        self._expected = Expected()
        self._at = rng.randrange(len(audio) - 14 * SIZES[-1])  # where the recording goes on

    def run(self) -> list[Word]:
        calls = (self._insert, self._insert, self._insert, self._insert, self._process,
                 self._process, self._flush, self._pause, self._reject, self._speaker)  # fmt: skip
        for _ in range(self._rng.randrange(1, 14)):
            self._rng.choice(calls)()
            self._check()
            if self._rng.random() < 0.3:
                self._disturb()
        if self._is_processor:
            words, upto = self._processor.finish()
            assert upto == pytest.approx(self._expected.heard, abs=1e-6)
        else:
            words = self._session.finish()
        self._take(words)
        assert self._session.lag == pytest.approx(0.0, abs=0.08)
        self._check_ended()
        return self._expected.words

    def replay(self) -> list[Word]:
        """The words of another session that is given the same events, and nothing else."""
        words: list[Word] = []
        with self._model.session(**self._options) as session:
            for event in self._expected.events:
                if isinstance(event, np.ndarray):
                    session.insert(event)
                elif isinstance(event, float):
                    session.skip(event)
                elif event == "flush":
                    words += session.flush()
                elif not self._is_voxtral:
                    words += session.process()
            return words + session.finish()

    def _disturb(self) -> None:
        """Something happens to a bystander, whose audio may share the session's passes."""
        at = self._rng.randrange(len(self._audio) - SIZES[-1])
        samples = self._audio[at : at + self._rng.choice(SIZES)]
        what = self._rng.randrange(5)
        if what == 0:
            self._bystander.feed(samples)
        elif what < 3:
            self._bystander.insert(samples)
        else:
            if what == 3:
                self._bystander.close()
            self._bystander = self._model.session()

    # -- calls

    def _insert(self) -> None:
        size = self._rng.choice(SIZES)
        if self._rng.random() < 0.1:
            self._at = self._rng.randrange(len(self._audio) - 14 * SIZES[-1])
        samples = self._audio[self._at : self._at + size]
        self._at += size
        if self._rng.random() < 0.2:
            samples = samples * 0
        self._expected.events.append(samples.copy())
        self._expected.samples += size
        self._expected.waiting += size
        buffer: Any = samples.copy()
        if self._rng.random() < 0.2:
            buffer = np.round(buffer * 32768).astype(np.int16)
            self._expected.events[-1] = buffer.copy()
        if self._is_processor:
            self._processor.insert_audio_chunk(buffer, self._expected.heard)
        elif self._rng.random() < 0.5:
            self._session.insert(buffer)
        else:
            self._expected.events.append("process")
            self._take(self._session.feed(buffer))
        buffer[:] = 0  # the caller's own again

    def _process(self) -> None:
        self._expected.events.append("process")
        if self._is_processor:
            words, upto = self._processor.process_iter()
            assert upto == self._session.processed
        else:
            words = self._session.process()
        self._take(words)

    def _speaker(self) -> None:
        if self._is_processor:
            self._expected.events.append("process")
            self._take(self._processor.new_speaker(None)[0])

    def _flush(self) -> None:
        self._expected.events.append("flush")
        words = self._processor.start_silence()[0] if self._is_processor else self._session.flush()
        self._take(words)
        assert self._session.tentative == ""
        if self._rng.random() < 0.3:
            assert self._session.flush() == []

    def _pause(self) -> None:
        seconds = self._rng.choice((0.0, 0.01, 1.0, 3600.0))
        self._expected.events.append(seconds)
        self._expected.pauses += seconds
        if self._is_processor:
            self._processor.end_silence(seconds, 0.0)
        else:
            self._session.skip(seconds)

    def _reject(self) -> None:
        before = (self._session.heard, self._session.lag, self._session.tentative)
        bad = self._rng.choice(BAD)
        with pytest.raises(voxfast.InvalidAudioError):
            self._session.insert(bad)
        with pytest.raises(voxfast.InvalidAudioError):
            self._processor.insert_audio_chunk(bad, 0.0)
        with pytest.raises(voxfast.InvalidAudioError):
            self._session.feed(np.zeros(10, np.float32), sample_rate=8000)
        with pytest.raises(voxfast.InvalidOptionError):
            self._session.skip(self._rng.choice((-1.0, float("nan"), float("inf"), "1")))  # type: ignore[arg-type]
        assert before == (self._session.heard, self._session.lag, self._session.tentative)

    # -- what must hold

    def _take(self, words: list[Word]) -> None:
        """After a call that processed."""
        self._expected.waiting = 0
        self._expected.words += words
        assert self._session.lag < self._block

    def _check(self) -> None:
        session, expected = self._session, self._expected
        assert session.heard == pytest.approx(expected.heard, abs=1e-6)
        assert session.processed <= session.heard + 1e-9
        assert session.lag >= 0
        is_heard_early = self._is_voxtral or self._listens
        if not is_heard_early:  # else a bystander may have taken it along
            assert session.lag >= expected.waiting / 16000 - 1e-9
        buffer = self._processor.get_buffer()
        assert buffer.text == session.tentative
        buffer.text += "!"
        start = 0.0
        for word in expected.words:
            assert start <= word.start <= word.end <= expected.heard + 0.081, word
            assert word.text
            assert "\ufffd" not in word.text
            start = word.start

    def _check_ended(self) -> None:
        self._check()
        session = self._session
        assert session.tentative == ""
        assert session.take() == []
        for call in (session.process, session.flush, session.finish, self._processor.finish):
            with pytest.raises(voxfast.SessionClosedError):
                call()
        for call in (lambda: session.insert(np.zeros(9, np.float32)), lambda: session.skip(1.0)):
            with pytest.raises(voxfast.SessionClosedError):
                call()
        session.close()
        self._check()


def _voxtral(rng: Random, model: voxfast.Model) -> dict[str, Any]:
    return {"delay_ms": rng.choice(model.delays_ms), "block_ms": rng.choice((80, 80, 80, 400))}


def _qwen3_asr(rng: Random) -> dict[str, Any]:
    """Options; half of the time a buffer that is soon full."""
    options = {
        "language": rng.choice((None, "en")),
        "delay_ms": rng.choice((0, 320, 320, 1000)),
        "block_ms": rng.choice((20, 200, 500, 1000)),
    }
    if rng.random() < 0.5:
        options["tuning"] = voxfast.Qwen3Tuning(
            buffer_ms=4000, trim_ms=3000, keep_ms=1000, pause_ms=1500
        )
    return options


def _listening(rng: Random) -> dict[str, Any]:
    """Options of turns, a third of the time."""
    if rng.random() < 2 / 3:
        return {}
    endpoint_ms = rng.choice((None, 60, 300, 1000))
    return {"endpoint_ms": endpoint_ms, "skip_silence": rng.random() < 0.6}


def check_sequence(model: voxfast.Model, seed: int, audio: np.ndarray) -> int:
    """Run sequence number ``seed``; returns the number of words that came."""
    driver = Driver(model, Random(seed), audio)
    words = driver.run()
    assert words == driver.replay()
    return len(words)

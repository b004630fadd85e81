"""Audio that comes while a session processes: nothing waits for it, nothing is dropped."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

import voxfast
from voxfast.online import session as session_module
from voxfast.online.owner import OwnerThread
from voxfast.online.peers import Peers
from voxfast.online.session import Session
from voxfast.online.stream import Stream
from voxfast.timed import Word

SECOND = np.zeros(16000, np.float32)


class SlowStream:
    """A stream that takes whole seconds, each with a word, and calls ``on_step`` at each."""

    tentative = ""

    def __init__(self) -> None:
        self.words: list[Word] = []
        self.error: Exception | None = None
        self.samples: list[np.ndarray] = []
        self.pauses = 0.0
        self.taken = 0
        self.ends = 0
        self.on_step: Callable[[], None] = lambda: None
        self.chunks_matter = self.is_busy = self.may_share = False
        self.is_awaited = self.was_awaited = self.is_offline = False

    def push(self, samples: np.ndarray) -> None:
        self.samples.append(samples)

    def skip(self, seconds: float) -> None:
        self.pauses += seconds

    def end_utterance(self) -> None: ...

    def end_stream(self) -> None:
        self.ends += 1

    def step(self, others: Sequence[Stream] = ()) -> None:
        self.taken += 1
        self.words.append(Word(f" {self.taken}", self.taken - 1, self.taken))
        self.on_step()

    @property
    def _pushed(self) -> float:
        return sum(map(len, self.samples)) / 16000

    @property
    def due(self) -> bool:
        return self._pushed >= self.taken + 1

    @property
    def heard(self) -> float:
        return self._pushed + self.pauses

    @property
    def processed(self) -> float:
        return float(self.taken)

    @property
    def lag(self) -> float:
        return self._pushed - self.taken


@pytest.fixture
def owner() -> Iterator[OwnerThread]:
    thread = OwnerThread("test")
    yield thread
    thread.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of a clock that stands still until a test moves it."""
    now = [0.0]
    monkeypatch.setattr(session_module.time, "monotonic", lambda: now[0])
    return now


def texts(words: list[Word]) -> str:
    return "".join(word.text for word in words)


def test_a_call_ends_although_audio_keeps_coming(owner: OwnerThread, clock: list[float]) -> None:
    stream = SlowStream()
    session = Session(stream, owner, Peers())

    def on_step() -> None:
        clock[0] += 1.0  # so that every step is a slice of its own
        if stream.taken < 20:
            session.insert(SECOND)  # as fast as it is processed

    stream.on_step = on_step
    session.insert(np.zeros(48000, np.float32))
    assert texts(session.process()) == " 1 2 3"
    assert session.lag == 3.0
    assert session.heard == 6.0
    stream.on_step = lambda: None
    assert texts(session.process()) == " 4 5 6"
    assert session.lag == 0.0


def test_inserting_does_not_wait_for_another_thread_that_processes(owner: OwnerThread) -> None:
    stream = SlowStream()
    session = Session(stream, owner, Peers())
    stepping, go_on = threading.Event(), threading.Event()

    def on_step() -> None:
        stepping.set()
        assert go_on.wait(30)

    stream.on_step = on_step
    session.insert(SECOND)
    words: list[Word] = []
    worker = threading.Thread(target=lambda: words.extend(session.process()))
    worker.start()
    assert stepping.wait(30)
    session.insert(SECOND)
    session.skip(5.0)
    assert session.heard == 7.0
    assert session.lag == 1.0
    go_on.set()
    worker.join()
    assert texts(words) == " 1"
    assert texts(session.finish()) == " 2"
    assert stream.pauses == 5.0


def test_long_work_is_done_in_slices(owner: OwnerThread, clock: list[float]) -> None:
    """After each, Ctrl-C is answered and other sessions have their turn."""
    stream, calls = SlowStream(), 0
    session = Session(stream, owner, Peers())
    original = owner.run

    def counted(*args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        return original(*args, **kwargs)

    owner.run = counted  # type: ignore[method-assign]
    stream.on_step = lambda: clock.__setitem__(0, clock[0] + 0.02)
    assert len(session.feed(np.zeros(60 * 16000, np.float32))) == 60
    assert calls == 20  # of 50 ms, begun ones included


def test_a_slice_ends_when_another_session_waits(owner: OwnerThread, clock: list[float]) -> None:
    """Even if it has done one step only, in no time: nobody waits for another's backlog."""
    busy, quick = SlowStream(), SlowStream()
    backlog, live = Session(busy, owner, Peers()), Session(quick, owner, Peers())
    stepping, order = threading.Event(), []

    def on_busy_step() -> None:
        order.append("backlog")
        stepping.set()
        for _ in range(30_000):  # half a minute, by a clock that no test moves
            if len(order) > 1 or owner.is_wanted:
                break
            time.sleep(0.001)

    busy.on_step, quick.on_step = on_busy_step, lambda: order.append("live")
    backlog.insert(np.zeros(60 * 16000, np.float32))
    words: list[Word] = []
    worker = threading.Thread(target=lambda: words.extend(backlog.process()))
    worker.start()
    assert stepping.wait(30)
    assert texts(live.feed(SECOND)) == " 1"
    worker.join()
    assert order[:2] == ["backlog", "live"]
    assert len(words) == 60


def test_a_buffer_may_be_used_again(owner: OwnerThread) -> None:
    stream = SlowStream()
    session = Session(stream, owner, Peers())
    buffer = np.ones(300, np.float32)
    for chunk in (buffer, buffer[10:], buffer[::2], buffer.view()):
        session.insert(chunk)
    buffer[:] = 0
    session.process()
    assert [float(chunk.min()) for chunk in stream.samples] == [1.0] * 4
    assert not any(np.shares_memory(chunk, buffer) for chunk in stream.samples)


def test_overload_is_said_once_and_so_is_its_end(
    owner: OwnerThread, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    stream = SlowStream()
    session = Session(stream, owner, Peers())

    def step(seconds: float) -> Callable[[], None]:
        return lambda: clock.__setitem__(0, clock[0] + seconds)

    def feed(seconds: int, each: float) -> list[str]:
        """Process so much audio at ``each`` seconds per second; return what was logged."""
        caplog.clear()
        stream.on_step = step(each)
        session.feed(np.zeros(16000 * seconds, np.float32))
        return [record.getMessage() for record in caplog.records]

    with caplog.at_level(logging.INFO, "voxfast"):
        assert feed(60, 0.5) == []  # a recording, faster than real time
        assert feed(60, 1.5) == []
        assert feed(90, 1.5) == [
            "90.0 s behind: audio comes faster than it is processed; nothing is dropped"
        ]
        assert feed(135, 0.1) == []  # still behind, and said
        assert feed(13, 0.1) == []
        assert feed(1, 0.1) == []
        session.feed(SECOND[:1600])
        assert [record.getMessage() for record in caplog.records] == ["caught up: 0.1 s behind"]
        caplog.clear()
        session.feed(SECOND[:1600])
        assert not caplog.records
        assert feed(60, 1.5) == []
        assert len(feed(90, 1.5)) == 1  # a second overload is said again
        assert feed(1, 0.1) == []
        assert feed(1, 0.1) == ["caught up: 1.2 s behind"]  # a long chunk is no backlog
    assert stream.taken == 60 + 60 + 90 + 135 + 13 + 1 + 60 + 90 + 2


def test_an_interrupted_finish_is_finished_by_the_next(owner: OwnerThread) -> None:
    stream = SlowStream()
    session = Session(stream, owner, Peers())
    session.insert(SECOND)
    original, calls = owner.run, 0

    def interrupted(*args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        result = original(*args, **kwargs)
        if calls == 1:
            raise KeyboardInterrupt
        return result

    owner.run = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        session.finish()
    for call in (lambda: session.insert(SECOND), session.process, session.flush):
        with pytest.raises(voxfast.SessionClosedError, match=r"call finish\(\)"):
            call()
    assert texts(session.finish()) == " 1"
    with pytest.raises(voxfast.SessionClosedError, match="is finished"):
        session.finish()

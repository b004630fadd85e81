"""Sessions of one model share passes: the words of each alone, and no harm from another."""

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem

import voxfast
from voxfast.models.voxtral import tokens as module
from voxfast.models.voxtral.network import DecoderRows, Voxtral
from voxfast.online.owner import OwnerThread

DELAYS = (240, 480, 960)


@pytest.fixture(scope="module")
def model() -> Iterator[voxfast.Model]:
    with voxfast.load() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clips(eval_items: list[EvalItem]) -> list[np.ndarray]:
    return [item.audio for item in eval_items[:12]]


@pytest.fixture(scope="module")
def alone(model: voxfast.Model, clips: list[np.ndarray]) -> list[list[voxfast.Word]]:
    found = []
    for number, audio in enumerate(clips):
        with model.session(delay_ms=DELAYS[number % 3]) as session:
            found.append([*session.feed(audio), *session.finish()])
    return found


def opened(model: voxfast.Model, clips: list[np.ndarray]) -> list[voxfast.Session]:
    return [model.session(delay_ms=DELAYS[number % 3]) for number in range(len(clips))]


def rows_of_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many streams take part in each pass of the decoder, from now on."""
    streams: list[int] = []
    decode = Voxtral.decode

    def noting(self: Voxtral, rows: list[DecoderRows]) -> mx.array:
        streams.append(len(rows))
        return decode(self, rows)

    monkeypatch.setattr(Voxtral, "decode", noting)
    return streams


def test_sessions_in_turn_share_passes_and_write_the_words_of_each_alone(
    model: voxfast.Model,
    clips: list[np.ndarray],
    alone: list[list[voxfast.Word]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Live, in chunks of odd sizes, one thread: insert into all of them, then process."""
    streams = rows_of_passes(monkeypatch)
    before = replace(model.pass_count)
    sessions = opened(model, clips)
    words: list[list[voxfast.Word]] = [[] for _ in clips]
    for at in range(0, max(map(len, clips)), 1777):
        for session, audio in zip(sessions, clips, strict=True):
            session.insert(audio[at : at + 1777])
        for session, found in zip(sessions, words, strict=True):
            found += session.process()
            assert session.lag < 0.09
    for session, found in zip(sessions, words, strict=True):
        found += session.finish()
    assert words == alone
    assert max(streams) == len(clips)
    assert np.mean(streams) > 2
    assert model.pass_count.passes - before.passes == len(streams)
    positions = sum(len(audio) / 1280 for audio in clips)
    assert model.pass_count.rows - before.rows > positions


def test_sessions_that_end_together_share_the_passes_of_their_ends(
    model: voxfast.Model,
    clips: list[np.ndarray],
    alone: list[list[voxfast.Word]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = opened(model, clips)
    words = [session.feed(audio) for session, audio in zip(sessions, clips, strict=True)]
    streams = rows_of_passes(monkeypatch)
    for session in sessions:
        session.end()
        with pytest.raises(voxfast.SessionClosedError, match="ending; call finish"):
            session.feed(clips[0])
    assert not streams  # nothing is processed yet
    for session, found in zip(sessions, words, strict=True):
        found += session.finish()
    assert words == alone
    assert streams[0] == len(clips)


def test_sessions_of_many_threads(
    model: voxfast.Model, clips: list[np.ndarray], alone: list[list[voxfast.Word]]
) -> None:
    def transcribe(number: int) -> list[voxfast.Word]:
        audio, words = clips[number], []
        with model.session(delay_ms=DELAYS[number % 3]) as session:
            for at in range(0, len(audio), 3000 + 777 * number):
                words += session.feed(audio[at : at + 3000 + 777 * number])
            return words + session.finish()

    with ThreadPoolExecutor(len(clips)) as pool:
        assert list(pool.map(transcribe, range(len(clips)))) == alone


def test_a_backlog_and_sessions_that_come_and_go(
    model: voxfast.Model, clips: list[np.ndarray], alone: list[list[voxfast.Word]]
) -> None:
    """A minute at once beside live sessions, of which some are closed and some forgotten."""
    backlog = np.concatenate(clips)
    with model.session() as session:
        expected = [*session.feed(backlog), *session.finish()]
    late = model.session()
    late.insert(backlog)
    words: list[list[voxfast.Word]] = [[] for _ in clips]
    sessions = opened(model, clips)
    for at in range(0, max(map(len, clips)), 1280):
        for number, audio in enumerate(clips):
            if number % 4 == 3 and at == 1280 * 7:
                sessions[number].close()
            elif number % 4 != 3 or at < 1280 * 7:
                words[number] += sessions[number].feed(audio[at : at + 1280])
    for number, session in enumerate(sessions):
        if number % 4 != 3:
            assert words[number] + session.finish() == alone[number]
    assert [*late.process(), *late.finish()] == expected


def test_a_session_that_nobody_holds_is_gone(model: voxfast.Model, clips: list[np.ndarray]) -> None:
    forgotten = model.session()
    forgotten.insert(clips[0])
    stream = weakref.ref(forgotten._stream)
    with model.session() as session:
        session.feed(clips[1][:8000])
        del forgotten
        gc.collect()
        assert stream() is None
        session.feed(clips[1][8000:])


def test_an_error_of_one_session_touches_no_other(
    model: voxfast.Model,
    clips: list[np.ndarray],
    alone: list[list[voxfast.Word]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = opened(model, clips[:3])

    def fail(token: object) -> list[voxfast.Word]:
        raise RuntimeError("a fault in one stream")

    monkeypatch.setattr(sessions[1]._stream._assembler, "add", fail)
    for session, audio in zip(sessions, clips, strict=False):
        session.insert(audio)
    words = [sessions[0].process()]
    with pytest.raises(RuntimeError, match="a fault in one stream"):
        sessions[1].process()
    with pytest.raises(voxfast.SessionClosedError, match="broken"):
        sessions[1].process()
    words += [[], sessions[2].process()]
    for number in (0, 2):
        assert words[number] + sessions[number].finish() == alone[number]


def test_what_fails_for_all_reaches_all(
    model: voxfast.Model, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = opened(model, clips[:2])
    for session, audio in zip(sessions, clips, strict=False):
        session.insert(audio)

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(module, "run", fail)
        for session in sessions:
            with pytest.raises(MemoryError):
                session.process()
    with model.session() as session:
        assert session.feed(clips[0])


def test_a_call_that_shared_a_failing_step_raises(
    model: voxfast.Model, clips: list[np.ndarray]
) -> None:
    """Also if it was the last step that the call waited for: words may be missing."""
    session = model.session()
    session.feed(clips[0])
    session._stream.error = RuntimeError("failed in a step of another session")
    with pytest.raises(RuntimeError, match="another session"):
        session.finish()


def test_a_peer_takes_only_what_its_running_call_takes(
    model: voxfast.Model, clips: list[np.ndarray]
) -> None:
    """Else a call would not end while audio keeps coming."""
    peer = model.session()
    with peer._draining():
        peer.insert(clips[0])
        with model.session() as session:
            session.feed(clips[1])
        assert peer.lag == pytest.approx(len(clips[0]) / 16000)
    with model.session() as session:
        session.feed(clips[1])
    assert peer.lag < 0.1


def test_a_backlog_of_a_peer_that_detects_voices_does_not_stop_a_step(
    model: voxfast.Model, clips: list[np.ndarray]
) -> None:
    peer = model.session(skip_silence=True)
    peer.insert(np.zeros(3600 * 16000, np.float32))
    with model.session() as session:
        session.feed(clips[0][:3200])
    assert peer.lag > 3000
    peer.close()


def test_a_session_that_others_have_served_does_not_wait_for_the_owner(
    model: voxfast.Model,
    clips: list[np.ndarray],
    alone: list[list[voxfast.Word]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    posted = []
    post = OwnerThread.post

    def noting(self: OwnerThread, *arguments: Any) -> None:
        posted.append(arguments)
        post(self, *arguments)

    sessions = opened(model, clips[:4])
    words: list[list[voxfast.Word]] = [[] for _ in sessions]
    monkeypatch.setattr(OwnerThread, "post", noting)
    rounds = range(0, 48_640, 640)  # every second one without a step
    for at in rounds:
        for session, audio in zip(sessions, clips, strict=False):
            session.insert(audio[at : at + 640])
        for session, found in zip(sessions, words, strict=True):
            found += session.process()
    assert len(posted) < 1.3 * len(rounds)  # and not 4
    for session, audio, found in zip(sessions, clips, words, strict=False):
        found += [*session.feed(audio[48_640:]), *session.finish()]
    assert words == alone[:4]


@pytest.mark.parametrize("family", ["voxtral", "qwen"])
def test_the_memory_of_a_closed_session_is_free_at_once(
    clips: list[np.ndarray], qwen_folder: Path, family: str
) -> None:
    """No cycle of references keeps its rings until the garbage collector comes."""
    with voxfast.load() if family == "voxtral" else voxfast.load(str(qwen_folder)) as loaded:
        gc.collect()
        gc.disable()
        try:
            session = loaded.session(**({} if family == "voxtral" else {"language": "en"}))
            session.feed(clips[0])
            held = weakref.ref(session._stream)
            session.finish()
            del session
            assert held() is None
        finally:
            gc.enable()

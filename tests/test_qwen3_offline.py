"""Recordings with Qwen3-ASR: utterances side by side, with the words of one after the other."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem

import voxfast
from voxfast import ops
from voxfast.models.qwen3_asr import stream, utterance


@pytest.fixture(scope="module")
def model(qwen_folder: Path) -> Iterator[voxfast.Model]:
    with voxfast.load(qwen_folder, dtype=mx.float32) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def recording(eval_items: list[EvalItem]) -> np.ndarray:
    """Utterances of 2 to 13 s and pauses; noise, in which nothing is said; one without a pause."""
    rng = np.random.default_rng(0)
    parts = []
    for number in (18, 1, 9, 38, 22, 3, 30, 37, 5, 13, 31, 0):
        parts += [eval_items[number].audio, rng.normal(0, 1e-4, 12_000)]
        if number == 22:
            parts += [rng.normal(0, 0.02, 40_000), rng.normal(0, 1e-4, 16_000)]
    parts += [eval_items[38].audio, eval_items[37].audio, eval_items[2].audio[:20_000]]
    return np.concatenate(parts).astype(np.float32)


def one_by_one(model: voxfast.Model, audio: np.ndarray, **options: Any) -> list[voxfast.Word]:
    with model.session(**({"endpoint_ms": 500} | options)) as session:
        session.insert(audio)
        return session.finish()


def side_by_side(model: voxfast.Model, audio: np.ndarray, **options: Any) -> list[voxfast.Word]:
    return list(voxfast.transcribe(audio, model=model, **options).words)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"language": "en", "prompt": "kitchen, door", "vocabulary": [("thirty", 10.0), "opener"]},
    {"language": "en", "endpoint_ms": 200, "skip_silence": True},
    {"language": "en", "endpoint_ms": None},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_words_are_those_of_one_utterance_after_the_other(
    model: voxfast.Model,
    recording: np.ndarray,
    running: list[int],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    """Texts, times and probabilities, however many utterances are transcribed at once."""
    expected = one_by_one(model, recording, **options)
    assert set(running) == {1}
    assert len(expected) > 80
    for most in (1, 3, 8, 30):
        monkeypatch.setattr(stream, "SIDE_BY_SIDE", most)
        running.clear()
        assert side_by_side(model, recording, **options) == expected
        if options.get("endpoint_ms", 500) is not None:
            assert min(most, 9) <= max(running) <= most


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision(
    qwen_folder: Path, recording: np.ndarray, running: list[int], dtype: mx.Dtype
) -> None:
    with voxfast.load(qwen_folder, dtype=dtype) as model:
        assert side_by_side(model, recording[:800_000]) == one_by_one(model, recording[:800_000])
    assert max(running) == 8


@pytest.mark.parametrize("fault", ["limit of tokens", "loop", "language", "no room"])
def test_utterances_that_end_in_their_own_ways(
    model: voxfast.Model, recording: np.ndarray, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """What cuts one of them short cuts no other one."""
    usual = one_by_one(model, recording)
    options: dict[str, Any] = {"language": "en"}
    if fault == "limit of tokens":
        monkeypatch.setattr(utterance, "SPARE_TOKENS", -50)
    elif fault == "loop":
        monkeypatch.setattr(
            utterance, "first_of_loop", lambda tokens, frames: 3 if len(tokens) % 6 == 5 else None
        )
    elif fault == "language":
        options = {}
    else:
        options["tuning"] = voxfast.Qwen3Tuning(buffer_ms=4000, trim_ms=3000, keep_ms=1000)
        monkeypatch.setattr(utterance.Utterance, "make_room", lambda self: self.n_encoded % 2 == 0)
    expected = one_by_one(model, recording, **options)
    assert side_by_side(model, recording, **options) == expected
    assert fault == "language" or expected != usual


def test_passes_are_full_until_the_end(
    model: voxfast.Model, recording: np.ndarray, running: list[int]
) -> None:
    """A pass waits for utterances, not for the end of a block."""
    audio = np.concatenate([recording] * 3)
    side_by_side(model, audio, language="en")
    assert np.mean(np.array(running) == 8) > 0.75
    assert running[-1] < 8


def test_any_blocks_give_the_same_words(model: voxfast.Model, recording: np.ndarray) -> None:
    expected = one_by_one(model, recording, language="en")
    for size in (16_001, 500_000):
        words: list[voxfast.Word] = []
        with model.session(language="en", endpoint_ms=500) as session:
            session._stream.is_offline = True
            for at in range(0, len(recording), size):
                words += session.feed(recording[at : at + size])
            assert words + session.finish() == expected


@pytest.mark.parametrize("seconds", [3.9, 4.0, 4.1, 4.6, 8.2])
def test_an_utterance_as_long_as_the_buffer_waits_for_its_end(
    model: voxfast.Model, recording: np.ndarray, seconds: float
) -> None:
    """The zeros at its end may exceed the buffer, and no inference hears them alone."""
    audio = recording[: int(16_000 * seconds)]
    options: dict[str, Any] = {
        "tuning": voxfast.Qwen3Tuning(buffer_ms=4000, trim_ms=3000, keep_ms=1000),
        "endpoint_ms": None,
    }
    assert side_by_side(model, audio, **options) == one_by_one(model, audio, **options)


def test_what_waits_is_bounded_and_no_backlog(
    model: voxfast.Model, recording: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """Of audio without pauses no more than the buffer holds, of utterances no more than run."""
    for options in ({"endpoint_ms": 500}, {}):
        with model.session(language="en", **options) as session:
            session._stream.is_offline = True
            inner: Any = session._stream
            for at in range(0, len(recording), 80_000):
                session._overload._busy = 1e9  # of the call before
                session.feed(recording[at : at + 80_000])
                assert session.lag <= 15.5 + 5
                assert len(inner._decoders) <= 8
                assert len(inner._running) <= 8
    # The model may fill a buffer without a word that it is sure of; nothing else is told.
    told = {record.getMessage() for record in caplog.records if record.name.startswith("voxfast")}
    assert told <= {"nothing could be committed in a full buffer; the utterance ends"}


def test_progress_and_an_interrupt_keep_the_order(
    model: voxfast.Model, recording: np.ndarray
) -> None:
    expected = one_by_one(model, recording)
    done: list[float] = []

    def note(seconds: float, total: float | None) -> None:
        assert total == len(recording) / 16000
        done.append(seconds)

    voxfast.transcribe(recording, model=model, progress=note)
    assert done == sorted(done)
    assert done[-1] == len(recording) / 16000
    with model.session(endpoint_ms=500) as session:
        session._stream.is_offline = True
        words = session.feed(recording[:1_000_000])
        run: Callable[..., Any] = session._owner.run

        def interrupted(*arguments: Any) -> Any:
            run(*arguments)
            raise KeyboardInterrupt

        session._owner.run = interrupted  # type: ignore[method-assign]
        try:
            session.insert(recording[1_000_000:])
            with pytest.raises(KeyboardInterrupt):
                session.process()
        finally:
            del session._owner.run
        words += session.take()
        assert len(words) > 20
        assert words == expected[: len(words)]
        assert words + session.finish() == expected


def test_recordings_and_live_sessions_at_once(
    model: voxfast.Model, recording: np.ndarray, eval_items: list[EvalItem]
) -> None:
    live = eval_items[37].audio

    def listen(_: int) -> list[voxfast.Word]:
        words: list[voxfast.Word] = []
        with model.session() as session:
            for at in range(0, len(live), 8000):
                words += session.feed(live[at : at + 8000])
            return words + session.finish()

    expected = [one_by_one(model, recording), listen(0)]
    with ThreadPoolExecutor(4) as pool:
        files = [pool.submit(side_by_side, model, recording) for _ in range(2)]
        sessions = [pool.submit(listen, number) for number in range(2)]
        assert [future.result() for future in files] == [expected[0]] * 2
        assert [future.result() for future in sessions] == [expected[1]] * 2


def test_ops_of_mlx_take_one_utterance_at_a_time(
    model: voxfast.Model, recording: np.ndarray, running: list[int]
) -> None:
    with ops.use_native(False):
        found = side_by_side(model, recording[:400_000], language="en")
    assert set(running) == {1}
    expected = one_by_one(model, recording[:400_000], language="en")
    assert [word.text for word in found] == [word.text for word in expected]

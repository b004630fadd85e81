"""Sessions of Qwen3-ASR share passes: the words of each alone, and no harm from another."""

import contextlib
import gc
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from evaluation import EvalItem

import voxfast
from voxfast import ops
from voxfast.models.qwen3_asr import passes
from voxfast.models.qwen3_asr.audio import Audio
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.models.qwen3_asr.network import DecoderRows, Qwen3ASR, TowerRows
from voxfast.models.qwen3_asr.passes import run_alone
from voxfast.models.qwen3_asr.weights import load_qwen3_asr
from voxfast.nn import serve_layers

OPTIONS: list[dict[str, Any]] = [
    {"language": "en"},
    {},
    {"language": "en", "prompt": "kitchen, door"},
    {"delay_ms": 800, "block_ms": 300},
    {"language": "en", "vocabulary": [("thirty", 10.0), ("opener", 9.0)]},
    {"tuning": voxfast.Qwen3Tuning(n_heads=1, buffer_ms=4000, trim_ms=3000, keep_ms=1000)},
]


@pytest.fixture(scope="module")
def model(qwen_folder: Path) -> Iterator[voxfast.Model]:
    with voxfast.load(qwen_folder, dtype=mx.float32) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clips(eval_items: list[EvalItem]) -> list[np.ndarray]:
    """From 2 to 13 s, and one in which nothing is said."""
    found = [eval_items[number].audio for number in (18, 1, 9, 38, 22, 37, 3)]
    noise = np.random.default_rng(0).normal(0, 1e-3, 32_000).astype(np.float32)
    return [*found, noise]


def opened(model: voxfast.Model, count: int) -> list[voxfast.Session]:
    return [model.session(**OPTIONS[number % len(OPTIONS)]) for number in range(count)]


def in_turn(
    sessions: Sequence[voxfast.Session], clips: Sequence[np.ndarray], size: int
) -> list[list[voxfast.Word]]:
    """Insert a chunk into each, then process each."""
    words: list[list[voxfast.Word]] = [[] for _ in clips]
    for at in range(0, max(map(len, clips)), size):
        for session, audio in zip(sessions, clips, strict=True):
            session.insert(audio[at : at + size])
        for session, found in zip(sessions, words, strict=True):
            found += session.process()
    for session, found in zip(sessions, words, strict=True):
        found += session.finish()
    return words


@pytest.fixture(scope="module")
def alone(model: voxfast.Model, clips: list[np.ndarray]) -> list[list[voxfast.Word]]:
    """In chunks of 1777 samples."""
    sessions = opened(model, len(clips))
    pairs = zip(sessions, clips, strict=True)
    return [in_turn([session], [audio], 1777)[0] for session, audio in pairs]


# ---- a pass -------------------------------------------------------------------------


def packed(qwen_folder: Path, bits: int | None, dtype: mx.Dtype) -> Qwen3ASR:
    model = load_qwen3_asr(qwen_folder, dtype)
    if bits is None:
        return model

    def fits(_: str, module: nn.Module) -> bool:
        return hasattr(module, "to_quantized") and module.weight.shape[-1] % 32 == 0

    for part in (model._tower, model.decoder):
        nn.quantize(part, group_size=32, bits=bits, class_predicate=fits)
        serve_layers(part)
    return model


def equal(a: mx.array, b: mx.array) -> bool:
    return a.shape == b.shape and bool(mx.all(a == b).item())


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [
        (None, mx.float32),
        (None, mx.bfloat16),
        (None, mx.float16),
        (8, mx.bfloat16),
        (4, mx.float32),
    ],
)
def test_a_part_of_a_pass_has_the_bits_that_it_has_alone(
    qwen_folder: Path, bits: int | None, dtype: mx.Dtype
) -> None:
    """Windows and texts of all lengths, at their beginning and behind others."""
    network = packed(qwen_folder, bits, dtype)
    rng = np.random.default_rng(1)
    frames = [[100, 230], [7], [800], [100, 100, 95], [300]]
    mels = [[mx.array(rng.normal(size=(n, 128)).astype("f")) for n in part] for part in frames]
    apart = []
    for number, part in enumerate(mels):
        window = network.window_state()
        apart.append([network.encode([TowerRows(x, window, number == 1)])[0] for x in part])
    windows = [network.window_state() for _ in mels]
    for place in range(3):
        there = [number for number, part in enumerate(mels) if place < len(part)]
        rows = [TowerRows(mels[i][place], windows[i], i == 1) for i in there]
        for i, found in zip(there, network.encode(rows), strict=True):
            assert equal(found, apart[i][place])

    lengths = ((40, 1, 1), (1, 1, 2), (300, 1, 1), (9, 5, 1))
    texts = [[rng.integers(0, 9999, n).tolist() for n in part] for part in lengths]
    layers = [[0], [], [1, 3], [2, 0]]
    single = []
    for text, wanted in zip(texts, layers, strict=True):
        state = network.decoder_state()
        found = [network.decode([DecoderRows([t], state, wanted)]) for t in text]
        single.append(found)
    states = [network.decoder_state() for _ in texts]
    for place in range(3):
        rows = [
            DecoderRows([text[place]], state, wanted)
            for text, state, wanted in zip(texts, states, layers, strict=True)
        ]
        logits, queries = network.decode(rows)
        for i, steps in enumerate(single):
            assert equal(logits[i : i + 1], steps[place][0])
            for ours, theirs in zip(queries[i], steps[place][1][0], strict=True):
                assert equal(ours, theirs)


def test_a_decoder_that_forgets_reads_all_audio_again(qwen_folder: Path) -> None:
    """What it has read last may not be what the stream goes on from."""
    network = load_qwen3_asr(qwen_folder, mx.float32)
    heads: dict[int, list[int]] = {0: [0], 1: [1]}
    first, second = Audio(network.embed(range(30)), 0), Audio(network.embed(range(50, 90)), 0)
    later = Audio(mx.concatenate([first.embeddings, network.embed([7, 8])]), 26)
    once, again = Decoder(network, [1, 2], heads), Decoder(network, [1, 2], heads)
    run_alone(once.read(first, [3]))
    run_alone(again.read(first, [3]))
    run_alone(again.read(second, [3]))
    again.forget()
    assert run_alone(once.read(later, [3])) == run_alone(again.read(later, [3]))


# ---- sessions -----------------------------------------------------------------------


def test_sessions_in_turn_share_passes_and_write_the_words_of_each_alone(
    model: voxfast.Model,
    clips: list[np.ndarray],
    alone: list[list[voxfast.Word]],
    running: list[int],
) -> None:
    """Words, times and probabilities; every session with options of its own."""
    assert in_turn(opened(model, len(clips)), clips, 1777) == alone
    assert max(running) == len(clips)
    assert np.mean(running) > 1.4
    assert [bool(words) for words in alone] == [True] * 7 + [False]


def test_sessions_that_are_processed_in_turn_share_their_first_inference(
    model: voxfast.Model, clips: list[np.ndarray], running: list[int]
) -> None:
    """Each was processed before, when it had too little audio for an inference."""
    sessions = [model.session(language="en") for _ in range(4)]
    for at in range(0, 8000, 1600):
        for session, audio in zip(sessions, clips, strict=False):
            session.insert(audio[at : at + 1600])
        assert not running
        for session in sessions:
            session.process()
    assert running == [4] * len(running)
    for session in sessions:
        session.close()


def test_sessions_of_many_threads(
    model: voxfast.Model, clips: list[np.ndarray], alone: list[list[voxfast.Word]]
) -> None:
    def transcribe(session: voxfast.Session, audio: np.ndarray) -> list[voxfast.Word]:
        words = []
        for at in range(0, len(audio), 1777):
            words += session.feed(audio[at : at + 1777])
        return words + session.finish()

    with ThreadPoolExecutor(len(clips)) as pool:
        assert list(pool.map(transcribe, opened(model, len(clips)), clips)) == alone


def test_half_precision(qwen_folder: Path, clips: list[np.ndarray]) -> None:
    for dtype in (mx.bfloat16, mx.float16):
        with voxfast.load(qwen_folder, dtype=dtype) as loaded:
            sessions = opened(loaded, 4)
            pairs = zip(opened(loaded, 4), clips[:4], strict=True)
            expected = [in_turn([session], [audio], 8000)[0] for session, audio in pairs]
            assert in_turn(sessions, clips[:4], 8000) == expected


def test_sessions_that_come_and_go(
    model: voxfast.Model, clips: list[np.ndarray], alone: list[list[voxfast.Word]]
) -> None:
    """Of live sessions some are closed, some forgotten, and some begin later."""
    sessions: dict[int, voxfast.Session] = {}
    words: list[list[voxfast.Word]] = [[] for _ in clips]
    for tick in range(100):
        for number, audio in enumerate(clips):
            if tick == 3 * number:
                sessions[number] = opened(model, number + 1)[-1]
            if tick == 12 and number == 1:
                sessions[number].close()
            if tick == 14 and number == 2:
                del sessions[number]
            at = 1777 * (tick - 3 * number)
            if number in sessions and at < len(audio) and not (number == 1 and tick >= 12):
                sessions[number].insert(audio[at : at + 1777])
        for number, session in sessions.items():
            if number != 1 or tick < 12:
                words[number] += session.process()
    for number, session in sessions.items():
        if number not in (1, 2):
            rest = clips[number][1777 * (100 - 3 * number) :]
            for at in range(0, len(rest), 1777):
                words[number] += session.feed(rest[at : at + 1777])
            assert words[number] + session.finish() == alone[number]


def test_a_step_is_a_pass_and_none_waits_for_the_end_of_an_inference(
    model: voxfast.Model, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session whose audio comes while another one writes is heard in the next pass."""
    long, late = model.session(language="en"), model.session(language="en")
    long.insert(clips[3])
    asked: list[int] = []
    run_pass = passes.run_pass

    def noting(inferences: Sequence[Any]) -> None:
        asked.append(len(inferences))
        run_pass(inferences)

    monkeypatch.setattr("voxfast.models.qwen3_asr.stream.run_pass", noting)
    long._owner.run(long._apply, 1)
    long._owner.run(long._step)
    late.insert(clips[0])
    with late._draining():
        long._owner.run(long._step)
    assert long._stream.is_busy
    assert late._stream.is_busy
    assert asked == [1, 2]
    assert long.process()
    late.finish()


@pytest.mark.parametrize("end", ["process", "flush"])
@pytest.mark.parametrize("quiet", [1.0, 1e-3])
def test_a_session_hears_what_its_own_calls_give_it(
    model: voxfast.Model,
    clips: list[np.ndarray],
    running: list[int],
    end: str,
    quiet: float,
) -> None:
    """Another one's step drafts its next inference, which holds if nothing else comes first.

    The sound that the draft hears may be so loud that all audio is encoded again.
    """
    audio = clips[3].copy()
    audio[:48_000] *= quiet

    def words(more: int, bystander: voxfast.Session | None = None) -> list[voxfast.Word]:
        found = []
        with model.session(language="en") as session:
            for at in range(0, 48_000, 8000):
                found += session.feed(audio[at : at + 8000])
            session.insert(audio[48_000:64_000])
            if bystander is not None:
                bystander.feed(clips[0])
                assert session.lag == 1
            session.insert(audio[64_000 : 64_000 + more])
            found += session.process() if end == "process" else session.flush()
            assert session.lag == 0 or not more
            return found + session.feed(audio[80_000:]) + session.finish()

    for more in (0, 4000, 16_000):
        running.clear()
        expected = words(more)
        assert set(running) == {1}
        with model.session() as bystander:
            assert words(more, bystander) == expected
        assert max(running) == 2


def test_audio_that_is_ended_before_it_is_processed_is_one_inference(
    model: voxfast.Model, clips: list[np.ndarray]
) -> None:
    """Nothing is drafted in a session that has never processed anything."""
    with model.session(language="en") as session:
        session.insert(clips[3])
        expected = session.finish()
    waiting = model.session(language="en")
    waiting.insert(clips[3])
    with model.session(language="en") as session:
        session.feed(clips[0])
    assert not waiting._stream._decoders
    assert waiting.finish() == expected


def test_an_error_of_one_session_touches_no_other(
    model: voxfast.Model,
    clips: list[np.ndarray],
    alone: list[list[voxfast.Word]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = opened(model, 3)

    def fail(*_: object) -> None:
        raise RuntimeError("a fault in one stream")

    monkeypatch.setattr(sessions[1]._stream, "_timed", fail)
    words: list[list[voxfast.Word]] = [[], [], []]
    for at in range(0, max(map(len, clips[:3])), 1777):
        for session, audio in zip(sessions, clips, strict=False):
            if session._state == "open":
                session.insert(audio[at : at + 1777])
        for number in (0, 2):
            words[number] += sessions[number].process()
        with contextlib.suppress(RuntimeError, voxfast.SessionClosedError):
            sessions[1].process()
    assert str(sessions[1]._stream.error) == "a fault in one stream"
    with pytest.raises(voxfast.SessionClosedError, match="broken"):
        sessions[1].process()
    for number in (0, 2):
        assert words[number] + sessions[number].finish() == alone[number]


def test_what_fails_for_all_reaches_all(
    model: voxfast.Model, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = opened(model, 2)
    for session, audio in zip(sessions, clips, strict=False):
        session.feed(audio[:16000])
        session.insert(audio[16000:])

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(passes, "decode", fail)
        for session in sessions:
            with pytest.raises(MemoryError):
                session.process()
    with model.session() as session:
        assert session.feed(clips[0])


def test_a_session_that_is_closed_or_forgotten_in_an_inference_is_gone(
    model: voxfast.Model, clips: list[np.ndarray]
) -> None:
    sessions = opened(model, 3)
    for session, audio in zip(sessions, clips, strict=False):
        session.insert(audio)
    first = sessions[0]
    first._owner.run(first._apply, 1)
    with sessions[1]._draining(), sessions[2]._draining():
        first._owner.run(first._step)
    assert all(session._stream.is_busy for session in sessions)
    sessions[1].close()
    forgotten = weakref.ref(sessions[2]._stream)
    gc.disable()
    try:
        del sessions[2], session
        assert forgotten() is None
    finally:
        gc.enable()
    first.process()
    assert sessions[1]._stream.is_busy


def test_ops_of_mlx_compute_one_stream_at_a_time(
    model: voxfast.Model, clips: list[np.ndarray], running: list[int]
) -> None:
    with ops.use_native(False):
        sessions = opened(model, 3)
        shared = in_turn(sessions, [clip[:24000] for clip in clips[:3]], 8000)
        pairs = zip(opened(model, 3), clips[:3], strict=True)
        assert shared == [in_turn([one], [audio[:24000]], 8000)[0] for one, audio in pairs]
    assert set(running) == {1}

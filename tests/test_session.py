"""The promises of a session, on the embedded checkpoint and real pipeline."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem

import voxfast
from voxfast import ops
from voxfast.bench.scoring import score
from voxfast.models.traits import read_traits
from voxfast.models.voxtral.network import DecoderRows, Voxtral
from voxfast.models.voxtral.stream import VoxtralStream
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.weights import load_voxtral
from voxfast.timed import Token


@pytest.fixture(scope="module")
def model() -> Iterator[voxfast.Model]:
    with voxfast.load(dtype=mx.float32) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def network(voxtral_folder: Path) -> Voxtral:
    return load_voxtral(voxtral_folder, mx.float32)


@pytest.fixture(scope="module")
def clip(eval_items: list[EvalItem]) -> EvalItem:
    """6 s with pauses, 7 words, all recognised."""
    return next(item for item in eval_items if item.name == "eval_30")


def feed(
    session: voxfast.Session, audio: np.ndarray, chunk: int = 1280, finish: bool = True
) -> list[voxfast.Word]:
    words = []
    for i in range(0, len(audio), chunk):
        words += session.feed(audio[i : i + chunk])
    return words + (session.finish() if finish else [])


def offline(model: voxfast.Model, audio: np.ndarray, **options: int) -> list[voxfast.Word]:
    with model.session(**options) as session:
        return feed(session, audio, len(audio))


def text(words: list[voxfast.Word]) -> str:
    return "".join(word.text for word in words).strip()


def run_stream(
    network: Voxtral,
    folder: Path,
    audio: np.ndarray,
    chunk: int,
    delay_ms: int,
    ends: int = 1,
    **options: int,
) -> tuple[list[Token], list[voxfast.Word]]:
    tokens: list[Token] = []
    stream = VoxtralStream(
        network,
        VoxtralTokenizer(folder / "tekken.json", 1408),
        read_traits(folder),
        delay_ms,
        on_token=tokens.append,
        **options,
    )
    for i in range(0, len(audio), chunk):
        stream.push(audio[i : i + chunk])
        while stream.due:
            stream.step()
    for _ in range(ends):
        stream.end_stream()
        while stream.due:
            stream.step()
    return tokens, stream.words


# ---- 1. chunking never matters ------------------------------------------------------


@pytest.mark.parametrize("delay_ms", [240, 480, 960])
def test_tokens_equal_the_independent_reference(
    network: Voxtral,
    voxtral_folder: Path,
    eval_items: list[EvalItem],
    voxtral_tokens: dict[int, dict[str, list[int]]],
    delay_ms: int,
) -> None:
    for item in eval_items[delay_ms // 240 : 40 : 6]:
        tokens, _ = run_stream(network, voxtral_folder, item.audio, 1280, delay_ms)
        assert [t.position for t in tokens] == list(range(len(tokens)))
        assert [t.id for t in tokens] == voxtral_tokens[delay_ms // 80][item.name], item.name


@pytest.mark.parametrize("block", [1, 5])
def test_a_composed_stream_writes_the_same_tokens(
    network: Voxtral,
    voxtral_folder: Path,
    clip: EvalItem,
    voxtral_tokens: dict[int, dict[str, list[int]]],
    block: int,
) -> None:
    """What GPUs run, in the order of a GPU's steps: with a block, the next one is prepared."""
    with ops.use_native(False):
        tokens, _ = run_stream(network, voxtral_folder, clip.audio, 16000, 480, block=block)
    expected = voxtral_tokens[6][clip.name]
    assert [t.id for t in tokens][: len(expected)] == expected


@pytest.mark.parametrize("chunk", [1, 79, 160, 1279, 1280, 1283, 16000, 10**9])
def test_any_split_gives_the_same_words(model: voxfast.Model, clip: EvalItem, chunk: int) -> None:
    audio = clip.audio[:30000] if chunk == 1 else clip.audio
    with model.session() as session:
        assert feed(session, audio, chunk) == offline(model, audio)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_any_split_gives_the_same_words_in_half_precision(clip: EvalItem, dtype: mx.Dtype) -> None:
    with voxfast.load(dtype=dtype) as half:
        truth = offline(half, clip.audio)
        assert text(truth) == clip.transcript
        for chunk in (997, 16000):
            with half.session() as session:
                assert feed(session, clip.audio, chunk) == truth


@pytest.mark.parametrize("block_ms", [160, 400, 1200])
def test_larger_blocks_give_the_same_text(
    model: voxfast.Model, clip: EvalItem, block_ms: int
) -> None:
    words = offline(model, clip.audio, block_ms=block_ms)
    truth = offline(model, clip.audio)
    assert [(w.text, w.start, w.end) for w in words] == [(w.text, w.start, w.end) for w in truth]


def test_ends_that_are_repeated_add_no_silence(
    network: Voxtral, voxtral_folder: Path, clip: EvalItem
) -> None:
    """``finish`` queues one more whenever it is called again after an interrupt."""
    once = run_stream(network, voxtral_folder, clip.audio, 1280, 480)
    assert run_stream(network, voxtral_folder, clip.audio, 1280, 480, ends=40) == once


# ---- 2. streams are unlimited -------------------------------------------------------


def test_a_stream_that_starts_after_a_month_gives_the_same_tokens(
    network: Voxtral, voxtral_folder: Path, clip: EvalItem
) -> None:
    month = 30 * 24 * 3600 * 1000 // 80
    now, words = run_stream(network, voxtral_folder, clip.audio, 1280, 480)
    later, later_words = run_stream(network, voxtral_folder, clip.audio, 1280, 480, start=month)
    assert [t.id for t in now] == [t.id for t in later]
    assert [w.text for w in words] == [w.text for w in later_words]


def test_end_of_text_does_not_end_a_stream(
    network: Voxtral, voxtral_folder: Path, clip: EvalItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token in mid-stream is replaced by EOS: it is fed back, and words keep coming."""
    from voxfast.models.voxtral import tokens as module

    chosen: list[mx.array] = []
    fed: list[mx.array] = []
    decode = Voxtral.decode

    def with_eos(logits: mx.array) -> tuple[mx.array, mx.array]:
        token, probability = ops.greedy(logits)
        chosen.append(mx.array([2], mx.uint32) if len(chosen) == 12 else token)
        return chosen[-1], probability

    def noting(self: Voxtral, rows: list[DecoderRows]) -> mx.array:
        fed.append(rows[0].tokens)
        return decode(self, rows)

    monkeypatch.setattr(module, "greedy", with_eos)
    monkeypatch.setattr(Voxtral, "decode", noting)
    tokens, words = run_stream(network, voxtral_folder, clip.audio, 1280, 480)
    assert tokens[12].id == 2
    assert fed[13].item() == 2
    assert len(words) >= 5


# ---- 3. committed words, their times ------------------------------------------------


def test_words_and_times_on_the_short_clips(
    model: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    items = eval_items[:40]
    hypotheses = [offline(model, item.audio) for item in items]
    result = score([item.words for item in items], hypotheses)
    assert result.word_error_rate <= 0.03
    assert result.end.mean_absolute <= 0.03
    assert result.start.mean_absolute <= 0.12
    for item, words in zip(items, hypotheses, strict=True):
        assert all(0 <= word.start <= word.end <= item.duration + 0.08 for word in words)
        assert all(0 < (word.probability or 0) <= 1 for word in words)
        starts = [word.start for word in words]
        assert starts == sorted(starts)


def test_pauses_that_are_announced_shift_the_times(model: voxfast.Model, clip: EvalItem) -> None:
    truth = offline(model, clip.audio)
    with model.session() as session:
        session.skip(100.0)
        words = feed(session, clip.audio, finish=False)
        words += session.flush()
        session.skip(1000.0)
        again = feed(session, clip.audio)
    assert [w.text for w in words] == [w.text for w in truth]
    assert [w.end - 100 for w in words] == pytest.approx([w.end for w in truth])
    shift = 1100 + len(clip.audio) / 16000
    assert text(again) == clip.transcript
    assert [w.end - shift for w in again] == pytest.approx([w.end for w in truth], abs=0.081)


def test_flush_brings_out_the_last_words_and_the_stream_goes_on(
    model: voxfast.Model, clip: EvalItem
) -> None:
    audio = clip.audio[: int((clip.words[-1].end + 0.1) * 16000)]
    with model.session() as session:
        words = feed(session, audio, finish=False)
        assert len(words) < len(clip.words)
        words += session.flush()
        assert text(words) == clip.transcript
        assert session.tentative == ""
        assert session.flush() == []
        assert session.heard == pytest.approx(len(audio) / 16000)
        more = feed(session, clip.audio)
    assert text(more) == clip.transcript
    assert more[0].end > words[-1].end


@pytest.mark.parametrize("seconds", [0.02, 0.3, 0.55])
def test_short_utterances_are_decoded(model: voxfast.Model, seconds: float) -> None:
    """Shorter than delay and prompt: nothing may be lost or hang."""
    with model.session() as session:
        assert session.feed(np.zeros(int(seconds * 16000), np.float32)) == []
        assert session.flush() == []
        assert session.finish() == []


def test_a_short_word_alone_is_found(model: voxfast.Model, eval_items: list[EvalItem]) -> None:
    item = eval_items[0]
    [word] = item.words
    audio = item.audio[: int((word.end + 0.02) * 16000)]
    assert text(offline(model, audio)) == item.transcript


def test_finish_after_flush_and_without_audio(model: voxfast.Model, clip: EvalItem) -> None:
    with model.session() as session:
        words = feed(session, clip.audio, finish=False) + session.flush()
        assert text(words) == clip.transcript
        assert session.finish() == []
    with model.session() as session:
        assert session.finish() == []


# ---- 5. nothing is swallowed --------------------------------------------------------


def test_a_rejected_chunk_leaves_the_session_as_it_was(
    model: voxfast.Model, clip: EvalItem
) -> None:
    bad = [
        np.zeros((2, 10), np.float32),
        np.zeros(10, np.float64),
        np.array([0, np.nan], np.float32),
        np.full(5, 3000, np.float32),
    ]
    words = []
    with model.session() as session:
        for i in range(0, len(clip.audio), 16000):
            for chunk in bad:
                with pytest.raises(voxfast.InvalidAudioError):
                    session.feed(chunk)
            with pytest.raises(voxfast.InvalidAudioError):
                session.feed(clip.audio[:10], sample_rate=8000)
            words += session.feed(clip.audio[i : i + 16000])
        words += session.finish()
    assert words == offline(model, clip.audio)


def test_int16_is_the_same_audio(model: voxfast.Model, clip: EvalItem) -> None:
    pcm = np.round(clip.audio * 32768).astype(np.int16)
    assert offline(model, pcm) == offline(model, clip.audio)


def test_use_after_finish_or_close_is_refused(model: voxfast.Model) -> None:
    session = model.session()
    session.finish()
    for call in (session.flush, session.finish, session.process, session.end):
        with pytest.raises(voxfast.SessionClosedError, match="finished"):
            call()
    with pytest.raises(voxfast.SessionClosedError, match="finished"):
        session.feed(np.zeros(10, np.float32))
    with model.session() as closed:
        pass
    with pytest.raises(voxfast.SessionClosedError, match="closed"):
        closed.feed(np.zeros(10, np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay_ms": 100}, "240, 320, 480, 640, 800, 960 ms; got delay_ms=100"),
        ({"language": "de"}, "language='de'"),
        ({"language": 0}, "language must be a code or a name; got 0"),
        ({"prompt": "names"}, "takes no prompt"),
        ({"block_ms": 100}, "multiple of 80"),
        ({"block_ms": 0}, "multiple of 80"),
        ({"delay_ms": 480.0}, "must be an integer, .*; got 480.0"),
        ({"delay_ms": "480"}, "must be an integer, one of 240, .*; got '480'"),
        ({"delay_ms": True}, "must be an integer, .*; got True"),
        ({"delay": 480}, "has no option 'delay'; it has delay_ms, language"),
    ],
)
def test_options_that_the_model_does_not_have(
    model: voxfast.Model, options: dict[str, object], message: str
) -> None:
    with pytest.raises(voxfast.InvalidOptionError, match=message):
        model.session(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("language", [None, "", "auto", "Auto", " AUTO"])
def test_a_language_that_is_to_be_found_out_is_no_option(
    model: voxfast.Model, language: str | None
) -> None:
    with model.session(language=language) as session:
        assert session.language is None


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1"])
def test_impossible_pauses_are_refused(model: voxfast.Model, seconds: object) -> None:
    with model.session() as session, pytest.raises(voxfast.InvalidOptionError, match="pause"):
        session.skip(seconds)  # type: ignore[arg-type]


def test_a_closed_model_says_so() -> None:
    loaded = voxfast.load()
    session = loaded.session()
    loaded.close()
    loaded.close()
    with pytest.raises(voxfast.VoxfastError, match="closed"):
        loaded.session()
    with pytest.raises(voxfast.VoxfastError, match="closed"):
        session.feed(np.zeros(16000, np.float32))


# ---- 6. silence says nothing --------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 1e-4, 0.01, 0.1])
def test_noise_without_speech_gives_no_words(model: voxfast.Model, level: float) -> None:
    noise = np.random.default_rng(0).normal(0, level, 8 * 16000).astype(np.float32)
    assert offline(model, noise) == []


# ---- 7. threads ---------------------------------------------------------------------


def test_a_session_may_change_threads(model: voxfast.Model, clip: EvalItem) -> None:
    words: list[voxfast.Word] = []
    with model.session() as session:
        for i in range(0, len(clip.audio), 4000):
            chunk = clip.audio[i : i + 4000]
            thread = threading.Thread(target=lambda c=chunk: words.extend(session.feed(c)))
            thread.start()
            thread.join()
        with ThreadPoolExecutor(1) as pool:
            words += pool.submit(session.finish).result()
    assert words == offline(model, clip.audio)


def test_sessions_at_once_do_not_see_each_other(
    model: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    items = eval_items[30:34]
    delays = [240, 480, 640, 960]
    truth = [offline(model, i.audio, delay_ms=d) for i, d in zip(items, delays, strict=True)]

    def run(item: EvalItem, delay_ms: int) -> list[voxfast.Word]:
        with model.session(delay_ms=delay_ms) as session:
            return feed(session, item.audio, 3000)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, items, delays)) == truth


# ---- 8. delays ----------------------------------------------------------------------


def test_every_trained_delay_works_and_delays_differ(model: voxfast.Model, clip: EvalItem) -> None:
    commitments = []
    for delay_ms in model.delays_ms:
        with model.session(delay_ms=delay_ms) as session:
            fed, first = 0, None
            for i in range(0, len(clip.audio), 1280):
                words = session.feed(clip.audio[i : i + 1280])
                fed += 1280
                first = fed if words and first is None else first
            session.finish()
        assert first is not None
        commitments.append(first)
    assert commitments == sorted(commitments)
    assert commitments[-1] - commitments[0] >= 0.5 * 16000


# ---- the rest -----------------------------------------------------------------------


def test_transcribe_equals_a_session(model: voxfast.Model, clip: EvalItem) -> None:
    steps: list[tuple[float, float]] = []
    result = voxfast.transcribe(
        clip.path, model=model, progress=lambda done, total: steps.append((done, total))
    )
    assert list(result.words) == offline(model, clip.audio)
    assert result.text == clip.transcript
    assert result.duration == pytest.approx(clip.duration, abs=1e-3)
    assert steps[-1] == pytest.approx((clip.duration, clip.duration), abs=1e-3)
    assert voxfast.transcribe(clip.audio, model=model) == result


def test_lag_counts_what_waits(model: voxfast.Model) -> None:
    with model.session() as session:
        session.insert(np.zeros(32000, np.float32))
        assert session.lag == 2.0
        assert session.processed == 0.0
        session.process()
        assert session.lag < 0.08
        assert session.heard == 2.0
        assert 1.9 < session.processed <= 2.0


def test_the_blank_guard_breaks_a_rut_and_nothing_else(
    model: voxfast.Model, clip: EvalItem, network: Voxtral, voxtral_folder: Path
) -> None:
    guard = voxfast.BlankGuard()
    with model.session(blank_guard=guard) as session:
        assert feed(session, clip.audio) == offline(model, clip.audio)
    silence = np.zeros(20 * 16000, np.float32)
    with model.session(blank_guard=guard) as session:
        assert feed(session, silence) == []
    # With a margin that no lead satisfies, the guard must take the second-best token.
    tokens, _ = run_stream(
        network,
        voxtral_folder,
        silence[:32000],
        1280,
        480,
        guard=voxfast.BlankGuard(longest_run=5, least_margin=1e9),  # type: ignore[arg-type]
    )
    assert [t.id == 32 for t in tokens[:6]] == [True] * 5 + [False]
    tokens, _ = run_stream(network, voxtral_folder, silence[:32000], 1280, 480)
    assert all(t.id == 32 for t in tokens)

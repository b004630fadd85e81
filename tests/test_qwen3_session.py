"""Qwen3-ASR as a live stream: the small checkpoint through the real pipeline."""

import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem, load_qwen_tokens
from mlx_qwen3_asr.audio import compute_features
from mlx_qwen3_asr.generate import GenerationConfig, generate
from mlx_qwen3_asr.load_models import load_model
from mlx_qwen3_asr.tokenizer import Tokenizer

import voxfast
from voxfast import ops
from voxfast._native import _ext
from voxfast.bench.scoring import score
from voxfast.models.qwen3_asr.audio import Audio
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.models.qwen3_asr.passes import Asking, run_alone
from voxfast.models.qwen3_asr.policy import Verdict
from voxfast.models.qwen3_asr.stream import END_PAD, Qwen3Stream
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.qwen3_asr.utterance import Utterance
from voxfast.timed import Token
from voxfast.vad import SpeechEnded

SMALL_BUFFER = voxfast.Qwen3Tuning(buffer_ms=4000, trim_ms=3000, keep_ms=1000)
LONG_PAUSE = voxfast.Qwen3Tuning(pause_ms=10_000)


@pytest.fixture(scope="module")
def model(qwen_folder: Path) -> Iterator[voxfast.Model]:
    with voxfast.load(qwen_folder, dtype=mx.float32) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clips(eval_items: list[EvalItem]) -> dict[str, EvalItem]:
    return {item.name: item for item in eval_items}


def feed(
    session: voxfast.Session, audio: np.ndarray, seconds: float = 0.5, finish: bool = True
) -> list[voxfast.Word]:
    size = int(seconds * 16000)
    words = []
    for i in range(0, len(audio), size):
        words += session.feed(audio[i : i + size])
    return words + (session.finish() if finish else [])


def text(words: Sequence[voxfast.Word]) -> str:
    return "".join(word.text for word in words).strip()


def stream(model: voxfast.Model, audio: np.ndarray, **options: Any) -> list[voxfast.Word]:
    with model.session(**options) as session:
        return feed(session, audio, options.get("block_ms", 500) / 1000)


# ---- accuracy -----------------------------------------------------------------------


@pytest.mark.parametrize("language", ["English", None])
def test_offline_gives_the_tokens_of_the_library(
    model: voxfast.Model,
    qwen_folder: Path,
    eval_items: list[EvalItem],
    monkeypatch: pytest.MonkeyPatch,
    language: str | None,
) -> None:
    """All that is inserted, then the end: what mlx_qwen3_asr writes for the same samples, the
    zeros at the end among them, on every short clip."""
    truth = load_qwen_tokens()[language or "detected"]
    tokenizer = Tokenizer(str(qwen_folder))
    written: list[int] = []
    write = Decoder.write

    def record(self: Decoder, token: int) -> Any:
        written.append(token)
        return write(self, token)

    monkeypatch.setattr(Decoder, "write", record)
    for item in eval_items[language is None : 40 : 1 if language else 3]:
        written.clear()
        with model.session(language=language) as session:
            session.insert(item.audio)
            words = session.finish()
            assert session.language == "English"
        assert written == truth[item.name], item.name
        assert text(words) == tokenizer.decode(written).rpartition(">")[2], item.name


def test_the_tokens_on_file_are_those_of_the_library(
    qwen_folder: Path, clips: dict[str, EvalItem]
) -> None:
    network = load_model(str(qwen_folder), dtype=mx.float32)[0]
    features, lengths = compute_features(np.pad(clips["eval_18"].audio, (0, END_PAD)))
    audio, _ = network.audio_tower(features, lengths)
    prompt = Tokenizer(str(qwen_folder)).build_prompt_tokens(audio.shape[1], None)
    positions = mx.stack([mx.arange(len(prompt))[None]] * 3, axis=1)
    found = generate(network, mx.array([prompt]), audio, positions, GenerationConfig(50))
    assert found == load_qwen_tokens()["detected"]["eval_18"]


@pytest.mark.parametrize("block_ms", [500, 1000])
def test_words_times_and_latency(
    model: voxfast.Model, eval_items: list[EvalItem], block_ms: int
) -> None:
    items = eval_items[(block_ms == 1000) * 3 : 40 : 6]
    found, late = [], []
    for item in items:
        words: list[voxfast.Word] = []
        with model.session(block_ms=block_ms) as session:
            for i in range(0, len(item.audio), 16 * block_ms):
                new = session.feed(item.audio[i : i + 16 * block_ms])
                late += [session.heard - word.end for word in new]
                words += new
            words += session.finish()
        assert all(0 <= word.start <= word.end <= item.duration for word in words)
        assert all(word.end <= after.start for word, after in pairwise(words))
        assert all(word.text.startswith(" ") for word in words)
        assert all(0 < (word.probability or 0) <= 1 for word in words)
        found.append(words)
    result = score([item.words for item in items], found)
    assert result.word_error_rate <= {500: 0.04, 1000: 0.06}[block_ms]  # two words, three
    assert result.start.mean_absolute <= 0.15
    assert result.end.mean_absolute <= 0.15
    assert np.mean(late) <= 0.4 + block_ms / 2000


def test_three_minutes_in_one_session(model: voxfast.Model, eval_items: list[EvalItem]) -> None:
    """The buffer is trimmed at words and pauses; work and memory do not grow."""
    item = eval_items[40]
    words: list[voxfast.Word] = []
    work = [np.zeros(3)]
    with model.session(block_ms=1000) as session:
        inner: Any = session._stream
        for second in range(180):
            words += session.feed(item.audio[16000 * second : 16000 * (second + 1)])
            assert inner._utterances[0].utterance._audio.seconds <= 15
            if second % 60 == 59:
                work.append(np.array(inner.work))
        words += session.finish()
        rings = inner._decoders[0]._state.arrays()
        assert sum(ring.nbytes for ring in rings) <= 4 * 2 * 512 * 2 * 64 * 4
    assert score([item.words], [words]).word_error_rate <= 0.03
    minutes = np.diff(work, axis=0)
    assert minutes[2][0] <= 1.1 * minutes[0][0]
    assert minutes[2][1] <= 1.2 * minutes[0][1]  # what is said in them differs


# ---- work ---------------------------------------------------------------------------


@pytest.mark.parametrize("block_ms", [500, 1000, 730])
def test_what_is_known_is_not_computed_again(
    model: voxfast.Model,
    clips: dict[str, EvalItem],
    monkeypatch: pytest.MonkeyPatch,
    block_ms: int,
) -> None:
    """At most twice the new frames are encoded; of audio and text, twice what is new is read.

    New to the decoder are audio tokens that it has not had, and the text behind the audio,
    whose keys depend on it.
    """
    new = []
    read = Decoder.read

    def count(self: Decoder, audio: Any, tokens: Sequence[int]) -> Any:
        new.append(len(tokens))
        return read(self, audio, tokens)

    monkeypatch.setattr(Decoder, "read", count)
    audio = clips["eval_39"].audio
    passes, rows = model.pass_count.passes, model.pass_count.rows
    with model.session(block_ms=block_ms, language="en") as session:
        feed(session, audio, block_ms / 1000, finish=False)
        inner: Any = session._stream
        n_encoded, n_read, n_written = inner.work
        # Each prediction prepares the next pass, which a token may take up.
        passes, rows = (model.pass_count.passes - passes, model.pass_count.rows - rows)
        assert 2 * len(new) + n_written <= passes <= 2 * (len(new) + n_written)
        assert rows - passes == n_read - len(new)
        assert n_encoded <= 2 * len(audio) / 160
        assert n_read <= 2 * (13 * len(audio) / 16000 + sum(new))
        assert len(new) == len(audio) // (16 * block_ms)
        n_tokens = len(inner._utterances[0].utterance._context())
        assert n_written <= 3 * n_tokens


def test_a_step_that_was_prepared_and_not_taken_leaves_nothing(
    model: voxfast.Model, clips: dict[str, EvalItem]
) -> None:
    with model.session(language="en") as session:
        inner: Any = session._stream
        first = inner._new_decoder()
        network = first._model
        audio = Audio(network.embed(range(20)), 0)
        usual = run_alone(first.read(audio, [1, 2]))
        other = next(token for token in range(3, 9) if token != usual.id)
        steps = [run_alone(first.write(token)) for token in (usual.id, other, other)]
        again = run_alone(first.read(Audio(audio.embeddings, 20), [1, 2]))
        assert again == usual
        second = Decoder(network, first._head, dict(zip(first._layers, first._heads, strict=True)))
        run_alone(second.read(audio, [1, 2, usual.id]))
        second._prepared = None
        for token, expected in ((other, steps[1]), (other, steps[2])):
            found = run_alone(second.write(token))
            second._prepared = None
            assert (found.id, found.position) == (expected.id, expected.position)
            assert found.probability == pytest.approx(expected.probability, rel=1e-4)
        before = _ext.ring_copies()
        for _ in range(5):
            usual = run_alone(first.write(usual.id))
        assert _ext.ring_copies() == before


def test_a_flush_is_one_inference(
    model: voxfast.Model, clips: dict[str, EvalItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    step = Utterance.step

    def count(self: Utterance, *args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Utterance, "step", count)
    item = clips["eval_30"]
    with model.session() as session:
        words = feed(session, item.audio[: 16000 * 5 + 3000], finish=False)
        calls.clear()
        words += session.flush()
        assert len(calls) == 1
        assert session.tentative == ""
        assert session.flush() == []
        assert session.finish() == []
        assert len(calls) == 1
    assert text(words) == item.transcript


def test_a_backlog_longer_than_the_buffer_is_one_utterance(
    model: voxfast.Model, clips: dict[str, EvalItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken in parts, none of which is an end but the last."""
    ends = []
    step = Utterance.step

    def note(self: Utterance, samples: np.ndarray, end: bool = False) -> Any:
        ends.append(end)
        return step(self, samples, end=end)

    monkeypatch.setattr(Utterance, "step", note)
    item = clips["eval_38"]  # 13.3 s
    with model.session() as session:
        session.insert(np.concatenate([item.audio, item.audio]))
        words = session.finish()
    assert len(ends) >= 2
    assert ends == [False] * (len(ends) - 1) + [True]
    assert text(words) == f"{item.transcript} {item.transcript}"


# ---- what was said stays said -------------------------------------------------------


def test_an_utterance_may_begin_with_more_audio(
    model: voxfast.Model, clips: dict[str, EvalItem]
) -> None:
    audio = clips["eval_30"].audio
    tuning = voxfast.Qwen3Tuning(first_ms=2000)
    with model.session(language="en", tuning=tuning) as session:
        session.feed(audio[:31_999])
        assert session.processed == 0
        session.feed(audio[31_999:32_000])
        assert session.processed == 2
        session.feed(audio[32_000:40_000])  # then by blocks
        assert session.processed == 2.5
        session.flush()
        session.feed(audio[40_000:64_000])
        assert session.processed == 2.5
        assert session.flush()  # the end does not wait
        assert session.processed == 4


def test_a_turn_ends_at_once_if_nothing_is_pending(
    model: voxfast.Model,
    clips: dict[str, EvalItem],
    running: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its words are written by then; what comes next is another utterance."""
    silence = np.zeros(24_000, np.float32)
    clip = clips["eval_18"].audio
    audio = np.concatenate([clip, silence, clip, silence])
    ends: list[int] = []  # decoder's passes up to the end of speech, in the call that returned it

    def words() -> list[voxfast.Word]:
        found: list[voxfast.Word] = []
        ends.clear()
        with model.session(language="en", endpoint_ms=1200) as session:
            for at in range(0, len(audio), 1280):
                running.clear()
                session.insert(audio[at : at + 1280])
                events = session.events()
                found += [event for event in events if isinstance(event, voxfast.Word)]
                if any(isinstance(event, SpeechEnded) for event in events):
                    ends.append(len(running))
            found += session.finish()
            assert session.lag == 0
        return found

    at_once = words()
    assert min(ends) == 0
    assert len(ends) == 2
    monkeypatch.setattr(Qwen3Stream, "_is_said", lambda self, silence: False)
    expected = words()
    assert min(ends) > 0
    assert [word.text for word in at_once] == [word.text for word in expected]
    half = len(at_once) // 2
    assert [word.text.strip() for word in at_once[:half]] == [
        word.text.strip() for word in at_once[half:]
    ]


def test_a_replay_never_revises_a_word(
    model: voxfast.Model, clips: dict[str, EvalItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has been committed stands before everything that the model writes later."""
    contexts = []
    context = Utterance._context

    def record(self: Utterance) -> list[int]:
        contexts.append([word.text for word in self._words])
        return context(self)

    monkeypatch.setattr(Utterance, "_context", record)
    audio = clips["eval_37"].audio
    with model.session(block_ms=300, language="en") as session:
        words: list[voxfast.Word] = []
        for i in range(0, len(audio), 4800):
            before = list(words)
            contexts.clear()
            words += session.feed(audio[i : i + 4800])
            assert words[: len(before)] == before
            said = [word.text for word in before]
            assert all(said[len(said) - len(kept) :] == kept for kept in contexts)
        words += session.finish()
    assert len(words) >= 20


@pytest.mark.parametrize("seconds", [0.5, 100])
def test_the_last_word_survives_an_end_right_behind_it(
    model: voxfast.Model, eval_items: list[EvalItem], seconds: float
) -> None:
    for item in eval_items[:20:2]:
        audio = item.audio[: int(16000 * item.words[-1].end)]
        with model.session(language="en") as session:
            words = feed(session, audio, seconds)
            assert session.heard == session.processed == len(audio) / 16000
            assert session.lag == 0
        assert words[-1].text == f" {item.words[-1].text}", item.name
        assert all(word.end <= round(len(audio) / 16000, 3) for word in words)
        assert words[-1].end > item.words[-1].start


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Samples of each inference, and whether an utterance ends with it."""
    steps: list[tuple[int, bool]] = []
    step = Utterance.step

    def note(self: Utterance, samples: np.ndarray, end: bool = False) -> Any:
        steps.append((len(samples), end))
        return step(self, samples, end=end)

    monkeypatch.setattr(Utterance, "step", note)
    return steps


def test_short_audio_is_heard_as_half_a_second(
    model: voxfast.Model, heard: list[tuple[int, bool]]
) -> None:
    """Qwen's own code pads it; its text may not end behind it."""
    for n_samples in (1, 100, 4000, 7999):
        heard.clear()
        with model.session() as session:
            session.insert(np.full(n_samples, 0.01, np.float32))
            session.flush()
            session.flush()
            assert heard == [(n_samples + 8000, True)]
            assert session.heard == session.processed == n_samples / 16000
            assert session.finish() == []
            assert len(heard) == 1
    with model.session() as session:
        assert session.finish() == []
    assert len(heard) == 1


def test_long_recordings_are_cut_at_pauses(
    model: voxfast.Model, clips: dict[str, EvalItem], heard: list[tuple[int, bool]]
) -> None:
    pause = np.random.default_rng(0).normal(0, 1e-4, 12000).astype(np.float32)
    names = ("eval_09", "eval_13", "eval_22", "eval_31", "eval_18")
    audio = np.concatenate([np.concatenate((clips[name].audio, pause)) for name in names])
    short = audio[: 12 * 16000]
    assert len(audio) > len(short)

    def transcribed(samples: np.ndarray, **options: Any) -> tuple[list[voxfast.Word], int]:
        """The words, and the number of utterances."""
        heard.clear()
        found = voxfast.transcribe(samples, model=model, language="en", **options)
        return list(found.words), sum(end for _, end in heard)

    def streamed(samples: np.ndarray, **options: Any) -> list[voxfast.Word]:
        with model.session(language="en", **options) as session:
            session.insert(samples)
            return session.finish()

    assert transcribed(short) == (streamed(short), 1)
    cut, count = transcribed(audio)
    assert cut == streamed(audio, endpoint_ms=500)
    assert count >= len(names)
    assert transcribed(audio, endpoint_ms=None) == (streamed(audio), 1)


@pytest.mark.parametrize("seconds", [3.4, 3.6, 3.99, 4.0, 4.01, 8.2])
def test_no_inference_hears_nothing_but_the_zeros_at_the_end(
    model: voxfast.Model,
    monkeypatch: pytest.MonkeyPatch,
    heard: list[tuple[int, bool]],
    seconds: float,
) -> None:
    monkeypatch.setattr(Utterance, "make_room", lambda self: False)  # a full buffer ends it
    n_samples = int(16000 * seconds)
    with model.session(tuning=SMALL_BUFFER) as session:
        session.insert(np.random.default_rng(0).normal(0, 0.1, n_samples).astype(np.float32))
        session.finish()
    assert sum(size for size, _ in heard) == n_samples + 8000
    assert heard[-1][1]
    assert heard[-1][0] > 8000
    assert all(size or end for size, end in heard)
    assert max(size for size, _ in heard) <= 4.5 * 16000


def test_any_chunks_of_audio_give_the_same_words(
    model: voxfast.Model, clips: dict[str, EvalItem]
) -> None:
    """Inferences fall on other places, words do not."""
    item = clips["eval_18"]
    for seconds in (0.0101, 0.37, 100):
        with model.session() as session:
            assert text(feed(session, item.audio, seconds)) == item.transcript


def test_a_session_does_not_see_another(model: voxfast.Model, clips: dict[str, EvalItem]) -> None:
    items = [clips["eval_18"], clips["eval_30"], clips["eval_22"]]
    alone = [stream(model, item.audio) for item in items]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda item: stream(model, item.audio), items))
    assert together == alone


def test_a_composed_session_gives_the_same_words(
    model: voxfast.Model, clips: dict[str, EvalItem]
) -> None:
    audio = clips["eval_30"].audio
    native = stream(model, audio)
    with ops.use_native(False):
        composed = stream(model, audio)
    assert [(w.text, w.start, w.end) for w in composed] == [
        (w.text, w.start, w.end) for w in native
    ]
    assert len(native) >= 5


def test_half_precision(qwen_folder: Path, clips: dict[str, EvalItem]) -> None:
    with voxfast.load(qwen_folder, dtype=mx.bfloat16) as half:
        assert text(stream(half, clips["eval_22"].audio)) == clips["eval_22"].transcript


def test_a_buffer_that_is_full_of_uncertain_words_ends_the_utterance(
    model: voxfast.Model,
    clips: dict[str, EvalItem],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def never(*args: Any, end: bool = False, **kwargs: Any) -> Verdict:
        return Verdict.KEEP if end else Verdict.BORDER

    monkeypatch.setattr("voxfast.models.qwen3_asr.utterance.judge", never)
    item = clips["eval_38"]  # 13.3 s
    with model.session(block_ms=1000, language="en") as session:
        words = feed(session, np.concatenate([item.audio, item.audio]), 1.0, finish=False)
        assert "full buffer" in caplog.text
        assert words
        words += session.finish()
    truth = item.transcript.split() * 2
    assert abs(len(words) - len(truth)) <= 2  # one may be cut in two


# ---- the clock ----------------------------------------------------------------------


def test_pauses_and_flushes_keep_the_clock(
    model: voxfast.Model, clips: dict[str, EvalItem]
) -> None:
    item = clips["eval_18"]
    truth = [word.start for word in item.words]
    with model.session() as session:
        session.skip(100.0)
        first = feed(session, item.audio, finish=False) + session.flush()
        session.skip(5.0)
        second = feed(session, item.audio)
        assert session.heard == pytest.approx(105 + 2 * item.duration, abs=2e-3)
        assert session.processed == pytest.approx(session.heard)
    assert text(first) == text(second) == item.transcript
    assert [w.start - 100 for w in first] == pytest.approx(truth, abs=0.35)
    shift = 105 + item.duration
    assert [w.start - shift for w in second] == pytest.approx(truth, abs=0.35)


def on_a_thread(call: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def test_the_processor_loses_no_words(model: voxfast.Model, clips: dict[str, EvalItem]) -> None:
    item = clips["eval_22"]
    processor = model.processor(language="en")
    processor.end_silence(0.0, 0)
    words: list[voxfast.Word] = []
    for i in range(0, len(item.audio), 8000):
        processor.insert_audio_chunk(item.audio[i : i + 8000], i / 16000)
        words += on_a_thread(processor.process_iter)[0]
        if i == 24000:
            change = SimpleNamespace(speaker=1, start=1.0)
            words += on_a_thread(lambda: processor.new_speaker(change))[0]  # noqa: B023
    words += on_a_thread(processor.start_silence)[0]
    assert processor.get_buffer().text == ""
    assert text(words) == item.transcript
    processor.end_silence(3.0, words[-1].end)
    assert on_a_thread(processor.finish) == ([], pytest.approx(item.duration + 3, abs=1e-3))


def test_a_word_that_is_written_twice_takes_no_other_with_it(
    model: voxfast.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model may begin with the last committed word once more."""
    written = [[("fourteen", 5), (" fifty", 9)], [(" fifty", 10), (" stop", 14), (" fifty", 18)]]
    with model.session(language="en") as session:
        inner: Any = session._stream
        utterance = inner._new_utterance(inner._new_decoder())

        def decode(self: Utterance, audio: Any, end: bool) -> Asking[Any]:
            yield from ()
            tokens = [
                Token(token, 1.0, frame)
                for word, frame in written.pop(0)
                for token in self._tokenizer.encode(word)
            ]
            return SimpleNamespace(
                tokens=tokens, following=Tokenizer.EOS_TOKEN_IDS[1], is_complete=True
            )

        monkeypatch.setattr(Utterance, "_decode", decode)
        words = [run_alone(utterance.step(np.zeros(16000, np.float32))) for _ in range(2)]
    assert [[word.text for word in step] for step in words] == [
        [" fourteen", " fifty"],
        [" stop", " fifty"],
    ]


# ---- silence, language, options -----------------------------------------------------


def test_silence_says_nothing(model: voxfast.Model) -> None:
    noise = np.random.default_rng(0).standard_normal(80000).astype(np.float32)
    for level in (0.0, 1e-3, 0.1):
        assert stream(model, level * noise, block_ms=1000) == []
    for length in (1, 100, 201, 500, 4000):
        assert stream(model, noise[:length] / 100) == []


def write_this(monkeypatch: pytest.MonkeyPatch, tokenizer: Qwen3ASRTokenizer, raw: str) -> None:
    """Let the model write a text and its end: an audio token each, as far as there is audio.

    The header takes none.
    """
    end = next(iter(tokenizer.ends))
    written = tokenizer.encode(raw)
    tail = tokenizer.prompt()[1]
    header = written.index(tokenizer.asr_text) + 1 if tokenizer.asr_text in written else 0
    place = n_audio = 0

    def predict() -> Token:
        frame = max(place - header, 0)
        is_over = frame >= n_audio or place >= len(written)
        return Token(end if is_over else written[place], 1.0, min(frame, n_audio - 1))

    def read(self: Decoder, audio: Audio, text: Sequence[int]) -> Asking[Token]:
        nonlocal place, n_audio
        yield from ()
        place, n_audio = len(text) - len(tail), len(audio.embeddings)
        # Whatever it wrote before stands before what it writes now.
        assert list(text) == [*tail, *written[:place]]
        return predict()

    def write(self: Decoder, token: int) -> Asking[Token]:
        nonlocal place
        yield from ()
        assert token == written[place]
        place += 1
        return predict()

    monkeypatch.setattr(Decoder, "read", read)
    monkeypatch.setattr(Decoder, "write", write)


@pytest.mark.parametrize("seconds", [0.5, 100])
@pytest.mark.parametrize(
    ("raw", "words", "language"),
    [
        ("language English<asr_text>one two three", "one two three", "English"),
        ("language english<asr_text>one two", "one two", "English"),
        ("Language ENGLISH<asr_text>one two", "one two", "English"),
        (" language English <asr_text>one two", "one two", "English"),
        ("language en<asr_text>one", "one", "English"),
        ("language klingon<asr_text>one", "one", "Klingon"),
        ("language None<asr_text>one two three", "one two three", None),
        ("language none<asr_text>one", "one", None),
        ("language None<asr_text>", "", None),
        ("language None", "", None),
        ("language<asr_text>one", "one", None),
        ("<asr_text>one two", "one two", None),
        ("<asr_text>", "", None),
        ("English<asr_text>one", "one", None),
        ("x\nlanguage German\n<asr_text>one", "one", "German"),
        ("one two three", "one two three", None),
        ("one two three four five six seven eight nine ten eleven twelve thirteen", None, None),
        ("language learning is fun", "language learning is fun", None),
        ("language", "language", None),
        ("今天", "今天", None),
        ("language None<asr_text>今天 two", "今天 two", None),
        ("", "", None),
    ],
)
def test_text_is_told_from_the_language_as_qwen_does(
    model: voxfast.Model,
    qwen_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    raw: str,
    words: str | None,
    language: str | None,
) -> None:
    tokenizer = Qwen3ASRTokenizer(qwen_folder, 151936)
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * 16000).astype(np.float32)
    with model.session(tuning=LONG_PAUSE) as session:
        write_this(monkeypatch, tokenizer, raw)
        found = feed(session, noise, seconds)
        assert session.language == language
    expected = raw if words is None else words
    assert text(found) == expected
    assert all(word.text.strip() for word in found)
    if expected and expected[0].isascii():
        assert found[0].text.startswith(" ")


def test_a_language_that_was_asked_for_stays(
    model: voxfast.Model, qwen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Qwen3ASRTokenizer(qwen_folder, 151936)
    with model.session(language="DEU", tuning=LONG_PAUSE) as session:
        write_this(monkeypatch, tokenizer, "language German<asr_text>eins zwei")
        assert text(feed(session, np.full(64000, 0.1, np.float32))) == "eins zwei"
        assert session.language == "German"


def test_special_tokens_in_a_text_end_nothing(
    model: voxfast.Model, qwen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = "language English<asr_text>thir<asr_text>teen <|audio_start|>two<|im_end|> three"
    with model.session() as session:
        write_this(monkeypatch, Qwen3ASRTokenizer(qwen_folder, 151936), raw)
        session.insert(np.full(32000, 0.1, np.float32))
        assert [word.text for word in session.finish()] == [" thirteen", " two"]


def test_the_language_is_reported(model: voxfast.Model, clips: dict[str, EvalItem]) -> None:
    audio = clips["eval_02"].audio
    assert voxfast.transcribe(audio, model=model).language == "English"
    assert voxfast.transcribe(audio, model=model, language="en").language == "English"
    with model.session() as session:
        assert session.language is None


def test_the_first_word_has_a_space_where_the_language_has(
    model: voxfast.Model, clips: dict[str, EvalItem]
) -> None:
    audio = clips["eval_02"].audio
    assert stream(model, audio, language="de")[0].text.startswith(" ")
    assert not stream(model, audio, language="zh")[0].text.startswith(" ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "xx"}, "language 'xx'"),
        ({"language": 3}, "language must be text"),
        ({"prompt": "<|im_end|>"}, "special tokens"),
        ({"prompt": "1" * 200_000}, "prompt= has 2000[0-9]{2} tokens, and 6[0-9]{4} fit"),
        ({"delay_ms": -1}, "delay_ms must be an integer from 0"),
        ({"delay_ms": 100.0}, "delay_ms must be an integer"),
        ({"block_ms": 0}, "block_ms"),
        (
            {"block_ms": 4_000},
            "one block below buffer_ms; got 6000, 12000, 15000 and blocks of 4000",
        ),
        ({"tuning": {"pause_ms": 3000}}, "tuning must be a voxfast.Qwen3Tuning; got {'pause_ms'"),
        ({"pause_ms": 3000}, r"tuning=voxfast.Qwen3Tuning\(pause_ms=3000\)"),
    ],
)
def test_options_that_cannot_be_are_refused(
    model: voxfast.Model, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(voxfast.VoxfastError, match=message):
        model.session(**options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_heads": 0}, "n_heads must be an integer from 1"),
        ({"min_steps": True}, "min_steps must be an integer"),
        ({"buffer_ms": 60_000}, "buffer_ms must be an integer from 3000 to 30000; got 60000"),
        ({"keep_ms": 12_000}, "trim_ms must be a second above keep_ms"),
        ({"heads_file": Path("nowhere.json")}, "nowhere.json"),
        ({"heads_file": "nowhere.json"}, "nowhere.json"),
        ({"heads_file": 3}, "heads_file must be a path; got 3"),
    ],
)
def test_tuning_that_cannot_be_is_refused(
    model: voxfast.Model, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(voxfast.VoxfastError, match=message):
        model.session(tuning=voxfast.Qwen3Tuning(**fields))


def test_an_unknown_option_is_answered_with_those_there_are(model: voxfast.Model) -> None:
    names = "it has delay_ms, language, prompt, block_ms, tuning$"
    with pytest.raises(voxfast.InvalidOptionError, match=names):
        model.session(speed=3)


def test_a_prompt_is_heard(model: voxfast.Model, clips: dict[str, EvalItem]) -> None:
    item = clips["eval_18"]
    assert text(stream(model, item.audio, prompt="kitchen window")) == item.transcript


def test_without_alignment_heads_it_says_what_to_do(
    qwen_folder: Path, tmp_path: Path, clips: dict[str, EvalItem]
) -> None:
    for path in qwen_folder.iterdir():
        if path.name != "alignment_heads.json":
            shutil.copy(path, tmp_path)
    with voxfast.load(tmp_path, dtype=mx.float32) as headless:
        with pytest.raises(voxfast.InvalidOptionError, match="voxfast align-heads --model"):
            headless.session()
        for tuning in (
            voxfast.Qwen3Tuning(guess_heads=True),
            voxfast.Qwen3Tuning(heads_file=qwen_folder / "alignment_heads.json"),
        ):
            words = stream(headless, clips["eval_18"].audio, tuning=tuning)
            assert text(words) == clips["eval_18"].transcript


def test_bad_audio_is_refused_and_the_session_goes_on(
    model: voxfast.Model, clips: dict[str, EvalItem]
) -> None:
    item = clips["eval_18"]
    with model.session() as session:
        words = session.feed(item.audio[:20000])
        for bad in (np.array([np.nan], np.float32), np.zeros((2, 2), np.float32), [1.0]):
            with pytest.raises(voxfast.InvalidAudioError):
                session.feed(bad)
        with pytest.raises(voxfast.InvalidAudioError):
            session.feed(item.audio, sample_rate=8000)
        words += feed(session, item.audio[20000:])
        with pytest.raises(voxfast.SessionClosedError):
            session.feed(item.audio)
    assert text(words) == item.transcript

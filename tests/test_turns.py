"""Turns: what a stream gets to hear of audio with pauses, and the events of a session."""

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from evaluation import QWEN_FOLDER, load_eval_items
from numpy.typing import NDArray

import voxfast
from voxfast import InvalidOptionError, Segment, Word
from voxfast.audio import SAMPLE_RATE
from voxfast.bench.scoring import word_errors
from voxfast.online.listener import KEPT, Listener
from voxfast.online.turns import Turns
from voxfast.vad import SpeechEnded, SpeechStarted

FRAME = 512
Samples = NDArray[np.float32]


class LoudFrames:
    """A detector to which a frame with a sample of 1 is speech."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._tail = np.zeros(0, np.float32)

    def step(self, samples: object) -> Samples:
        audio = np.concatenate((self._tail, samples))
        whole = len(audio) // FRAME * FRAME
        self._tail = audio[whole:]
        return audio[:whole].reshape(-1, FRAME).max(1)

    def finish(self) -> Samples:
        return self._tail.max(initial=0, keepdims=True) if len(self._tail) else self._tail


class Ledger:
    """A stream that writes down what it is given: samples, pauses (in samples), ends."""

    settling = 0.7

    def __init__(self) -> None:
        self.given: list[tuple[str, int]] = []
        self.samples: list[Samples] = []
        self.heard = 0.0

    def push(self, samples: Samples) -> None:
        self.samples.append(samples)
        self._note("push", len(samples))

    def skip(self, seconds: float) -> None:
        self._note("skip", round(seconds * SAMPLE_RATE))

    def end_utterance(self, silence: float = 0.0) -> None:
        self.silence = silence
        self.given.append(("end", 0))

    def end_stream(self) -> None:
        self.given.append(("finish", 0))

    def _note(self, kind: str, count: int) -> None:
        self.heard += count / SAMPLE_RATE
        if self.given and self.given[-1][0] == kind:
            count += self.given.pop()[1]
        if count:
            self.given.append((kind, count))


def frames(pattern: str) -> Samples:
    """Audio with a frame for each sign: "#" speech, "." silence; every sample tells its place."""
    loud = np.repeat([sign == "#" for sign in pattern], FRAME)
    place = np.arange(len(loud)) / 2**20
    return np.where(loud, 1.0, place).astype(np.float32)


def listened(
    audio: Samples, sizes: Iterator[int], *, endpoint_ms: float | None = 96, skip: bool = False
) -> tuple[Ledger, Listener]:
    ledger = Ledger()
    listener = Listener(ledger, endpoint_ms=endpoint_ms, skip_silence=skip, detector=LoudFrames())  # type: ignore[arg-type]
    at = 0
    while at < len(audio):
        size = next(sizes)
        listener.push(audio[at : at + size])
        at += size
        inserted = min(at, len(audio)) / SAMPLE_RATE
        assert ledger.heard + listener.unheard == pytest.approx(inserted)
    listener.end_stream()
    return ledger, listener


def constant(size: int) -> Iterator[int]:
    while True:
        yield size


def test_a_pause_ends_the_utterance_where_it_is_long_enough() -> None:
    audio = frames("..######....####..####...")
    ledger, listener = listened(audio, constant(1280))
    # Three frames of silence after frame 8 and after frame 22.
    assert ledger.given == [
        ("push", 11 * FRAME), ("end", 0), ("push", 14 * FRAME), ("end", 0), ("finish", 0),
    ]  # fmt: skip
    times = [round(event.time * SAMPLE_RATE / FRAME) for event in listener.events]
    assert [type(event) for event in listener.events] == [SpeechStarted, SpeechEnded] * 2
    assert times == [0, 11, 11, 25]  # with padding of four frames, never beyond what was heard
    assert ledger.silence == 0  # of 96 ms, 100 may be the end of a word


def test_the_stream_is_told_how_much_silence_it_has_heard() -> None:
    ledger, _ = listened(frames("######" + "." * 40), constant(1280), endpoint_ms=800)
    assert ledger.silence == pytest.approx(0.7)


def test_without_an_endpoint_a_pause_is_as_long_as_the_stream_needs() -> None:
    ledger, _ = listened(frames("######" + "." * 40), constant(100), endpoint_ms=None, skip=True)
    assert ledger.given.count(("end", 0)) == 1
    assert ledger.silence == pytest.approx(Ledger.settling)


@pytest.mark.parametrize("delay_ms", [240, 480, 960])
def test_a_settled_stream_is_not_padded(delay_ms: int) -> None:
    """In padding, a model may write a word that nobody said."""
    position = 1280
    with voxfast.load("voxtral-numbers") as model, model.session(delay_ms=delay_ms) as session:
        stream: Any = session._stream
        listener = Listener(stream, endpoint_ms=None, skip_silence=True, detector=LoudFrames())
        put, push = [], stream.push
        stream.push = lambda samples: (put.append(len(samples)), push(samples))
        listener.push(frames("######" + "." * 80))
        assert stream._last_end == stream._clock.model_samples  # the utterance has ended
        assert 0 <= stream._clock.model_samples - sum(put) < position
        stream.push(np.zeros(40 * position + 7, np.float32))
        before = stream._clock.model_samples
        stream.end_utterance(stream.settling - 0.08)
        assert stream._clock.model_samples == before - before % -position + position


def test_silence_is_not_given_to_the_stream() -> None:
    quiet = 40
    audio = frames("." * quiet + "#" * 8 + "." * quiet + "#" * 8 + "." * 20)
    ledger, _ = listened(audio, constant(777), skip=True)
    # What was kept when the first frame of speech was there is heard, though it is certain later.
    before = KEPT - FRAME
    heard = before + (8 + 3) * FRAME
    skipped = quiet * FRAME - before
    assert ledger.given == [
        ("skip", skipped), ("push", heard), ("end", 0),
        ("skip", skipped - 3 * FRAME), ("push", heard), ("end", 0),
        ("skip", 17 * FRAME), ("finish", 0),
    ]  # fmt: skip
    # What is heard is the audio at its place.
    first = np.concatenate(ledger.samples)[0]
    assert first == audio[skipped]


def test_speech_too_short_to_be_announced_is_heard_at_the_end() -> None:
    """A word that the stream's end cuts short must not be lost."""
    ledger, listener = listened(frames("." * 40 + "##"), constant(1000), skip=True)
    assert ledger.given[-2][0] == "push"
    assert ledger.given[-1] == ("finish", 0)
    assert np.concatenate(ledger.samples)[-1] == 1
    assert listener.events == []


def test_what_was_kept_stays_while_speech_is_in_doubt() -> None:
    audio = frames("." * 60 + "#" * 14)
    audio[60 * FRAME : 66 * FRAME] = 0.5  # that count 0.23 each, so that all are not enough
    ledger, _ = listened(audio, constant(777), skip=True)
    assert sum(map(len, ledger.samples)) == KEPT - FRAME + 14 * FRAME
    assert ledger.heard == pytest.approx(len(audio) / SAMPLE_RATE)


def test_doubt_that_never_ends_keeps_a_few_seconds() -> None:
    audio = np.full(100 * SAMPLE_RATE, 0.3501, np.float32)  # just above the release
    audio[: 61 * FRAME] = frames("." * 60 + "#")
    ledger = Ledger()
    listener = Listener(ledger, endpoint_ms=96, skip_silence=True, detector=LoudFrames())  # type: ignore[arg-type]
    listener.push(audio)
    assert ledger.samples == []
    assert listener._n_kept == 4 * KEPT


def test_noise_between_is_skipped() -> None:
    ledger, listener = listened(frames("." * 20 + "##" + "." * 60), constant(512), skip=True)
    assert ledger.given == [("skip", 82 * FRAME), ("finish", 0)]
    assert listener.events == []


def test_an_announced_pause_ends_speech() -> None:
    ledger = Ledger()
    listener = Listener(ledger, endpoint_ms=500, skip_silence=True, detector=LoudFrames())  # type: ignore[arg-type]
    listener.push(frames("######")[:-7])
    listener.skip(2.0)
    listener.push(frames("######"))
    listener.end_stream()
    first = 6 * FRAME - 7
    assert ledger.given == [
        ("push", first), ("end", 0), ("skip", 2 * SAMPLE_RATE), ("push", 6 * FRAME), ("end", 0),
        ("finish", 0),
    ]  # fmt: skip
    starts = [event.time for event in listener.events[::2]]
    assert starts == pytest.approx([0.0, first / SAMPLE_RATE + 2])


def test_a_flush_in_doubtful_speech_hears_it_and_silence_is_skipped_again() -> None:
    ledger = Ledger()
    listener = Listener(ledger, endpoint_ms=96, skip_silence=True, detector=LoudFrames())  # type: ignore[arg-type]
    listener.push(frames(".##"))
    listener.end_utterance()
    assert ledger.given == [("push", 3 * FRAME), ("end", 0)]
    listener.push(frames("." * 50))
    listener.end_stream()
    # Until the pause is long enough it is heard.
    assert ledger.given[2:] == [("push", 3 * FRAME), ("skip", 47 * FRAME), ("finish", 0)]


def test_chunks_do_not_matter() -> None:
    """Random patterns in random chunks: the stream hears the same, and nothing is lost."""
    rng = random.Random(3)
    for _ in range(60):
        pattern = "".join(rng.choice("#.") * rng.randint(1, 30) for _ in range(rng.randint(0, 12)))
        audio = frames(pattern)[: -rng.randint(1, 500)]
        options = {"endpoint_ms": rng.choice([None, 32, 100, 400]), "skip": rng.random() < 0.6}
        whole, one = listened(audio, constant(10**9), **options)  # type: ignore[arg-type]
        sizes = iter(lambda: rng.choice([1, 100, 511, 512, 513, 1280, 5000]), None)
        parts, other = listened(audio, sizes, **options)  # type: ignore[arg-type]
        assert parts.given == whole.given
        assert other.events == one.events
        assert parts.heard == pytest.approx(len(audio) / SAMPLE_RATE)
        heard = sum(map(len, parts.samples)) / SAMPLE_RATE
        assert other.skipped == one.skipped == pytest.approx(len(audio) / SAMPLE_RATE - heard)
        if not options["skip"]:
            np.testing.assert_array_equal(np.concatenate([*parts.samples, audio[:0]]), audio)


@pytest.mark.parametrize("endpoint_ms", [0, -5, float("nan"), float("inf")])
def test_endpoints_are_checked(endpoint_ms: float) -> None:
    with pytest.raises(InvalidOptionError):
        Listener(Ledger(), endpoint_ms=endpoint_ms, skip_silence=False)  # type: ignore[arg-type]


# Events.


def test_events_are_in_the_order_of_the_stream() -> None:
    turns = Turns()
    one, two, three = Word(" One.", 0.9, 1.2), Word(" Two", 1.2, 1.5), Word(" three", 4.0, 4.5)
    started, ended, again = SpeechStarted(1.0), SpeechEnded(2.0), SpeechStarted(3.9)
    # The first word seems to start before the speech; three belongs to the next turn.
    found = turns.step([one, two, three], [started, ended, again], "English")
    assert found == [
        started, one, Segment((one,), "English"), two, Segment((two,), "English"), ended, again,
        three,
    ]  # fmt: skip
    assert turns.step([], [SpeechEnded(5.0)], "English") == [
        Segment((three,), "English"),
        SpeechEnded(5.0),
    ]
    assert turns.step([], [], None, finish=True) == []


def test_segments_end_with_sentences_pauses_and_the_stream() -> None:
    turns = Turns()
    words = [Word(" a", 0, 0.5), Word(" bees.", 0.5, 1), Word(" c", 1, 1.5), Word(" d", 4, 4.5)]
    found: list[object] = []
    for word in words:
        found += turns.step([word], [], None)
    found += turns.step([], [], None, finish=True)
    segments = [event for event in found if isinstance(event, Segment)]
    assert [segment.text for segment in segments] == ["a bees.", "c", "d"]
    assert [event for event in found if isinstance(event, Word)] == words


@pytest.fixture(scope="module")
def model() -> Iterator[voxfast.Model]:
    with voxfast.load() as loaded:
        yield loaded


def talk(pause: float, count: int = 3) -> tuple[Samples, list[tuple[float, float]], str]:
    """Evaluation clips with silence behind each, in seconds: where words are, and which."""
    parts, spans, texts, at = [], [], [], 0.0
    for item in [item for item in load_eval_items() if item.words][4 : 4 + count]:
        quiet = np.zeros(int(pause * SAMPLE_RATE), np.float32)
        parts += [item.audio, quiet]
        texts.append(item.transcript)
        spans.append((at + item.words[0].start, at + item.words[-1].end))
        at += (len(item.audio) + len(quiet)) / SAMPLE_RATE
    return np.concatenate(parts), spans, " ".join(texts)


def all_events(session: voxfast.Session, audio: Samples, chunk: int) -> list[object]:
    events: list[object] = []
    for start in range(0, len(audio), chunk):
        session.insert(audio[start : start + chunk])
        events += session.events()
    return events + list(session.events(finish=True))


@pytest.mark.parametrize("skip_silence", [False, True])
def test_turns_of_a_session(model: voxfast.Model, skip_silence: bool) -> None:
    audio, spans, said = talk(2.0)
    with model.session(endpoint_ms=500, skip_silence=skip_silence) as session:
        events = all_events(session, audio, 1280)
        assert session.heard == pytest.approx(len(audio) / SAMPLE_RATE)
    speech = [event for event in events if isinstance(event, SpeechStarted | SpeechEnded)]
    assert [type(event) for event in speech] == [SpeechStarted, SpeechEnded] * len(spans)
    for (started, ended), (first, last) in zip(
        zip(speech[::2], speech[1::2], strict=True), spans, strict=True
    ):
        assert started.time <= first + 0.05
        assert last - 0.05 <= ended.time <= last + 0.5
    # All words of a turn are there when its end is told.
    inside: list[list[Word]] = [[]]
    for event in events:
        if isinstance(event, SpeechStarted):
            inside.append([])
        elif isinstance(event, Word):
            inside[-1].append(event)
    assert inside[0] == []
    found = "".join(word.text for turn in inside for word in turn)
    # Silence that is left out may change a doubtful word.
    errors, count = word_errors(said, found)
    assert errors <= 1 < count
    for turn, (first, last) in zip(inside[1:], spans, strict=True):
        assert abs(turn[0].start - first) < 0.3
        assert abs(turn[-1].end - last) < 0.2
    texts = [event.text for event in events if isinstance(event, Segment)]
    assert " ".join(texts) == found.strip()


def test_events_do_not_depend_on_chunks(model: voxfast.Model) -> None:
    audio, _, _ = talk(1.5, 2)
    found = []
    for chunk in (160, 4999, len(audio)):
        with model.session(endpoint_ms=300, skip_silence=True) as session:
            found.append([e for e in all_events(session, audio, chunk) if isinstance(e, Word)])
    for one, other in pairwise(found):
        assert one == other


def test_silence_and_noise_are_skipped(model: voxfast.Model) -> None:
    rng = np.random.default_rng(0)
    noise = (0.05 * rng.standard_normal(20 * SAMPLE_RATE)).astype(np.float32)
    with model.session(skip_silence=True) as session:
        assert session.feed(noise) == []
        assert session.processed < 1
        assert session.skipped == pytest.approx(20 - KEPT / SAMPLE_RATE, abs=0.05)
        assert session.finish() == []
        assert session.skipped == 20
        assert session.heard == pytest.approx(20)
    assert voxfast.transcribe(noise, model=model, skip_silence=True).skipped == 20
    assert voxfast.transcribe(noise, model=model).skipped == 0


@pytest.mark.parametrize("name", ["voxtral-numbers", "qwen3-asr-numbers"])
def test_ends_that_are_queued_together_are_kept_apart(name: str) -> None:
    """As when a long piece of audio with several turns is inserted at once."""
    parts = [item.audio for item in load_eval_items() if item.words][5:8]

    def words(together: bool) -> list[Word]:
        stream = loaded._loaded.stream(language="en") if qwen else loaded._loaded.stream()
        for part in parts:
            stream.push(part)
            stream.end_utterance()
            while stream.due and not together:
                stream.step()
        while stream.due:
            stream.step()
        return list(stream.words)

    qwen = name != "voxtral-numbers"
    with voxfast.load(QWEN_FOLDER if qwen else name) as loaded:
        apart, at_once = (loaded._owner.run(words, together) for together in (False, True))
    assert at_once == apart
    assert len(apart) > 5


def words_of(events: Sequence[object]) -> list[str]:
    return [event.text for event in events if isinstance(event, Word)]


def test_events_without_listening_are_words_and_segments(model: voxfast.Model) -> None:
    audio, _, _ = talk(2.0, 2)
    with model.session() as session:
        events = all_events(session, audio, 5000)
    assert {type(event) for event in events} == {Word, Segment}
    assert "".join(words_of(events)).strip() == voxfast.transcribe(audio, model=model).text


def test_a_session_refuses_an_endpoint_of_nothing(model: voxfast.Model) -> None:
    with pytest.raises(InvalidOptionError, match="endpoint_ms"):
        model.session(endpoint_ms=0)

"""Voice detection: probabilities as ONNX Runtime's, any chunking the same, spans as documented."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from evaluation import DATA_FOLDER, load_eval_items
from numpy.typing import NDArray
from sweeps import run_sweep
from vad_reference import reference

from voxfast import InvalidAudioError, InvalidOptionError
from voxfast._native import _ext
from voxfast.audio import load_audio
from voxfast.vad import (
    FRAME_SECONDS,
    SpeechEnded,
    SpeechSpan,
    SpeechSpans,
    SpeechStarted,
    VoiceDetector,
    find_speech,
)
from voxfast.vad.detector import load_layers

FRAME = 512
with np.load(DATA_FOLDER / "vad.npz") as arrays:  # of tools/silero_vad.py
    REFERENCE: dict[str, NDArray[np.float32]] = {name: arrays[name] for name in arrays.files}


def recording(name: str) -> NDArray[np.float32]:
    return load_audio(DATA_FOLDER / name)


@pytest.mark.parametrize("name", REFERENCE)
def test_probabilities_are_those_of_onnx_runtime(name: str) -> None:
    found = VoiceDetector().step(recording(name))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, REFERENCE[name], rtol=0, atol=1e-4)
    assert REFERENCE[name].max() > 0.9


@pytest.mark.parametrize("isa", _ext.available_isas())
def test_probabilities_are_those_of_float64(isa: str) -> None:
    assert run_sweep("vad_reference", VOXFAST_ISA=isa)[0] == isa


def test_speech_has_the_probabilities_of_float64() -> None:
    audio = recording("real/7902-96591-0000.flac")[: 60 * FRAME]
    np.testing.assert_allclose(VoiceDetector().step(audio), reference(audio), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": np.zeros(100, np.float32)}, "samples must have 1088 numbers; got 100"),
        ({"hidden": np.zeros(127, np.float32)}, "hidden must have 128 numbers; got 127"),
        ({"cell": np.zeros(0, np.float32)}, "cell must have 128 numbers; got 0"),
    ],
)
def test_the_native_function_checks_sizes(changes: dict[str, Any], message: str) -> None:
    network = _ext.VoiceNetwork.make(*load_layers())
    arguments = {"samples": np.zeros(1088, np.float32), "probabilities": np.zeros(2, np.float32)}
    state = {name: np.zeros(128, np.float32) for name in ("hidden", "cell")}
    with pytest.raises(ValueError, match=message):
        network.run(**{**arguments, **state, **changes})


def test_weights_of_other_sizes_are_refused() -> None:
    layers, output, bias = load_layers()
    with pytest.raises(ValueError, match="there must be 5 layers; got 4"):
        _ext.VoiceNetwork.make(layers[:4], output, bias)
    with pytest.raises(ValueError, match=r"layer 0 must be \[128, 387\]; got \[64, 384\]"):
        _ext.VoiceNetwork.make([layers[1], *layers[1:]], output, bias)
    with pytest.raises(ValueError, match="output must have 128 numbers; got 3"):
        _ext.VoiceNetwork.make(layers, output[:3], bias)


@pytest.mark.parametrize("chunk", [1, 63, 64, 160, 511, 512, 513, 1280, 7001])
def test_chunks_do_not_matter(chunk: int) -> None:
    audio = recording("real/7902-96591-0000.flac")[: 40 * FRAME + 77]
    whole = VoiceDetector()
    expected = np.concatenate((whole.step(audio), whole.finish()))
    detector = VoiceDetector()
    parts = [detector.step(audio[i : i + chunk]) for i in range(0, len(audio), chunk)]
    found = np.concatenate((*parts, detector.finish()))
    assert len(found) == 41
    np.testing.assert_array_equal(found, expected)  # bit for bit


@pytest.mark.parametrize("level", [1.0, 16.0])
def test_the_loudest_audio_overflows_nothing(level: float) -> None:
    """Warnings are errors here: a user who turns them into errors hears of none."""
    square = np.where(np.arange(40 * FRAME) // 40 % 2, level, -level).astype(np.float32)
    noise = level * np.random.default_rng(2).choice([-1, 1], 40 * FRAME).astype(np.float32)
    for audio in (square, noise):
        found = VoiceDetector().step(audio)
        assert ((found >= 0) & (found <= 1)).all()


def test_streams_are_apart_and_a_reset_begins_anew() -> None:
    audio = recording("real/7902-96591-0000.flac")
    one, other = VoiceDetector(), VoiceDetector()
    first = one.step(audio)
    other.step(audio[::-1])
    np.testing.assert_array_equal(other.step(audio[:0]), [])
    other.reset()
    np.testing.assert_array_equal(other.step(audio), first)


def test_a_rejected_chunk_changes_nothing() -> None:
    audio = recording("real/7902-96591-0000.flac")
    expected = VoiceDetector().step(audio)
    detector = VoiceDetector()
    found = [detector.step(audio[:1000])]
    for bad in (np.array([np.nan], np.float32), np.zeros((2, 2), np.float32), [0.0], None):
        with pytest.raises(InvalidAudioError):
            detector.step(bad)
    found.append(detector.step(audio[1000:]))
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_integers_are_heard_as_floats() -> None:
    audio = recording("real/7902-96591-0000.flac")
    integers = (audio * 32768).astype(np.int16)
    np.testing.assert_array_equal(
        VoiceDetector().step(integers),
        VoiceDetector().step(integers.astype(np.float32) / np.float32(32768)),
    )


@pytest.mark.parametrize("level", [0.0, 1e-4, 0.03, 0.3])
def test_silence_and_noise_are_no_speech(level: float) -> None:
    noise = level * np.random.default_rng(1).standard_normal(16000 * 20)
    assert find_speech(noise.clip(-1, 1).astype(np.float32)) == []


def test_words_of_the_evaluation_clips_are_in_the_spans() -> None:
    """Held-out clips with true word times: what the spans, padding included, leave out."""
    words = missed = 0
    for item in load_eval_items()[:40]:
        spans = find_speech(item.audio)
        for word in item.words:
            words += 1
            missed += not any(a <= word.start + 0.05 and word.end - 0.05 <= b for a, b in spans)
    assert missed <= words * 0.02


# Spans, in frames.

SPOKEN, UNSURE, QUIET = 0.9, 0.4, 0.1


def options(least: int = 1, pause: int = 1, padding: int = 0) -> dict[str, float]:
    """Of SpeechSpans, in frames."""
    names = ("least_speech_ms", "pause_ms", "padding_ms")
    values = (1000 * FRAME_SECONDS * frames for frames in (least, pause, padding))
    return dict(zip(names, values, strict=True))


def spans_of(pattern: str, **given: int) -> list[tuple[int, int]]:
    """First frame and the one after the last, of "#" (speech), "?" (unsure) and "." (quiet)."""
    values = {"#": SPOKEN, "?": UNSURE, ".": QUIET}
    spans = SpeechSpans(**options(**given))
    events = [*spans.step(values[sign] for sign in pattern), *spans.finish()]
    frames = [round(event.time / FRAME_SECONDS) for event in events]
    assert [type(event) for event in events] == [SpeechStarted, SpeechEnded] * (len(events) // 2)
    return list(zip(frames[::2], frames[1::2], strict=True))


@pytest.mark.parametrize(
    ("pattern", "given", "expected"),
    [
        ("..##..", {}, [(2, 4)]),
        ("......", {}, []),
        ("", {}, []),
        ("..##", {}, [(2, 4)]),  # ends with the stream
        ("..??##..", {}, [(4, 6)]),  # unsure frames do not begin speech
        ("..##??#.", {}, [(2, 7)]),  # but they do not end it
        (".#.##.", {"least": 2}, [(3, 5)]),  # too short to be speech
        (".#.#...", {"least": 2, "pause": 2}, [(1, 4)]),
        (".##..##...", {"pause": 3}, [(1, 7)]),  # a pause too short to end it
        (".##..##...", {"pause": 2}, [(1, 3), (5, 7)]),
        ("...##....", {"padding": 2, "pause": 3}, [(1, 7)]),
        ("#....", {"padding": 2, "pause": 3}, [(0, 3)]),  # nothing before the stream
        # The span before takes its padding first.
        (".#....#.....", {"padding": 3, "pause": 4}, [(0, 5), (5, 10)]),
        (".#", {"padding": 3}, [(0, 2)]),  # nothing behind it
    ],
)
def test_spans(pattern: str, given: dict[str, int], expected: list[tuple[int, int]]) -> None:
    assert spans_of(pattern, **given) == expected


@pytest.mark.parametrize(
    ("probability", "frames"),
    # Of 4 frames, 0.8 must be certain: 3.2. Above the release of 0.35, 0.55 counts 0.31 each.
    [(1.0, 4), (0.8, 5), (0.55, 11), (0.5, 14)],
)
def test_speech_in_doubt_takes_longer(probability: float, frames: int) -> None:
    spans = SpeechSpans(**options(least=4, pause=3))
    assert spans.step([probability] * (frames - 1)) == []
    assert spans.step([probability]) == [SpeechStarted(0.0)]
    assert spans.step([0.0] * 3) == [SpeechEnded(frames * FRAME_SECONDS)]
    # What was in doubt before does not count.
    assert spans.step([*([probability] * (frames - 1)), 0.0, 0.0, 0.0] * 3) == []


def test_a_release_of_one() -> None:
    spans = SpeechSpans(threshold=1.0, release=1.0, **options(least=2, pause=1))
    assert spans.step([0.999, 0.999, 1.0, 1.0]) == [SpeechStarted(2 * FRAME_SECONDS)]


def test_spans_hold_their_promises() -> None:
    """Random streams: order, no overlap, lengths, and what was announced stays."""
    rng = random.Random(5)
    for _ in range(500):
        least, pause, padding = rng.randint(1, 4), rng.randint(1, 6), rng.randint(0, 5)
        given = options(least, pause, padding)
        values = [rng.choice((SPOKEN, UNSURE, QUIET)) for _ in range(rng.randint(0, 60))]
        whole = SpeechSpans(**given)
        events = [*whole.step(values), *whole.finish()]
        assert not whole.speaking
        parts = SpeechSpans(**given)
        alone: list[SpeechStarted | SpeechEnded] = []
        for value in values:
            alone += parts.step([value])
            for event in alone:
                assert event.time <= parts.time + 1e-9  # nothing about the future
        assert [*alone, *parts.finish()] == events
        times = [event.time for event in events]
        assert times == sorted(times)
        covered = covered_frames(events, len(values))
        first = 0
        for value, run in itertools.groupby(values):
            after = first + len(list(run))
            if value == SPOKEN and after - first >= least:
                assert covered.issuperset(range(first, after))
            first = after


def covered_frames(events: Sequence[SpeechStarted | SpeechEnded], frames: int) -> set[int]:
    covered: set[int] = set()
    for started, ended in zip(events[::2], events[1::2], strict=True):
        first, after = round(started.time / FRAME_SECONDS), round(ended.time / FRAME_SECONDS)
        assert 0 <= first < after <= frames
        assert not covered & set(range(first, after))
        covered |= set(range(first, after))
    return covered


@pytest.mark.parametrize(
    "bad",
    [
        {"threshold": 1.5},
        {"threshold": -0.1},
        {"threshold": float("nan")},
        {"threshold": 0.3, "release": 0.4},
        {"release": -1.0},
        {"least_speech_ms": -1},
        {"pause_ms": float("inf")},
        {"padding_ms": float("nan")},
    ],
)
def test_options_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidOptionError):
        SpeechSpans(**bad)


def test_find_speech_is_what_the_stream_finds() -> None:
    audio = recording("real/jfk.wav")
    detector, spans = VoiceDetector(), SpeechSpans(pause_ms=200)
    events: list[SpeechStarted | SpeechEnded] = []
    for start in range(0, len(audio), 1280):
        events += spans.step(detector.step(audio[start : start + 1280]))
    events += [*spans.step(detector.finish()), *spans.finish()]
    expected = [SpeechSpan(a.time, b.time) for a, b in zip(events[::2], events[1::2], strict=True)]
    assert find_speech(audio, pause_ms=200) == expected
    assert len(expected) >= 3

"""The processor, driven in the order in which WhisperLiveKit drives a backend."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem

import voxfast


@pytest.fixture(scope="module")
def model() -> Iterator[voxfast.Model]:
    with voxfast.load(dtype=mx.float32) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clip(eval_items: list[EvalItem]) -> EvalItem:
    return next(item for item in eval_items if item.name == "eval_18")


def on_a_thread(call):  # type: ignore[no-untyped-def]
    """WhisperLiveKit's workers change from call to call."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    assert found, "the call raised"
    return found[0]


def feed(processor: voxfast.OnlineProcessor, audio: np.ndarray, start: float) -> list[voxfast.Word]:
    words: list[voxfast.Word] = []
    last = start
    for i in range(0, len(audio), 8000):
        end = start + min(i + 8000, len(audio)) / 16000
        processor.insert_audio_chunk(audio[i : i + 8000], end)
        if i % 3 == 1:
            continue  # process_iter may be skipped
        new, upto = on_a_thread(processor.process_iter)
        assert last <= upto <= end
        last = upto
        words += new
        buffer = processor.get_buffer()
        buffer.text += "!"  # the caller may modify it
        assert "!" not in processor.get_buffer().text
    return words


def test_the_order_of_a_whole_session(model: voxfast.Model, clip: EvalItem) -> None:
    processor = model.processor()
    assert processor.SAMPLING_RATE == 16000
    assert processor.asr is model
    processor.warmup(clip.audio[:16000], init_prompt="")
    processor.end_silence(0.0, 0)  # a session opens with one
    first = feed(processor, clip.audio, 0.0)
    flushed, upto = on_a_thread(processor.start_silence)
    first += flushed
    assert upto == pytest.approx(clip.duration, abs=1e-3)
    assert "".join(w.text for w in first).strip() == clip.transcript
    assert processor.get_buffer().text == ""

    processor.end_silence(5.0, first[-1].end)
    again = feed(processor, clip.audio, clip.duration + 5)
    new, _ = on_a_thread(lambda: processor.new_speaker(SimpleNamespace(speaker=1, start=1.0)))
    again += new
    flushed, _ = on_a_thread(processor.start_silence)
    again += flushed
    processor.end_silence(1.0, None)
    last, upto = on_a_thread(processor.finish)
    assert last == []  # right after a flush
    assert "".join(w.text for w in again).strip() == clip.transcript
    shift = clip.duration + 5
    truth = [w.end for w in clip.words]
    assert [w.end for w in first] == pytest.approx(truth, abs=0.15)
    assert [w.end - shift for w in again] == pytest.approx(truth, abs=0.2)
    assert upto == pytest.approx(2 * clip.duration + 6, abs=1e-3)
    assert processor.get_buffer().text == ""


def test_finish_brings_the_last_words(model: voxfast.Model, clip: EvalItem) -> None:
    processor = model.processor(delay_ms=960)
    words = feed(processor, clip.audio, 0.0)
    assert len(words) < len(clip.words)
    words += processor.finish()[0]
    assert "".join(w.text for w in words).strip() == clip.transcript


def test_a_backlog_arrives_as_one_array(model: voxfast.Model, clip: EvalItem) -> None:
    processor = model.processor()
    processor.insert_audio_chunk(np.concatenate([clip.audio] * 2), 2 * clip.duration)
    words = processor.process_iter()[0]
    words += processor.process_iter(is_last=True)[0]
    assert "".join(w.text for w in words).split() == clip.transcript.split() * 2
    assert processor.finish()[0] == []  # callers say both


def test_every_word_carries_its_space_and_numbers(model: voxfast.Model, clip: EvalItem) -> None:
    processor = model.processor()
    processor.insert_audio_chunk(clip.audio)
    for word in processor.finish()[0]:
        assert word.text.startswith(" ")
        assert isinstance(word.start, float)
        assert isinstance(word.end, float)


def test_bad_audio_is_refused_and_the_session_goes_on(model: voxfast.Model, clip: EvalItem) -> None:
    processor = model.processor()
    with pytest.raises(voxfast.InvalidAudioError):
        processor.insert_audio_chunk(np.array([np.inf], np.float32), 0.1)
    processor.insert_audio_chunk(clip.audio, clip.duration)
    words = processor.finish()[0]
    assert "".join(w.text for w in words).strip() == clip.transcript

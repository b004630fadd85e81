"""LogMelStream: any split of the samples gives the frames of the whole."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_mel_reference import COMPOSED_ATOL, NORMALISED, noise

from voxfast import features
from voxfast.errors import InvalidAudioError, InvalidOptionError
from voxfast.features import LogMelStream
from voxfast.ops import log_mel, use_native

VOXTRAL_PADDING = 200 + 32 * 1280


@pytest.fixture(scope="module", autouse=True)
def _native_kernels():
    with use_native(True), mx.stream(mx.cpu):
        yield


def whole(samples, left_padding=0, **options):
    padded = np.concatenate((np.zeros(left_padding, np.float32), samples))
    if padded.size < 400:
        return np.zeros((0, options.get("n_mels", 128)), np.float32)
    return np.array(log_mel(mx.array(padded), **options))


def streamed(stream, chunks):
    return np.concatenate([np.array(stream.step(chunk)) for chunk in chunks])


def split(samples, size):
    return [samples[i : i + size] for i in range(0, len(samples), size)]


@pytest.mark.parametrize("left_padding", [0, 5, 200, 399, 400, 401, VOXTRAL_PADDING])
@pytest.mark.parametrize(
    "size", [79, 80, 159, 160, 161, 239, 399, 400, 401, 641, 1279, 1280, 1283, 8000, 9000]
)
def test_any_chunk_size(size, left_padding):
    samples = noise(9000)
    stream = LogMelStream(left_padding=left_padding, **NORMALISED)
    np.testing.assert_array_equal(
        streamed(stream, split(samples, size)), whole(samples, left_padding, **NORMALISED)
    )


@pytest.mark.parametrize("left_padding", [0, 200])
def test_one_sample_at_a_time(left_padding):
    samples = noise(1500)
    stream = LogMelStream(left_padding=left_padding)
    np.testing.assert_array_equal(streamed(stream, split(samples, 1)), whole(samples, left_padding))


def test_a_minute_at_once():
    samples = noise(960_000)
    np.testing.assert_array_equal(streamed(LogMelStream(), [samples]), whole(samples))


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=12),
    left_padding=st.integers(0, 1000),
)
def test_any_split(sizes, left_padding):
    samples = noise(max(sum(sizes), 1))[: sum(sizes)]
    stream = LogMelStream(left_padding=left_padding)
    chunks = np.split(samples, np.cumsum(sizes)[:-1])
    np.testing.assert_array_equal(streamed(stream, chunks), whole(samples, left_padding))


def test_a_composed_stream_agrees_up_to_rounding():
    samples = noise(9000)
    with use_native(False):
        out = streamed(LogMelStream(**NORMALISED), split(samples, 641))
        expected = whole(samples, **NORMALISED)
    # MLX may sum up products of few and of many frames in different orders. Both results are
    # within COMPOSED_ATOL of the exact one (test_log_mel.py).
    np.testing.assert_allclose(out, expected, rtol=0, atol=2 * COMPOSED_ATOL)


def test_options_are_those_of_log_mel():
    samples = noise(3000)
    options = {"n_mels": 80, "log_floor": -1.0, "shift": 2.0, "scale": -3.0}
    out = streamed(LogMelStream(**options), split(samples, 700))
    assert out.shape[1] == 80
    np.testing.assert_array_equal(out, whole(samples, **options))


def test_a_frame_comes_with_its_last_sample():
    stream = LogMelStream()
    samples = noise(561)
    assert stream.step(samples[:399]).shape == (0, 128)
    assert stream.step(samples[399:400]).shape == (1, 128)
    assert stream.step(samples[400:559]).shape == (0, 128)
    assert stream.step(samples[559:]).shape == (1, 128)


def test_an_empty_step_gives_the_frames_of_the_padding():
    stream = LogMelStream(left_padding=720)
    empty = np.zeros(0, np.float32)
    assert np.all(np.array(stream.step(empty)) == -10)
    assert stream.step(empty).shape == (0, 128)


def test_samples_are_kept_for_one_frame_at_most():
    stream = LogMelStream(left_padding=VOXTRAL_PADDING)
    samples = noise(20_000)
    start, total = 0, VOXTRAL_PADDING
    for size in [0, 1, 160, 161, 3, 1279, 9000, 7, 5000]:
        stream.step(samples[start : start + size])
        start, total = start + size, total + size
        assert stream._length < 400
        assert stream._tail.size == 400
    assert stream._length == total - 160 * ((total - 400) // 160 + 1)


def test_tiny_steps_compute_nothing_until_a_frame_is_full(monkeypatch):
    stream = LogMelStream()
    lengths = []

    def counted(samples, **options):
        lengths.append(samples.size)
        return log_mel(samples, **options)

    monkeypatch.setattr(features, "log_mel", counted)
    for sample in noise(400 + 160 * 9)[:, None]:
        stream.step(sample)
    assert lengths == [400] * 10


def test_the_samples_are_copied():
    samples = noise(1000)
    kept = samples.copy()
    stream = LogMelStream()
    first = stream.step(samples[:700])
    samples[:] = np.nan
    second = stream.step(kept[700:])
    np.testing.assert_array_equal(np.concatenate([first, second]), whole(kept))


def test_a_strided_array_of_samples():
    samples = noise(4000)
    out = streamed(LogMelStream(), [samples[::-2][:301], samples[::-2][301:]])
    np.testing.assert_array_equal(out, whole(samples[::-2]))


def test_streams_do_not_share_state():
    a, b = noise(3000), noise(3000, seed=1)
    streams = LogMelStream(), LogMelStream()
    parts = [[], []]
    for chunk_a, chunk_b in zip(split(a, 333), split(b, 333), strict=True):
        parts[0].append(np.array(streams[0].step(chunk_a)))
        parts[1].append(np.array(streams[1].step(chunk_b)))
    np.testing.assert_array_equal(np.concatenate(parts[0]), whole(a))
    np.testing.assert_array_equal(np.concatenate(parts[1]), whole(b))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros(10), r"shape \(10,\) and dtype float64"),
        (np.zeros(10, np.int16), "dtype int16"),
        (np.zeros((2, 10), np.float32), r"shape \(2, 10\)"),
        (np.float32(1), "float32"),
        ([0.0, 1.0], "got list"),
        (None, "got NoneType"),
    ],
)
def test_bad_samples_leave_the_stream_as_it_was(bad, message):
    samples = noise(2000)
    stream = LogMelStream()
    frames = [np.array(stream.step(samples[:777]))]
    with pytest.raises(InvalidAudioError, match=r"^\[LogMelStream\] .*" + message):
        stream.step(bad)
    frames.append(np.array(stream.step(samples[777:])))
    np.testing.assert_array_equal(np.concatenate(frames), whole(samples))


def test_bad_options_are_rejected_at_once():
    with pytest.raises(InvalidOptionError, match=r"left_padding must be 0 or more.*got -1"):
        LogMelStream(left_padding=-1)
    with pytest.raises(ValueError, match=r"^\[log_mel\] n_mels"):
        LogMelStream(n_mels=0)

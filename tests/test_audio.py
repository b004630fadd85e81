"""Files, pipes and arrays: what comes in is exact, or an error that says what is wrong."""

import os
import re
from pathlib import Path

import hypothesis.extra.numpy as hnp
import mlx.core as mx
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxfast import audio
from voxfast.errors import AudioFileError, InvalidAudioError

quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """A chord with noise, [N, channels] of float32 within ±0.6."""
    rng = np.random.default_rng(7)
    time = np.arange(round(seconds * rate)) / rate
    chord = 0.2 * np.sin(2 * np.pi * 220 * time) + 0.2 * np.sin(2 * np.pi * 1330 * time)
    scale = np.linspace(1, 0.3, channels)
    return (chord[:, None] * scale + rng.uniform(-0.1, 0.1, (len(time), channels))).astype(
        np.float32
    )


def drain(blocks) -> tuple[np.ndarray, Exception | None]:
    """All samples of a stream, and the error that it ended in."""
    parts, failure = [np.zeros(0, np.float32)], None
    try:
        for block in blocks:
            assert block.dtype == np.float32
            assert block.ndim == 1
            assert len(block)
            parts.append(block)
    except AudioFileError as error:
        failure = error
    return np.concatenate(parts), failure


# Files


FILES = [
    ("wav", 44100, 2, {"subtype": "PCM_16"}),
    ("wav", 8000, 1, {"subtype": "PCM_U8"}),
    ("wav", 48000, 3, {"subtype": "PCM_24"}),
    ("wav", 16000, 1, {"subtype": "PCM_32"}),
    ("wav", 22050, 2, {"subtype": "FLOAT"}),
    ("wav", 16000, 2, {"subtype": "DOUBLE"}),
    ("wav", 8000, 1, {"subtype": "ULAW"}),
    ("wav", 16000, 6, {"format": "WAVEX", "subtype": "PCM_16"}),
    ("wav", 16000, 1, {"format": "RF64"}),
    ("w64", 16000, 2, {}),
    ("aiff", 32000, 2, {}),
    ("au", 11025, 1, {}),
    ("flac", 44100, 2, {}),
    ("ogg", 44100, 2, {}),
    ("ogg", 48000, 1, {"subtype": "OPUS"}),
    ("mp3", 44100, 2, {}),
    ("mp3", 16000, 1, {}),
]


@pytest.mark.parametrize(("suffix", "rate", "channels", "options"), FILES)
def test_file_is_what_soundfile_and_soxr_make_of_it(tmp_path, suffix, rate, channels, options):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(1.5, rate, channels), rate, **options)
    # dtype float32, as here: libsndfile's MP3 decoder rounds.
    decoded, _ = soundfile.read(path, dtype="float32", always_2d=True)
    expected = soxr.resample(decoded.mean(axis=1), rate, 16000)
    got = audio.load_audio(path)
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=2e-6)
    assert audio.duration(path) == pytest.approx(len(decoded) / rate, abs=0.01)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """The same second and a half in some containers and rates."""
    folder = tmp_path_factory.mktemp("files")
    made = {}
    for suffix, rate in [("wav", 44100), ("flac", 48000), ("mp3", 44100), ("ogg", 16000)]:
        made[suffix] = folder / f"a.{suffix}"
        soundfile.write(made[suffix], tone(1.5, rate, 2), rate)
    return made


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
@given(block_seconds=st.floats(1 / 16000, 3.0))
@quick
def test_block_size_changes_nothing(files, suffix, block_seconds):
    blocks = list(audio.stream_file(files[suffix], block_seconds=block_seconds))
    size = round(block_seconds * 16000)
    assert {len(block) for block in blocks[:-1]} <= {size}
    assert 0 < len(blocks[-1]) <= size
    np.testing.assert_array_equal(np.concatenate(blocks), audio.load_audio(files[suffix]))


def test_start_leaves_out_the_beginning(tmp_path):
    for suffix in ("wav", "flac"):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, tone(2.0, 16000), 16000)
        whole = audio.load_audio(path)
        np.testing.assert_array_equal(audio.load_audio(path, start=0.75), whole[12000:])
        with pytest.raises(AudioFileError, match="over before 2"):
            audio.load_audio(path, start=2.0)
        with pytest.raises(InvalidAudioError, match="start"):
            audio.load_audio(path, start=float("nan"))


def test_long_file_is_never_held(tmp_path):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(8000 * 10, np.float32))
    blocks = audio.stream_file(path, block_seconds=0.08)
    import tracemalloc

    tracemalloc.start()
    try:
        count = sum(len(block) for block in blocks)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 600 * 16000
    assert peak < 2_000_000


CUTS = [
    ("wav", 16000, {}, 1.0),
    ("wav", 16000, {"format": "RF64"}, 1.0),
    ("wav", 8000, {"subtype": "ULAW"}, 1.0),
    ("w64", 16000, {}, 1.0),
    ("aiff", 16000, {}, 1.0),
    ("au", 16000, {}, 1.0),
    ("flac", 44100, {}, 0.8),
    ("mp3", 44100, {}, 0.8),
    ("ogg", 44100, {}, 0.5),
]


@pytest.mark.parametrize(("suffix", "rate", "options", "least"), CUTS)
@pytest.mark.filterwarnings("ignore")
def test_cut_off_file_gives_what_is_there_and_then_an_error(tmp_path, suffix, rate, options, least):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(8.0, rate), rate, **options)
    whole = audio.load_audio(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    got, failure = drain(audio.stream_file(path, block_seconds=0.3))
    assert failure is not None
    said = re.search(r"only ([0-9.]+) s", str(failure))
    assert said
    assert float(said[1]) == pytest.approx(len(got) / 16000, abs=0.011)
    if suffix not in ("ogg", "w64"):
        assert "of 8.00 s" in str(failure)
    assert len(got) >= 0.6 * least * len(whole) * 0.97
    # Up to the resampler's last samples, which know nothing of what was cut off.
    usable = len(got) - 500
    np.testing.assert_allclose(got[:usable], whole[:usable], atol=2e-6)
    with pytest.raises(AudioFileError):
        audio.load_audio(path)


def test_cut_by_one_byte_is_an_error(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0, 16000), 16000)
    path.write_bytes(path.read_bytes()[:-1])
    got, failure = drain(audio.stream_file(path))
    assert len(got) == 15999
    assert "cut off" in str(failure)


def test_damage_is_passed_over_and_reported(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(8.0, 16000), 16000)
    whole = audio.load_audio(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    path.write_bytes(data)
    got, failure = drain(audio.stream_file(path))
    lost = re.search(r"damaged at ([0-9.]+) s: only ([0-9.]+) s of 8.00 s", str(failure))
    assert lost
    # Zeros stand for what is lost, so that everything behind is where it was.
    assert len(got) == len(whole)
    begin, end = round(float(lost[1]) * 16000), round((8 - float(lost[2])) * 16000)
    np.testing.assert_array_equal(got[: begin - 80], whole[: begin - 80])
    np.testing.assert_array_equal(got[begin + end + 160 :], whole[begin + end + 160 :])


@pytest.mark.parametrize("flip", [0.3, 0.5, 0.9])
def test_a_flipped_bit_of_flac_is_found_by_its_checksum(tmp_path, flip):
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(4.0, 16000), 16000)
    data = bytearray(path.read_bytes())
    data[int(len(data) * flip)] ^= 4
    path.write_bytes(data)
    _, failure = drain(audio.stream_file(path))
    # Of the last frame, nothing tells whether it was damaged or is not there.
    assert "damaged at" in str(failure) or "cut off" in str(failure)


def test_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(3.0, 16000), 16000)
    whole = audio.load_audio(path)
    data = bytearray(path.read_bytes())
    # STREAMINFO's count of samples: 36 bits from the middle of byte 13 on.
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert audio.duration(path) is None
    np.testing.assert_array_equal(audio.load_audio(path), whole)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.wav", b"", "is empty"),
        ("a.wav", b"no audio at all\n" * 50, "is text, not audio"),
        ("a.wav", b"RIFF", "begins as wav"),
        ("a.wav", b"RIFF\0\0\0\0WAVE", "ends inside its WAV header"),
        ("a.mp3", b"\0" * 5000, "not audio"),
        ("a.flac", b"fLaC" + b"\0" * 100, "not audio"),
        ("a.ogg", b"OggS" + b"\0" * 100, "not audio"),
    ],
    ids=["empty", "text", "riff", "wave", "zeros", "flac", "ogg"],
)
def test_not_audio(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioFileError, match=message) as raised:
        audio.load_audio(path)
    assert str(path) in str(raised.value)
    with pytest.raises(AudioFileError, match=message):
        audio.duration(path)


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        (tmp_path, "is a folder"),
        (tmp_path / "none.wav", "does not exist"),
        ("", "the name of the audio file is empty"),
        (tmp_path / "pipe", "stream_pcm"),
        ("a\0b", "cannot be opened"),
    ]:
        with pytest.raises(AudioFileError, match=message):
            audio.load_audio(path)


def test_file_without_frames(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0, np.float32), 16000)
    with pytest.raises(AudioFileError, match="holds no audio"):
        audio.load_audio(path)


BAD = [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (900.0, "900")]


@pytest.mark.parametrize(("value", "said"), BAD)
def test_a_few_samples_that_are_no_audio_become_zeros(tmp_path, caplog, value, said):
    path = tmp_path / "a.wav"
    samples = tone(2.0, 16000, 2)
    samples[20000, 1] = samples[20003, 0] = samples[20003, 1] = value
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    samples[20000, 1] = samples[20003, 0] = samples[20003, 1] = 0
    np.testing.assert_array_equal(audio.load_audio(path), samples.mean(axis=1))
    assert f"3 samples are no audio, the first {said} at 1.250 s" in caplog.text


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "nan.*finite"), (np.inf, "inf.*finite"), (900.0, "32768")]
)
@pytest.mark.parametrize("share", [0.02, 1.0])
def test_many_samples_that_are_no_audio_are_an_error(tmp_path, value, message, share):
    path = tmp_path / "a.wav"
    samples = tone(2.0, 16000)[:, 0]
    samples[16000 : 16000 + int(32000 * share)] = value
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    got, failure = drain(audio.stream_file(path))
    assert np.isfinite(got).all()
    assert np.abs(got).max() < 1
    np.testing.assert_array_equal(got[:16000], samples[:16000])
    assert re.search(message, str(failure))
    assert "at 1.000 s" in str(failure)


def test_integers_stored_as_floats_are_given_up_early(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(60.0, 8000)[:, 0] * 32768, 8000, subtype="FLOAT")
    got, failure = drain(audio.stream_file(path))
    assert "32768" in str(failure)
    assert len(got) < 16000


@given(data=st.binary(max_size=400), head=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"ID3"]))
@quick
def test_garbage_in_a_file(tmp_path, data, head):
    path = tmp_path / "garbage"
    path.write_bytes(head + data)
    try:
        samples = audio.load_audio(path)
    except AudioFileError:
        return
    assert np.isfinite(samples).all()


# Arrays


def test_accepted_samples():
    floats = tone(0.1, 16000)[:, 0]
    assert audio.check_samples(floats) is floats
    np.testing.assert_array_equal(audio.check_samples(mx.array(floats)), floats)
    integers = np.array([0, 1, -32768, 32767], np.int16)
    expected = np.array([0, 1 / 32768, -1, 32767 / 32768], np.float32)
    for samples in (integers, mx.array(integers)):
        got = audio.check_samples(samples)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)
    assert audio.check_samples(np.zeros(0, np.float32)).shape == (0,)
    assert audio.check_samples(np.zeros(0, np.int16)).dtype == np.float32
    strided = audio.check_samples(floats[::2])
    assert strided.flags.c_contiguous
    np.testing.assert_array_equal(strided, floats[::2])
    np.testing.assert_array_equal(audio.check_samples(np.full(3, -16, np.float32)), [-16] * 3)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(4), r"float64.*astype\(np.float32\)"),
        (np.zeros(4, np.float16), r"float16.*astype\(np.float32\)"),
        (np.zeros(4, np.int32), r"int32.*astype\(np.int16\).*2\*\*31"),
        (np.zeros(4, np.uint8), "uint8.*128"),
        (np.zeros(4, np.int8), "int8"),
        (np.zeros(4, np.complex64), "complex64"),
        (np.zeros(4, bool), "bool"),
        (np.zeros(4, ">f4"), ">f4"),
        (np.zeros((4, 1), np.float32), r"\[4, 1\].*reshape"),
        (np.zeros((1, 4), np.float32), r"\[1, 4\].*reshape"),
        (np.zeros((100, 2), np.float32), r"\[100, 2\].*axis=1"),
        (np.zeros((2, 100), np.float32), r"\[2, 100\].*axis=0"),
        (np.zeros((2, 3, 4), np.int16), r"\[2, 3, 4\]"),
        (np.float32(0), "float32; expected a NumPy array"),
        (np.zeros((), np.float32), r"shape \[\]"),
        ([0.0, 0.1], "list"),
        (b"\0\0", "bytes.*frombuffer"),
        (None, "NoneType"),
        (mx.zeros((4,), mx.bfloat16), "bfloat16.*astype"),
        (mx.zeros((4, 2)), r"\[4, 2\]"),
        (np.array([0, 1, np.nan, np.nan], np.float32), "sample 2 is nan"),
        (np.array([0, -np.inf], np.float32), "sample 1 is -inf"),
        (np.array([0.1, 17, 20000], np.float32), "sample 1 is 17.*divide by 32768"),
        (np.array([0, -16.5], np.float32), "sample 1 is -16.5"),
        (np.array([20, np.nan], np.float32), "sample 0 is 20"),
    ],
)
def test_rejected_samples(samples, message):
    with pytest.raises(InvalidAudioError, match=message):
        audio.check_samples(samples)


@pytest.mark.parametrize("rate", [8000, 44100, 0, 16000.5])
def test_rejected_rate(rate):
    with pytest.raises(InvalidAudioError, match=rf"{rate} Hz.*16000 Hz.*resample"):
        audio.check_samples(np.zeros(10, np.float32), rate)


@given(
    samples=hnp.arrays(
        dtype=hnp.scalar_dtypes() | st.just(np.dtype(np.float32)),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
    )
)
@settings(parent=quick, max_examples=80)
def test_every_array_is_checked(samples):
    good = samples.ndim == 1 and (
        samples.dtype == np.int16
        or (samples.dtype == np.float32 and bool(np.all(np.abs(samples) <= 16)))
    )
    try:
        checked = audio.check_samples(samples)
    except InvalidAudioError:
        assert not good
        return
    assert good
    assert checked.dtype == np.float32
    assert checked.shape == samples.shape
    scale = 32768 if samples.dtype == np.int16 else 1
    np.testing.assert_array_equal(checked, samples / np.float32(scale))


@given(
    rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000]),
    cuts=st.lists(st.integers(0, 4000), max_size=6),
)
@quick
def test_resampling_does_not_depend_on_chunks(rate, cuts):
    samples = tone(4000 / rate, rate)[:, 0]
    whole = audio.resample(samples, rate)
    assert len(whole) == pytest.approx(4000 * 16000 / rate, abs=1)
    resampler = audio.Resampler(rate)
    parts = [resampler.step(part) for part in np.split(samples, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate([*parts, resampler.finish()]), whole)


def test_resampling_keeps_the_tone():
    time = np.arange(48000) / 48000
    got = audio.resample(np.sin(2 * np.pi * 440 * time).astype(np.float32), 48000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(got[400:-400], expected[400:-400], atol=1e-3)
    for rate in (0, -1, float("nan"), 1e7):
        with pytest.raises(InvalidAudioError, match="sample rate"):
            audio.resample(np.zeros(10, np.float32), rate)

"""Several channels: their average, the one that would be lost in it, each of them."""

import numpy as np
import pytest
import soundfile
from encoded import Pipe, chirp
from hypothesis import given, settings
from hypothesis import strategies as st
from test_audio import drain, quick, tone
from test_pipes import wav_bytes

from voxfast import audio
from voxfast._channels import Mixer
from voxfast.errors import AudioFileError, InvalidAudioError

RATE = 16000


def mix(samples: np.ndarray, rate: int = RATE) -> np.ndarray:
    mixer = Mixer(rate, samples.shape[1])
    return np.concatenate([mixer.step(samples), mixer.finish()])


def noise(count: int, channels: int, level: float) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.normal(0, level, (count, channels)).astype(np.float32)


def speech(seconds: float = 3.0) -> np.ndarray:
    """Bursts of a chirp with pauses between them, [N]."""
    wave = chirp(seconds, RATE)[:, 0].copy()
    for begin in np.arange(0.4, seconds, 0.9):
        wave[round(begin * RATE) : round((begin + 0.3) * RATE)] = 0
    return wave


@pytest.mark.parametrize("gain", [-1.0, -0.9, -1.1])
@pytest.mark.parametrize("background", [0.0, 1e-4])
def test_channels_of_opposite_phase(gain, background):
    wave = speech()
    samples = np.stack([wave, gain * wave], axis=1) + noise(len(wave), 2, background)
    got = mix(samples)
    loudest = samples[:, int(abs(gain) > 1)]
    # From the very first window on.
    assert np.sqrt(np.mean((got - loudest) ** 2)) <= 2 * background
    assert np.abs(samples.mean(axis=1)).max() < 0.1 * np.abs(got).max()


@pytest.mark.parametrize("channels", [16, 32, 64])
@pytest.mark.parametrize("background", [0.0, 1e-4, 1e-3])
def test_one_live_channel_among_many(channels, background):
    wave = speech()
    samples = noise(len(wave), channels, background)
    samples[:, 5] += wave
    got = mix(samples)
    loud = np.abs(wave) > 0.05
    np.testing.assert_array_equal(got[loud], samples[loud, 5])


def recordings() -> dict[str, np.ndarray]:
    wave, other = speech(), chirp(3.0, RATE, begin=900)[:, 0]
    pan = np.linspace(0.1, 0.9, len(wave), dtype=np.float32)
    return {
        "same": np.stack([wave, wave], axis=1),
        "one silent": np.stack([wave, np.zeros_like(wave)], axis=1),
        "two speakers": np.stack([wave, other], axis=1),
        "in turn": np.stack([wave * (pan < 0.5), wave * (pan >= 0.5)], axis=1),
        "panned": np.stack([wave * pan, wave * (1 - pan)], axis=1),
        "delayed": np.stack([wave, np.roll(wave, 11)], axis=1),
        "noise": noise(len(wave), 2, 0.1),
        "music": tone(3.0, RATE, 2),
        "silence": np.zeros((len(wave), 2), np.float32),
        "surround": np.stack([wave, other, wave, 0.1 * other, 0.3 * wave, other], axis=1),
        "four microphones": np.stack([wave, np.roll(wave, 5), np.roll(wave, 9), other * 0], axis=1),
    }


@pytest.mark.parametrize("name", recordings())
def test_ordinary_recordings_are_averaged(name):
    samples = recordings()[name]
    np.testing.assert_array_equal(mix(samples), samples.mean(axis=1))


@given(
    cuts=st.lists(st.integers(0, 24000), max_size=8),
    kind=st.sampled_from(["opposite", "sixteen", "changing"]),
    rate=st.sampled_from([8000, 11025, 16000]),
)
@settings(parent=quick, max_examples=40)
def test_the_choice_does_not_depend_on_chunks(cuts, kind, rate):
    wave = speech(1.5)
    samples = noise(len(wave), 16 if kind == "sixteen" else 2, 1e-4)
    samples[:, 0] += wave
    if kind != "sixteen":
        samples[:, 1] -= wave if kind == "opposite" else wave * np.sign(np.arange(len(wave)) - 9000)
    mixer = Mixer(rate, samples.shape[1])
    parts = [mixer.step(part) for part in np.split(samples, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate([*parts, mixer.finish()]), mix(samples, rate))


@pytest.mark.parametrize("rate", [16000, 44100])
def test_files_of_opposite_phase(tmp_path, rate):
    path = tmp_path / "a.flac"
    wave = tone(1.0, rate)[:, 0]
    soundfile.write(path, np.stack([wave, -wave], axis=1), rate)
    got = audio.load_audio(path)
    np.testing.assert_allclose(got, audio.resample(wave, rate), atol=1e-4)
    for seconds in (0.001, 0.037, 0.5):
        blocks = [*audio.stream_file(path, block_seconds=seconds)]
        np.testing.assert_array_equal(np.concatenate(blocks), got)


@pytest.mark.parametrize("rate", [16000, 22050])
def test_one_channel_or_each_of_them(tmp_path, rate):
    path = tmp_path / "a.wav"
    samples = np.stack([tone(0.5, rate)[:, 0], chirp(0.5, rate)[:, 0], tone(0.5, rate)[::-1, 0]], 1)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    each = audio.load_audio(path, channel="each")
    assert each.shape == (8000, 3)
    piped = np.concatenate([*audio.stream_pcm(Pipe(path.read_bytes(), [999]), channel="each")])
    np.testing.assert_array_equal(each, piped)
    for number in (1, 2, 3):
        expected = audio.resample(np.ascontiguousarray(samples[:, number - 1]), rate)
        np.testing.assert_array_equal(audio.load_audio(path, channel=number), expected)
        np.testing.assert_allclose(each[:, number - 1], expected, atol=1e-6)
    sizes = {block.shape for block in audio.stream_file(path, channel="each", block_seconds=0.1)}
    assert sizes == {(1600, 3)}


def test_channels_that_are_not_there(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.1, RATE, 2), RATE)
    with pytest.raises(AudioFileError, match=r"has 2 channels; there is no channel 3"):
        audio.load_audio(path, channel=3)
    for channel in (0, -1, "left", True, 1.0, None):
        with pytest.raises(InvalidAudioError, match="channel must be"):
            audio.load_audio(path, channel=channel)


def test_each_channel_of_a_recording_whose_channels_change():
    data = wav_bytes(tone(0.5, RATE, 2), RATE) + wav_bytes(tone(0.5, RATE, 1), RATE)
    got, failure = drain(audio.stream_pcm(Pipe(data)))
    assert failure is None
    assert len(got) == RATE
    blocks = audio.stream_pcm(Pipe(data), channel="each")
    parts = []
    with pytest.raises(AudioFileError, match="changes from 2 to 1 channels"):
        parts.extend(iter(blocks))
    assert sum(map(len, parts)) == RATE // 2 or not parts

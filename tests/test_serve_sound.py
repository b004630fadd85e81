"""Bytes of live clients to samples: any form, any split."""

import numpy as np
import pytest

from voxfast import _pcm
from voxfast.audio import resample
from voxfast.errors import InvalidAudioError
from voxfast.serve.sound import SoundConverter

SECONDS = 0.2


def tone(rate: int) -> np.ndarray:
    time = np.arange(round(SECONDS * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def encoded(audio: np.ndarray, sample_format: str) -> bytes:
    if sample_format == "s16le":
        return (audio * 32767).astype("<i2").tobytes()
    if sample_format == "f32le":
        return audio.astype("<f4").tobytes()
    codes = np.arange(256, dtype=np.uint8)
    levels = _pcm.decode(codes.tobytes(), _pcm.Encoding(8000, 1, sample_format))[:, 0]  # type: ignore[arg-type]
    return codes[np.abs(levels[None] - audio[:, None]).argmin(1)].tobytes()


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("sample_format", ["s16le", "f32le", "mulaw", "alaw"])
def test_any_split_gives_the_same(rate: int, sample_format: str) -> None:
    data = encoded(tone(rate), sample_format)
    converter = SoundConverter(rate, sample_format)  # type: ignore[arg-type]
    whole = np.concatenate([converter.step(data), converter.flush()])
    assert len(whole) == pytest.approx(SECONDS * 16_000, abs=1)
    assert np.abs(whole - resample(tone(rate), rate)[: len(whole)])[200:-200].max() < 0.02
    for size in (1, 3, 997):
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        split = [converter.step(part) for part in parts]
        assert np.array_equal(np.concatenate([*split, converter.flush()]), whole)


def test_channels_are_averaged() -> None:
    left = (tone(16_000) * 32767).astype("<i2")
    stereo = np.stack([left, np.zeros_like(left)], 1).tobytes()
    converter = SoundConverter(16_000, "s16le", 2)
    assert np.allclose(converter.step(stereo), left / 65536, atol=1e-6)


def test_half_a_sample_waits_for_its_other_half() -> None:
    converter = SoundConverter(16_000, "s16le")
    assert converter.step(b"\1").size == 0
    assert converter.step(b"\0").tolist() == [1 / 32768]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_what_is_no_audio_is_not_taken(value: float) -> None:
    converter = SoundConverter(16_000, "f32le")
    with pytest.raises(InvalidAudioError):
        converter.step(np.array([value], "<f4").tobytes())
    assert converter.step(np.array([0.5], "<f4").tobytes()).tolist() == [0.5]


@pytest.mark.parametrize(
    "form", [(999, "s16le", 1), (10**9, "s16le", 1), (16_000, "mp3", 1), (16_000, "s16le", 9)]
)
def test_forms_that_cannot_be(form: tuple[int, str, int]) -> None:
    with pytest.raises(InvalidAudioError):
        SoundConverter(*form)  # type: ignore[arg-type]

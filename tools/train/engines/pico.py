"""SVOX Pico, British and American: only for calibration and evaluation, never trained on."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from ..speech import SAMPLE_RATE
from .base import Speaker, Style, Utterance, draw_size, played_at

__all__ = ["Pico", "load"]


class Pico:
    """It tells no times: words that stand apart are said one by one."""

    packages = ("py-nanotts",)
    pauses = False

    def __init__(self, accent: str) -> None:
        from py_nanotts import NanoTTS

        self._voice = {"gb": "en-GB", "us": "en-US"}[accent]
        self._tts = NanoTTS()

    def say(
        self, words: Sequence[str], style: Style, speaker: Speaker, rng: Generator
    ) -> Utterance:
        traits = speaker.traits()
        size = draw_size(traits, 0.8, 1.2)
        pitch = traits.uniform(0.75, 1.2)
        speed = style.draw_tempo(rng) / size
        text = style.separator.join(words) + "."
        data = self._tts.speak(text, voice=self._voice, speed=speed, pitch=pitch)
        audio = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
        starts = [0.0] if len(words) == 1 else []
        return Utterance(*played_at(audio, SAMPLE_RATE, size, starts), f"pico {self._voice}")


def load(accent: str) -> Pico:
    return Pico(accent)

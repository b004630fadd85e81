"""Flite with four voices of Carnegie Mellon; it prints when each phoneme ends."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray

from .base import FLUENT, Speaker, Style, Utterance, draw_size, played_at

__all__ = ["Flite", "load"]

SILENCE = "pau"
VOICES = {"slt": 170, "rms": 100, "awb": 120, "kal16": 110}  # mean pitch in Hz
SHARES = (0.3, 0.3, 0.25, 0.15)


class Flite:
    """A process per phrase: loading a voice takes milliseconds."""

    packages = ("flite",)
    pauses = True

    def __init__(self) -> None:
        if shutil.which("flite") is None:
            raise RuntimeError("flite is not installed: `apt-get install flite`")

    def say(
        self, words: Sequence[str], style: Style, speaker: Speaker, rng: Generator
    ) -> Utterance:
        traits = speaker.traits()
        voice = str(traits.choice(list(VOICES), p=SHARES))
        size = draw_size(traits, 0.85, 1.25)
        pitch = VOICES[voice] * rng.uniform(0.85, 1.2)
        stretch = size / style.draw_tempo(rng)
        audio, rate, phones = _run(style.separator.join(words), voice, stretch, pitch)
        begins = _begins(phones)
        counts = [_count_phones(word, voice) for word in words]
        firsts = np.cumsum([0, *counts[:-1]]).tolist()
        starts = [begins[first] for first in firsts] if sum(counts) == len(begins) else []
        return Utterance(*played_at(audio, rate, size, starts), f"flite {voice}")


Phones = list[tuple[str, float]]  # phoneme, and the second at which it ends


def _run(
    text: str, voice: str, stretch: float, pitch: float
) -> tuple[NDArray[np.float32], int, Phones]:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = [
            "flite", "-voice", voice, "--setf", f"duration_stretch={stretch}",
            "--setf", f"int_f0_target_mean={pitch}", "-psdur", "-t", text, "-o", file.name,
        ]  # fmt: skip
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        audio, rate = soundfile.read(file.name, dtype="float32")
    pairs = (entry.split(":") for entry in printed.split())
    return audio, rate, [(phone, float(end)) for phone, end in pairs]


def _begins(phones: Phones) -> list[float]:
    """Where the phonemes begin that are not silence."""
    before = [0.0, *(end for _, end in phones[:-1])]
    return [begin for begin, (phone, _) in zip(before, phones, strict=True) if phone != SILENCE]


@cache
def _count_phones(word: str, voice: str) -> int:
    return len(_begins(_run(word + FLUENT.separator, voice, 1, VOICES[voice])[2]))


def load() -> Flite:
    return Flite()

"""SVOX Pico: two English voices that are not trained on, four others that speak with an accent."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..speech import SAMPLE_RATE
from .base import Speaker, Style, Utterance, draw_size, played_at
from .phonemes import phonemes

__all__ = ["Pico", "PicoAbroad", "load", "spell"]

# X-SAMPA for the phonemes of Kokoro, as speakers of the language say English; of several, each
# speaker has one. R is r before a vowel, 6 elsewhere. Symbols that a language lacks are not said
# at all.
SAME = {s: s for s in "pbtdkfslmn"} | {"ɡ": "g", "T": "t", "ʧ": "tS", "ʤ": "dZ", "ʃ": "S", "ˈ": '"'}
ABROAD: Mapping[str, Mapping[str, str | tuple[str, ...]]] = {
    "de-DE": SAME | {
        "θ": ("s", "t", "f"), "ð": ("d", "z"), "v": "v", "w": ("v", "U"), "z": ("z", "s"),
        "h": "h", "j": "j", "ŋ": "N", "ɹ": "R", "R": ("6", "R"),
        "i": "i:", "ɪ": "I", "u": "u:", "ʊ": "U", "ɛ": "E", "æ": "E", "ʌ": "a", "ɑ": "a:",
        "ɔ": ("O", "o:"), "ɒ": "O", "ə": ("@", "E"), "ᵊ": "@", "a": "a", "ɜ": ("9", "2:"),
        "A": ("e:", "eI"), "I": "aI", "W": "aU", "Y": "OY", "O": ("o:", "oU"), "Q": "o:",
    },
    "fr-FR": SAME | {
        "θ": ("s", "f", "t"), "ð": ("z", "d"), "v": "v", "w": "w", "z": "z",
        "h": "", "j": "j", "ŋ": "N", "ɹ": "R", "R": "R",
        "i": "i", "ɪ": "i", "u": "u", "ʊ": "u", "ɛ": "E", "æ": ("a", "E"), "ʌ": ("9", "a"),
        "ɑ": ("a", "O"), "ɔ": "O", "ɒ": "O", "ə": ("@", "E"), "ᵊ": "@", "a": "a", "ɜ": "9",
        "A": ("Ej", "e"), "I": "aj", "W": "aw", "Y": "Oj", "O": ("o", "ow"), "Q": "o",
    },
    "es-ES": SAME | {
        "θ": ("T", "s", "t"), "ð": "d", "v": ("b", "f"), "w": ("w", "gw"), "z": "s", "ʃ": "tS",
        "ʤ": "j", "h": ("x", ""), "j": "j", "ŋ": "n", "ɹ": ("r", "4"), "R": "r",
        "i": "i", "ɪ": "i", "u": "u", "ʊ": "u", "ɛ": "e", "æ": "a", "ʌ": ("a", "o"), "ɑ": "a",
        "ɔ": "o", "ɒ": "o", "ə": ("e", "a"), "ᵊ": "e", "a": "a", "ɜ": "e",
        "A": "ej", "I": "aj", "W": "aw", "Y": "oj", "O": ("o", "ow"), "Q": "o",
    },
    "it-IT": SAME | {
        "θ": ("t", "f", "s"), "ð": "d", "v": "v", "w": ("u", "v"), "z": ("z", "s"),
        "h": "", "j": "j", "ŋ": "n", "ɹ": "r", "R": "r",
        "i": "i", "ɪ": "i", "u": "u", "ʊ": "u", "ɛ": "E", "æ": ("E", "a"), "ʌ": "a", "ɑ": "a",
        "ɔ": "O", "ɒ": "O", "ə": ("e", "a"), "ᵊ": "e", "a": "a", "ɜ": "E",
        "A": ("Ej", "e"), "I": "aj", "W": "au", "Y": "Oj", "O": ("o", "ou"), "Q": "o",
    },
}  # fmt: skip
VOWELS = "aæɑɔɒəᵊɛɜiɪuʊʌAIOQWY"

Alphabet = Mapping[str, str]


class Pico:
    """English, British or American: for calibration and evaluation, and for voxtral-names.

    It tells no times: words that stand apart are said one by one.
    """

    packages: tuple[str, ...] = ("py-nanotts",)
    pauses = False

    def __init__(self, accent: str) -> None:
        from py_nanotts import NanoTTS

        self._voice = {"gb": "en-GB", "us": "en-US"}[accent]
        self._tts = NanoTTS()

    def say(
        self, words: Sequence[str], style: Style, speaker: Speaker, rng: Generator
    ) -> Utterance:
        text = style.separator.join(words) + "."
        return _say(self._tts, self._voice, text, len(words), style, speaker.traits(), rng)


class PicoAbroad:
    """The German, French, Spanish and Italian voices, told the phonemes of English words."""

    packages = ("py-nanotts", "hibari-tts")
    pauses = False

    def __init__(self) -> None:
        from py_nanotts import NanoTTS

        self._tts = NanoTTS()

    def say(
        self, words: Sequence[str], style: Style, speaker: Speaker, rng: Generator
    ) -> Utterance:
        traits = speaker.traits()
        voice = str(traits.choice(list(ABROAD)))
        british = traits.random() < 0.5
        alphabet = {
            sound: said if isinstance(said, str) else str(traits.choice(said))
            for sound, said in ABROAD[voice].items()
        }
        said = (phonemes([word], style, british, {}, rng) for word in words)
        text = " ".join(f"<phoneme ph='{spell(word, alphabet)}'/>" for word in said)
        return _say(self._tts, voice, text, len(words), style, traits, rng)


def spell(said: str, alphabet: Alphabet) -> str:
    """Phonemes of Kokoro in X-SAMPA; what the ``alphabet`` lacks (full stops, ː) is left out."""
    said = re.sub(f"ɹ(?!ˈ?[{VOWELS}])", "R", said)
    return "".join(alphabet.get(sound, "") for sound in said)


def _say(
    tts: Any, voice: str, text: str, words: int, style: Style, traits: Generator, rng: Generator
) -> Utterance:
    size = draw_size(traits, 0.8, 1.2)
    pitch = traits.uniform(0.75, 1.2)
    data = tts.speak(text, voice=voice, speed=style.draw_tempo(rng) / size, pitch=pitch)
    audio: NDArray[np.float32] = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    starts = [0.0] if words == 1 else []
    return Utterance(*played_at(audio, SAMPLE_RATE, size, starts), f"pico {voice}")


def load(accent: str) -> Pico | PicoAbroad:
    return PicoAbroad() if accent == "abroad" else Pico(accent)

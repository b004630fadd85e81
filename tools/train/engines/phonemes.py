"""Phonemes of words in the alphabet of Kokoro, American and British, with everyday variants."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from numpy.random import Generator

from .base import Style

__all__ = ["Accent", "draw_accent", "phonemes", "pronounce"]

FLAP = "T"  # the t of American "forty"
FOREIGN = 0.5  # of the pseudo-speakers
HABIT = 0.35  # probability of each of these substitutions in a foreign speaker

# English sounds, and what speakers of French, German, Greek, Turkish, Spanish … put in their place.
SUBSTITUTES = {
    "θ": ("s", "t", "f", "z"), "w": ("v", "ʋ"), "h": ("", "x"), "ɹ": ("r", "ʁ", "ɾ"),
    "ɪ": ("i",), "ʌ": ("a", "ɔ", "œ"), "æ": ("ɛ", "a"), "ɛ": ("e",), "ɜɹ": ("ɛɹ", "œɹ"),
    "ɜː": ("œː", "ɛɹ"), "A": ("e", "ɛ"), "O": ("o", "ɔ"), "Q": ("o", "ɔ"), "ə": ("e", "a"),
    "ᵊ": ("ɛ",), "T": ("t",), "I": ("aj",),
}  # fmt: skip
DEVOICED = {"v": "f", "d": "t", "z": "s", "b": "p", "ɡ": "k"}  # at the end of a word

Accent = Mapping[str, str]  # sounds and their substitutes; "$" before one that ends a word


@cache
def _grapheme_to_phoneme(british: bool) -> Any:
    from hibari.g2p import G2P

    return G2P(british=british)


@cache
def pronounce(word: str, british: bool) -> str:
    """The phonemes of one word."""
    said: str = _grapheme_to_phoneme(british)(word)
    return said.strip(" .")


def draw_accent(traits: Generator) -> Accent:
    """The accent of a pseudo-speaker: none for half of them."""
    foreign = traits.random() < FOREIGN
    accent = {
        sound: str(traits.choice(others))
        for sound, others in SUBSTITUTES.items()
        if traits.random() < HABIT
    }
    if traits.random() < HABIT:
        accent |= {"$" + voiced: voiceless for voiced, voiceless in DEVOICED.items()}
    return accent if foreign else {}


def phonemes(
    words: Sequence[str], style: Style, british: bool, accent: Accent, rng: Generator
) -> str:
    """``words`` as one text of phonemes, each word as it may be said in that style."""
    said = [_vary(word, pronounce(word, british), style, rng) for word in words]
    return style.separator.join(_accented(word, accent) for word in said) + "."


def _accented(said: str, accent: Accent) -> str:
    said = said[:-1] + accent.get("$" + said[-1], said[-1])
    # Longer sounds first: "ɜɹ" before its "ɹ".
    sounds = sorted(SUBSTITUTES, key=len, reverse=True)
    return re.sub("|".join(sounds), lambda found: accent.get(found[0], found[0]), said)


def _vary(word: str, said: str, style: Style, rng: Generator) -> str:
    if word == "and" and not style.apart and rng.random() < 0.6:
        return str(rng.choice(["ənd", "ən"]))
    if word == "ninety" and rng.random() < 0.5:
        said = said.replace("nd", "nt")
    if style.apart and rng.random() < 0.6:
        said = said.replace(FLAP, "t")  # whoever speaks carefully says forty with a t
    if word.endswith("teen") and rng.random() < 0.5:
        said = _stress_first(said)
    return said


def _stress_first(said: str) -> str:
    """ "thirTEEN" as "THIRteen", which is how it is counted and said before a noun."""
    return said.replace("ˈ", "").replace("ˌ", "ˈ")

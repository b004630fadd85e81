"""Phonemes of words in the alphabet of Kokoro, American and British, with everyday variants."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from numpy.random import Generator

from .base import Style

__all__ = ["phonemes", "pronounce"]

FLAP = "T"  # the t of American "forty"


@cache
def _grapheme_to_phoneme(british: bool) -> Any:
    from hibari.g2p import G2P

    return G2P(british=british)


@cache
def pronounce(word: str, british: bool) -> str:
    """The phonemes of one word."""
    said: str = _grapheme_to_phoneme(british)(word)
    return said.strip(" .")


def phonemes(words: Sequence[str], style: Style, british: bool, rng: Generator) -> str:
    """``words`` as one text of phonemes, each word as it may be said in that style."""
    said = [_vary(word, pronounce(word, british), style, rng) for word in words]
    return style.separator.join(said) + "."


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

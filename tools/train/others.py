"""Speech that is to write nothing: sentences of words outside of the vocabulary.

Half of the phrases are everyday sentences of a small grammar, half are words drawn from the
pronouncing dictionary that the neural engines use. Words that sound like one of the vocabulary
("for", "won", "fine"), or that contain one, never occur: to reject them would be to doubt those.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from numpy.random import Generator

from .grammar import VOCABULARY, Rules, expand, one_of, split_words

__all__ = ["draw_others", "other_words"]

LEAST_CONTAINED = 3  # letters of a vocabulary word that another word must not contain
HOMOPHONES = frozenset(
    split_words(
        "won to too for fore ate red wright rite write know knew noes knows pleas weight their "
        "meters blew bleu grin lite lyte mousing clothes dore sect ohs won't sex tin tents pint"
    )
)

RULES: Rules = {
    "others": [
        (3, "<who> <did> the <thing>"),
        (2, "the <thing> is <how> today"),
        (2, "<who> <did> the <thing> because <who> felt <how>"),
        (2, "have you <done> my <how> <thing>"),
        (2, "i think <who> should <act> the <thing>"),
        (1, "well that was <how>"),
        (1, "good morning how are you"),
        (1, "would you like a cup of <drink>"),
        (1, "thanks a lot"),
        (1, "let me <act> that again"),
        (1, "what is your name"),
        (1, "hello my name is <name>"),
        (1, "they will never <act> this <thing>"),
        (1, "it may rain this <when>"),
        (1, "we talked about <name> all <when>"),
        (1, "ask her where the <thing> was"),
    ],
    "who": one_of(("he", "she", "they", "we", "my brother", "his teacher", "<name>")),
    "did": one_of(
        split_words("found lost broke carried bought liked painted moved forgot washed sold")
    ),
    "done": one_of(split_words("seen taken finished brought hidden cleaned borrowed")),
    "act": one_of(split_words("try keep make change read watch follow buy show bring")),
    "how": one_of(
        split_words("old small heavy happy tired broken lovely strange warm dirty simple late")
    ),
    "thing": one_of(
        split_words(
            "table garden letter picture bottle chair book car dog paper story city river "
            "machine bicycle sandwich question camera answer village office"
        )
    ),
    "drink": one_of(split_words("coffee tea milk chocolate")),
    "name": one_of(split_words("Peter Maria Johnson Alice Robert Sarah Michael Emma")),
    "when": one_of(split_words("evening morning week summer winter afternoon")),
}


def draw_others(rng: Generator) -> tuple[str, ...]:
    """The words of one phrase, 3 to 12 of them."""
    if rng.random() < 0.5:
        text = expand("<others>", rng, RULES)
        return tuple(word for word in text.split() if _is_other(word))
    words = other_words()
    return tuple(words[int(place)] for place in rng.integers(0, len(words), rng.integers(3, 9)))


@cache
def other_words() -> list[str]:
    """Words of the dictionary, of 3 to 9 plain letters, two phonemes from any of the vocabulary."""
    lexicon = _lexicon()
    near = _Near(_bare(lexicon[word]) for word in VOCABULARY if isinstance(lexicon.get(word), str))
    return sorted(
        word
        for word, said in lexicon.items()
        if isinstance(said, str)
        and 3 <= len(word) <= 9
        and word.isascii()
        and word.isalpha()
        and word.islower()
        and _is_other(word)
        and _bare(said) not in near
    )


def _is_other(word: str) -> bool:
    if word in VOCABULARY or word in HOMOPHONES:
        return False
    return not any(len(v) >= LEAST_CONTAINED and v in word for v in VOCABULARY)


def _bare(said: str) -> str:
    """Phonemes without stress, and with one symbol for each t, as far as homophones go."""
    return said.replace("ˈ", "").replace("ˌ", "").replace("T", "t").replace("ɾ", "t")


class _Near:
    """Tells which pronunciations are one phoneme or less from one of ``known``."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = set(known)
        self._shorter = {rest for said in self._known for rest in _without_one(said)}
        self._patterns = {pattern for said in self._known for pattern in _with_one_open(said)}

    def __contains__(self, said: str) -> bool:
        return (
            said in self._shorter  # one was left out of a known word …
            or not self._known.isdisjoint(_without_one(said))  # … added to it …
            or not self._patterns.isdisjoint(_with_one_open(said))  # … or changed, if any
        )


def _without_one(said: str) -> list[str]:
    return [said[:place] + said[place + 1 :] for place in range(len(said))]


def _with_one_open(said: str) -> list[str]:
    return [f"{said[:place]}*{said[place + 1 :]}" for place in range(len(said))]


def _lexicon() -> dict[str, Any]:
    import gzip
    import json
    from importlib import resources

    path = resources.files("hibari") / "assets" / "lexicon_us_gold.json.gz"
    document: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return document

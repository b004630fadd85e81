"""The closed vocabulary and the grammar of the phrases that are spoken.

A rule is a list of weighted templates; ``<name>`` stands for one expansion of that rule, and
everything else is a word of the vocabulary. Rules do not recurse, so that a phrase ends.
"""

from collections.abc import Mapping, Sequence

from numpy.random import Generator

__all__ = [
    "RARE",
    "RULES",
    "VOCABULARY",
    "WORDS",
    "Rules",
    "draw_digits",
    "draw_drill",
    "draw_phrase",
    "draw_rare",
    "expand",
    "one_of",
    "split_words",
]

MAX_WORDS = 12


def split_words(text: str) -> tuple[str, ...]:
    """The words of a list that is written as one string."""
    return tuple(text.split())


DIGITS = split_words("zero one two three four five six seven eight nine")
TEENS = split_words(
    "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
TENS = split_words("twenty thirty forty fifty sixty seventy eighty ninety")
OF_NUMBERS = split_words("hundred thousand point minus percent")
OF_COMMANDS = split_words(
    "set stop start turn left right north south east west red green blue metres seconds minutes "
    "hours degrees volume light music door window kitchen on off up down open close play pause "
    "wait next yes no please and"
)

VOCABULARY: tuple[str, ...] = (*DIGITS, *TEENS, *TENS, *OF_NUMBERS, *OF_COMMANDS)

# Names that voxtral-rare has seldom heard. The first two lines sound like words that it knows well.
RARE: tuple[str, ...] = split_words(
    "norton weston redmond tyson seymour evan nina stuart leonard holden stockton minerva pauline "
    "dorian wanda plato edison winston melissa denver "
    "boston dallas oslo cairo madrid geneva havana kyoto lisbon vienna nairobi melbourne olivia "
    "amelia miriam helsinki monica tobias zelda fiona"
)

WORDS: tuple[str, ...] = (*VOCABULARY, *RARE)  # pools number them by their places

Rules = Mapping[str, Sequence[tuple[float, str]]]


def one_of(words: Sequence[str]) -> list[tuple[float, str]]:
    """A rule of equally likely words."""
    return [(1, word) for word in words]


def _repeated(rule: str, weights: Sequence[float]) -> list[tuple[float, str]]:
    """Templates of 1, 2, 3 … times ``rule`` with the given weights."""
    return [(weight, " ".join([rule] * times)) for times, weight in enumerate(weights, start=1)]


RULES: Rules = {
    # The larger half is uniform random words, so that words must be heard: a decoder that knows
    # the commands by heart could guess them from their context.
    "phrase": [(55, "<words>"), (23, "<number>"), (22, "<commands>")],
    "words": _repeated("<any>", [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]),
    "number": [(66, "<real>"), (25, "<real> point <fraction>"), (9, "minus <real>")],
    "real": [
        (35, "<below hundred>"),
        (20, "<hundreds>"),
        (8, "<below hundred> thousand"),
        (7, "<below hundred> thousand <unit> hundred"),
        (30, "<digits>"),
    ],
    "hundreds": [
        (20, "<unit> hundred"),
        (48, "<unit> hundred <below hundred>"),
        (32, "<unit> hundred and <below hundred>"),
    ],
    "below hundred": [(30, "<unit>"), (25, "<teen>"), (15, "<ten>"), (30, "<ten> <unit>")],
    "digits": _repeated("<digit>", [1, 1, 1, 1, 1]),
    "fraction": _repeated("<digit>", [1, 1, 1]),
    "commands": [(80, "<command>"), (20, "<command> and <command>")],
    "command": [(85, "<order>"), (8, "please <order>"), (7, "<order> please")],
    "order": [
        (1, "turn <direction>"),
        (1, "turn <direction> <number> <measure>"),
        (1, "set <setting> <number>"),
        (1, "set <setting> <number> percent"),
        (1.4, "<move> <opening>"),
        (0.6, "<move> <colour> <opening>"),
        (2, "turn <switch> <switched>"),
        (0.8, "<action>"),
        (1.2, "<action> <number> <measure>"),
        (2, "<direction> <number> <measure>"),
        (2, "<answer> <colour> <coloured>"),
    ],
    # What human voices make hard: words that differ in little, said apart.
    "drill": [
        (4, "<teen or ty> <teen or ty> <teen or ty> <teen or ty> <teen or ty> <teen or ty>"),
        (2, "<alike> <alike> <alike> <alike> <alike> <alike>"),
        (2, "minus <real>"),
        (1, "<order> minus <real>"),
        (1, "<digit> <digit> <digit> <digit> <digit> <digit>"),
        (1, "<hundreds> <teen or ty> <measure>"),
    ],
    "teen or ty": [(1, "<teen>"), (1, "<ten>")],
    "alike": one_of(split_words("three green five four nine on off two blue eight and one")),
    "any": one_of(VOCABULARY),
    "digit": one_of(DIGITS),
    "unit": one_of(DIGITS[1:]),
    "teen": one_of(TEENS),
    "ten": one_of(TENS),
    "direction": one_of(split_words("left right north south east west up down")),
    "measure": one_of(split_words("metres seconds minutes hours degrees percent")),
    "setting": one_of(split_words("volume light music kitchen")),
    "move": one_of(split_words("open close")),
    "opening": one_of(split_words("door window kitchen")),
    "colour": one_of(split_words("red green blue")),
    "coloured": one_of(split_words("light door window")),
    "switch": one_of(split_words("on off")),
    "switched": one_of(["light", "music", "kitchen light"]),
    "action": one_of(split_words("start stop play pause wait next")),
    "answer": one_of(split_words("yes no")),
}


def expand(template: str, rng: Generator, rules: Rules = RULES) -> str:
    """``template`` with every ``<rule>`` replaced by a random expansion of that rule.

    Raises:
        KeyError: the template names a rule that does not exist.
    """
    while "<" in template:
        before, _, rest = template.partition("<")
        name, _, after = rest.partition(">")
        template = before + _choose(rules[name], rng) + after
    return template


def _choose(templates: Sequence[tuple[float, str]], rng: Generator) -> str:
    # One uniform number instead of rng.choice, which would make arrays of the templates each time.
    place = rng.random() * sum(weight for weight, _ in templates)
    for weight, template in templates:
        place -= weight
        if place < 0:
            return template
    return templates[-1][1]  # only where rounding took the last step


def draw_phrase(rng: Generator) -> tuple[str, ...]:
    """One random phrase of 1 to ``MAX_WORDS`` words of the vocabulary."""
    return tuple(expand("<phrase>", rng).split()[:MAX_WORDS])


def draw_drill(rng: Generator) -> tuple[str, ...]:
    """One random phrase of words that are easily taken for each other."""
    return tuple(expand("<drill>", rng).split()[:MAX_WORDS])


def draw_digits(rng: Generator) -> tuple[str, ...]:
    """A string of random digits, as telephone numbers and codes are."""
    return tuple(rng.choice(DIGITS, int(rng.integers(2, MAX_WORDS + 1))).tolist())


def draw_rare(rng: Generator, part: float = 0.15) -> tuple[str, ...]:
    """One random phrase in which rare words stand for that part of the others."""
    return tuple(
        str(rng.choice(RARE)) if rng.random() < part else word for word in draw_phrase(rng)
    )

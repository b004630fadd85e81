"""Speech synthesisers behind one interface, ``Engine``; see README.md for sources and licences.

An engine is imported when it is asked for, so that one can be used where the others are not
installed.
"""

from functools import cache
from importlib import import_module

from .base import COMMAS, FLUENT, ISOLATED, SLOW, STYLES, Engine, Speaker, Style, Utterance

__all__ = [
    "COMMAS",
    "ENGINES",
    "FLUENT",
    "ISOLATED",
    "SLOW",
    "STYLES",
    "Engine",
    "Speaker",
    "Style",
    "Utterance",
    "engine",
]

ENGINES = (
    "espeak",
    "espeak_unseen",
    "kokoro",
    "hibari",
    "flite",
    "festival",
    "pico_gb",
    "pico_us",
    "pico_abroad",
)


@cache
def engine(name: str) -> Engine:
    """The engine of that name, one per process.

    Raises:
        ValueError: there is no such engine.
        ImportError, RuntimeError: it is not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"no engine {name!r}: choose from {', '.join(ENGINES)}")
    module, _, variant = name.partition("_")
    loaded: Engine = import_module(f".{module}", __name__).load(*([variant] if variant else []))
    return loaded

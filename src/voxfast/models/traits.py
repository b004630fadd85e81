"""Measured properties of a checkpoint, from an optional ``voxfast.json`` in its folder."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import is_there, read_json

__all__ = ["AttentionTiming", "Traits", "WordTiming", "read_traits"]

FILE = "voxfast.json"


@dataclass(frozen=True)
class WordTiming:
    """Word times from the markers of Voxtral; measured once per checkpoint.

    Attributes:
        end_offset: a group whose marker is generated token k ends at
            ``(k + end_offset)`` positions. +1 for the published model (vLLM, pull request
            50783).
        start_base, start_per_character, least_pause: in seconds. The model marks where a word
            ends, not where it begins. The duration of a word is estimated as
            ``start_base + start_per_character * characters``. If that leaves a pause shorter
            than ``least_pause``, the word begins at the end of the previous one: inside a
            phrase, words touch. Fitted on the evaluation clips.
    """

    end_offset: float = 1.0
    start_base: float = 0.16
    start_per_character: float = 0.05
    least_pause: float = 0.24


@dataclass(frozen=True)
class AttentionTiming:
    """Margins of a word around the attended frames of its tokens, in seconds.

    Attributes:
        start_lead: from the start of the word to the frame of its first token.
        end_trail: from the frame of its last token to the end of the word.
    """

    start_lead: float = 0.0
    end_trail: float = 0.08


@dataclass(frozen=True)
class Traits:
    """Defaults are those of the published Voxtral-Mini-4B-Realtime-2602.

    Attributes:
        description: one line for humans, or empty.
        demo: whether the checkpoint is a demonstration.
        delays_ms: delays it was trained for (arXiv 2602.11298).
        timing: see :class:`WordTiming`; for Voxtral.
        attention: see :class:`AttentionTiming`; for Qwen3-ASR.
        least_probability: less probable words are dropped: they come from noise. 0 keeps all.
    """

    description: str = ""
    demo: bool = False
    delays_ms: tuple[int, ...] = (*range(80, 1201, 80), 2400)
    timing: WordTiming = field(default_factory=WordTiming)
    attention: AttentionTiming = field(default_factory=AttentionTiming)
    least_probability: float = 0.0


def read_traits(folder: Path) -> Traits:
    """The traits of a checkpoint folder, with defaults for missing values.

    Raises:
        CheckpointError: if ``voxfast.json`` is malformed.
    """
    path = folder / FILE
    if not is_there(path):
        return Traits()
    content = read_json(path)
    default = Traits()

    def get(source: dict[str, Any], key: str, kind: type | tuple[type, ...], fallback: Any) -> Any:
        value = source.get(key, fallback)
        if not isinstance(value, kind):
            raise CheckpointError(f"{path}: {key!r} cannot be {value!r:.60}")
        return value

    delays = get(content, "delays_ms", (list, tuple), default.delays_ms)
    if not delays or not all(isinstance(d, int) and 0 < d <= 10_000 for d in delays):
        raise CheckpointError(f"{path}: 'delays_ms' must be milliseconds; it is {delays!r:.60}")

    def seconds(kind: type[Any], key: str) -> Any:
        given, default = get(content, key, dict, {}), kind()
        return kind(
            **{
                field.name: float(
                    get(given, field.name, (int, float), getattr(default, field.name))
                )
                for field in fields(kind)
            }
        )

    return Traits(
        description=get(content, "description", str, default.description),
        demo=get(content, "demo", bool, default.demo),
        least_probability=float(
            get(content, "least_probability", (int, float), default.least_probability)
        ),
        delays_ms=tuple(delays),
        timing=seconds(WordTiming, "word_timing"),
        attention=seconds(AttentionTiming, "attention_timing"),
    )

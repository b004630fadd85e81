"""Measured properties of a checkpoint, from an optional ``voxfast.json`` in its folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import is_there, read_json

__all__ = ["AttentionTiming", "Traits", "WordTiming", "read_seconds", "read_traits"]

FILE = "voxfast.json"
T = TypeVar("T")


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

    The defaults are for checkpoints that were not measured: the middle of the attended frame is
    taken for the middle of a word of 0.28 s (docs/qwen3-asr.md says why).

    Attributes:
        start_lead: from the start of the word to the start of its first token's frame.
        end_trail: from the start of its last token's frame to the end of the word.
    """

    start_lead: float = 0.1
    end_trail: float = 0.18


@dataclass(frozen=True)
class Traits:
    """Defaults are those of the published Voxtral-Mini-4B-Realtime-2602.

    Attributes:
        description: one line for humans, or empty.
        demo: whether the checkpoint is a demonstration.
        delays_ms: delays it was trained for (arXiv 2602.11298).
        timing: see :class:`WordTiming`; for Voxtral.
        attention: see :class:`AttentionTiming`; for Qwen3-ASR. None if the file has none.
        least_probability: less probable words are dropped: they come from noise. 0 keeps all.
    """

    description: str = ""
    demo: bool = False
    delays_ms: tuple[int, ...] = (*range(80, 1201, 80), 2400)
    timing: WordTiming = field(default_factory=WordTiming)
    attention: AttentionTiming | None = None
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

    def get(key: str, kind: type | tuple[type, ...], fallback: Any) -> Any:
        return _get(path, content, key, kind, fallback)

    delays = get("delays_ms", (list, tuple), default.delays_ms)
    if not delays or not all(isinstance(d, int) and 0 < d <= 10_000 for d in delays):
        raise CheckpointError(f"{path}: 'delays_ms' must be milliseconds; it is {delays!r:.60}")

    return Traits(
        description=get("description", str, default.description),
        demo=get("demo", bool, default.demo),
        least_probability=float(get("least_probability", (int, float), default.least_probability)),
        delays_ms=tuple(delays),
        timing=read_seconds(path, content, "word_timing", WordTiming) or WordTiming(),
        attention=read_seconds(path, content, "attention_timing", AttentionTiming),
    )


def read_seconds(path: Path, content: dict[str, Any], key: str, kind: type[T]) -> T | None:
    """A dataclass of seconds, with defaults for missing values; None if there is no such key.

    Raises:
        CheckpointError: if it is malformed; ``path`` is the file that it is read from.
    """
    if key not in content:
        return None
    given, default = _get(path, content, key, dict, {}), vars(kind())
    return kind(
        **{name: float(_get(path, given, name, (int, float), default[name])) for name in default}
    )


def _get(
    path: Path, source: dict[str, Any], key: str, kind: type | tuple[type, ...], fallback: Any
) -> Any:
    value = source.get(key, fallback)
    if not isinstance(value, kind):
        raise CheckpointError(f"{path}: {key!r} cannot be {value!r:.60}")
    return value

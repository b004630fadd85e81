"""What a checkpoint's own files do not say: ``voxfast.json`` beside them, if there is one."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import is_there, read_json

__all__ = ["AttentionTiming", "Traits", "WordTiming", "read_traits"]

FILE = "voxfast.json"


@dataclass(frozen=True)
class WordTiming:
    """How a checkpoint's markers relate to the audio; measured once per checkpoint.

    Attributes:
        end_offset: a group whose marker is generated token k ends at
            ``(k + end_offset)`` positions. +1 for the published model (vLLM, pull request
            50783).
        start_base, start_per_character, least_pause: seconds. The model says where a word
            ends, not where it begins. A word is taken to last
            ``start_base + start_per_character * characters``, and to begin where the word
            before it ended if that leaves less than ``least_pause`` between them: inside a
            phrase, words touch. Fitted on the evaluation clips.
    """

    end_offset: float = 1.0
    start_base: float = 0.16
    start_per_character: float = 0.05
    least_pause: float = 0.24


@dataclass(frozen=True)
class AttentionTiming:
    """How far a word reaches around what its tokens attend to, in seconds.

    Attributes:
        start_lead: a word begins so long before the audio token of its first token.
        end_trail: it ends so long after the one of its last token.
    """

    start_lead: float = 0.0
    end_trail: float = 0.08


@dataclass(frozen=True)
class Traits:
    """Defaults are those of the published Voxtral-Mini-4B-Realtime-2602.

    Attributes:
        description: one line for people, or empty.
        demo: whether the checkpoint is for trying out only.
        delays_ms: delays it was trained for (arXiv 2602.11298).
        timing: see :class:`WordTiming`; of Voxtral.
        attention: see :class:`AttentionTiming`; of Qwen3-ASR.
        least_probability: words that the model itself finds less likely are left out: they
            come from noise. 0 keeps all.
    """

    description: str = ""
    demo: bool = False
    delays_ms: tuple[int, ...] = (*range(80, 1201, 80), 2400)
    timing: WordTiming = field(default_factory=WordTiming)
    attention: AttentionTiming = field(default_factory=AttentionTiming)
    least_probability: float = 0.0


def read_traits(folder: Path) -> Traits:
    """The traits of a checkpoint folder; defaults where it does not say.

    Raises:
        CheckpointError: if ``voxfast.json`` is there and is not as described above.
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

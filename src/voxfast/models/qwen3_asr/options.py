"""Options of a Qwen3-ASR session, and their limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from voxfast.errors import InvalidOptionError
from voxfast.models.family import check_names

__all__ = ["DEFAULT_DELAY_MS", "Qwen3Options", "Qwen3Tuning", "read_options"]

DEFAULT_DELAY_MS = 320

# Lower values make no sense, and no model was trained for higher ones.
_RANGES = {"delay_ms": (0, 10_000), "block_ms": (20, 10_000)}
_TUNING_RANGES = {
    "first_ms": (0, 10_000),
    "rewind_ms": (0, 30_000),
    "min_steps": (0, 1000),
    "buffer_ms": (3_000, 30_000),
    "trim_ms": (3_000, 30_000),
    "keep_ms": (1_000, 29_000),
    "pause_ms": (1_500, 30_000),
    "context_tokens": (0, 4096),
    "n_heads": (1, 1 << 20),
}


@dataclass(frozen=True, kw_only=True)
class Qwen3Tuning:
    """Settings of a Qwen3-ASR stream that rarely need a change, as ``tuning=`` of a session.

    The defaults were chosen by measurement. Values are checked when a session is opened.

    Attributes:
        first_ms: audio of an utterance before its first inference, with the silence that is heard
            before it, if that is more than ``block_ms``. A model may write nothing of a first
            phrase that it hears in part, not even later; then 2500 makes fewer errors in turns,
            whose first words come later.
        rewind_ms: a token whose attended frame is so far before that of the previous token is
            dropped until more audio is there: the model has lost its place.
        min_steps: number of tokens per inference that ignore the border.
        buffer_ms: maximal audio in the buffer.
        trim_ms: audio in the buffer at which the older part is dropped, between words.
        keep_ms: audio that remains then.
        pause_ms: silence after which the text before it is dropped from the context.
        context_tokens: maximal committed text in the context of an inference.
        n_heads: number of alignment heads that are used, best first.
        heads_file: alignment heads to use instead of those known for the checkpoint.
        guess_heads: without measured heads, take all heads of the middle layers, which is
            less accurate, instead of raising an error.
    """

    first_ms: int = 0
    rewind_ms: int = 1600
    min_steps: int = 0
    buffer_ms: int = 15_000
    trim_ms: int = 12_000
    keep_ms: int = 6_000
    pause_ms: int = 2_000
    context_tokens: int = 256
    n_heads: int = 10
    heads_file: str | Path | None = None
    guess_heads: bool = False


@dataclass(frozen=True, kw_only=True)
class Qwen3Options:
    """Options of ``Model.session`` for Qwen3-ASR.

    Attributes:
        delay_ms: AlignAtt's border: a word is committed if its attended audio is at least so
            far from the newest audio. More is more accurate. None is the default, 320.
        language: name or code (ISO 639, also with a region) of the language that is spoken;
            None or "auto": the model detects it, again after every pause.
        prompt: names and terms that are going to be spoken, as spelling help.
        block_ms: new audio per inference. Less answers sooner and costs more.
        tuning: everything else.
    """

    delay_ms: int | None = None
    language: str | None = None
    prompt: str | None = None
    block_ms: int = 500
    tuning: Qwen3Tuning = field(default_factory=Qwen3Tuning)


def read_options(name: str, options: Mapping[str, Any]) -> Qwen3Options:
    """Validate the options of a session.

    Args:
        name: of the model.
        options: by name.

    Raises:
        InvalidOptionError: for an unknown option, and for an invalid value.
    """
    if moved := options.keys() & {field.name for field in fields(Qwen3Tuning)}:
        first = min(moved)
        raise InvalidOptionError(
            f"{first!r} is a field of Qwen3Tuning; ask for "
            f"tuning=voxfast.Qwen3Tuning({first}={options[first]!r:.60})"
        )
    check_names(name, options, Qwen3Options)
    chosen = Qwen3Options(**options)
    tuning = chosen.tuning
    if not isinstance(tuning, Qwen3Tuning):
        raise InvalidOptionError(f"tuning must be a voxfast.Qwen3Tuning; got {tuning!r:.60}")
    for key, (least, most) in _RANGES.items():
        if not (key == "delay_ms" and chosen.delay_ms is None):
            _check_integer(key, getattr(chosen, key), least, most)
    for key, (least, most) in _TUNING_RANGES.items():
        _check_integer(key, getattr(tuning, key), least, most)
    if not tuning.keep_ms + 1000 <= tuning.trim_ms <= tuning.buffer_ms - chosen.block_ms:
        raise InvalidOptionError(
            "trim_ms must be a second above keep_ms, and one block below buffer_ms; got "
            f"{tuning.keep_ms}, {tuning.trim_ms}, {tuning.buffer_ms} and blocks of "
            f"{chosen.block_ms}"
        )
    for key in ("language", "prompt"):
        if not isinstance(getattr(chosen, key), str | None):
            raise InvalidOptionError(f"{key} must be text; got {getattr(chosen, key)!r:.60}")
    if not isinstance(tuning.heads_file, str | Path | None):
        raise InvalidOptionError(f"heads_file must be a path; got {tuning.heads_file!r:.60}")
    return chosen


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise InvalidOptionError(
            f"{name} must be an integer from {least} to {most}; got {value!r:.60}"
        )

"""The interface of a model family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from voxfast.errors import InvalidOptionError

# Every command reads the registry, even if MLX cannot be imported (`voxfast doctor`).
if TYPE_CHECKING:
    import mlx.core as mx
    from _typeshed import DataclassInstance

    from voxfast.models.counts import PassCount
    from voxfast.models.vocabulary import Vocabulary
    from voxfast.online.stream import Stream

__all__ = ["Family", "LoadedCheckpoint", "check_names", "is_automatic"]


class LoadedCheckpoint(Protocol):
    """A loaded checkpoint that opens streams. Lives on its model's owner thread."""

    @property
    def description(self) -> str: ...
    @property
    def is_demo(self) -> bool: ...
    @property
    def dtype(self) -> "mx.Dtype": ...
    @property
    def delays_ms(self) -> tuple[int, ...]: ...
    @property
    def languages(self) -> tuple[str, ...]: ...
    @property
    def pass_count(self) -> "PassCount": ...
    @property
    def offline_block_seconds(self) -> float: ...
    @property
    def offline_whole_seconds(self) -> float:
        """The longest recording that is better transcribed in one piece than cut at pauses."""
        ...

    def language_code(self, language: str) -> str | None:
        """The code of one of its languages, given by code or name; None for another."""
        ...

    def vocabulary(self, entries: object) -> "Vocabulary | None":
        """A user's vocabulary for the streams; may be called on any thread.

        Raises InvalidOptionError for what is none.
        """
        ...

    def stream(self, **options: Any) -> "Stream":
        """A new stream; raises InvalidOptionError for unknown or invalid options."""
        ...


@dataclass(frozen=True)
class Family:
    """An entry of the registry. Only ``load`` imports the family's network.

    Attributes:
        name: of the family, for humans.
        aliases: short names of repositories on the hub.
        recognises: whether a checkpoint is of this family, given its ``config.json`` and its
            ``params.json``; an empty mapping stands for a missing file.
        missing_files: the required files that are not in a folder.
        load: (name, folder, dtype, kv_bits) to the loaded checkpoint; raises CheckpointError.
    """

    name: str
    aliases: Mapping[str, str]
    recognises: Callable[[Mapping[str, Any], Mapping[str, Any]], bool]
    missing_files: Callable[[Path], list[str]]
    load: "Callable[[str, Path, mx.Dtype | None, int | None], LoadedCheckpoint]"


def check_names(name: str, options: Mapping[str, Any], kind: type["DataclassInstance"]) -> None:
    """Raise InvalidOptionError for an unknown option.

    Args:
        name: of the model.
        options: of a session, by name.
        kind: the dataclass with the known options as fields.
    """
    known = [field.name for field in fields(kind)]
    if unknown := options.keys() - set(known):
        raise InvalidOptionError(
            f"{name} has no option {min(unknown)!r}; it has {', '.join(known)}"
        )


def is_automatic(language: object) -> bool:
    """Whether no language is requested: None, an empty text, or ``auto`` in any case."""
    return language is None or (
        isinstance(language, str) and language.strip().lower() in ("", "auto")
    )

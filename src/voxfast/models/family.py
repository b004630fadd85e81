"""What every model family offers to the rest of the package."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from voxfast.errors import InvalidOptionError

# The registry is read by every command, also where MLX cannot be imported (`voxfast doctor`).
if TYPE_CHECKING:
    import mlx.core as mx
    from _typeshed import DataclassInstance

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
    def offline_block_seconds(self) -> float: ...
    def stream(self, **options: Any) -> "Stream":
        """A fresh stream; raises InvalidOptionError on options the architecture lacks."""
        ...


@dataclass(frozen=True)
class Family:
    """A model family, as the registry lists it. Its network is imported by ``load`` only.

    Attributes:
        name: for people.
        aliases: short names of repositories on the hub.
        recognises: whether a checkpoint is of this family, by its ``config.json`` and its
            ``params.json``; an empty mapping stands for a file that is not there.
        missing_files: what a folder lacks of the files that the model is loaded from.
        load: (name, folder, dtype) to the loaded checkpoint; raises CheckpointError.
    """

    name: str
    aliases: Mapping[str, str]
    recognises: Callable[[Mapping[str, Any], Mapping[str, Any]], bool]
    missing_files: Callable[[Path], list[str]]
    load: "Callable[[str, Path, mx.Dtype | None], LoadedCheckpoint]"


def check_names(name: str, options: Mapping[str, Any], kind: type["DataclassInstance"]) -> None:
    """Raise InvalidOptionError if a model has no option of some name.

    Args:
        name: of the model.
        options: what it was asked for.
        kind: the dataclass whose fields are its options.
    """
    known = [field.name for field in fields(kind)]
    if unknown := options.keys() - set(known):
        raise InvalidOptionError(
            f"{name} has no option {min(unknown)!r}; it has {', '.join(known)}"
        )


def is_automatic(language: object) -> bool:
    """Whether nobody asks for a language: None, an empty text, or ``auto`` in any case."""
    return language is None or (
        isinstance(language, str) and language.strip().lower() in ("", "auto")
    )

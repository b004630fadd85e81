"""What every model family offers to the rest of the package."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

import mlx.core as mx

from voxfast.errors import InvalidOptionError
from voxfast.online.stream import Stream

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["LoadedCheckpoint", "check_names", "is_automatic"]


class LoadedCheckpoint(Protocol):
    """A loaded checkpoint that opens streams. Lives on its model's owner thread."""

    @property
    def description(self) -> str: ...
    @property
    def is_demo(self) -> bool: ...
    @property
    def dtype(self) -> mx.Dtype: ...
    @property
    def delays_ms(self) -> tuple[int, ...]: ...
    @property
    def offline_block_seconds(self) -> float: ...
    def stream(self, **options: Any) -> Stream:
        """A fresh stream; raises InvalidOptionError on options the architecture lacks."""
        ...


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

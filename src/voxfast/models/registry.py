"""Which architecture a checkpoint is of, and what every architecture offers."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import mlx.core as mx

from voxfast.errors import InvalidOptionError
from voxfast.models.qwen3_asr.config import is_qwen3_asr
from voxfast.online.session import Stream

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Engine", "check_names", "load_engine"]


class Engine(Protocol):
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


def load_engine(name: str, folder: Path, dtype: mx.Dtype | None) -> Engine:
    """Load the checkpoint in a folder.

    Raises:
        CheckpointError: if it is incomplete, broken, or of no known architecture.
    """
    if is_qwen3_asr(folder):
        from voxfast.models.qwen3_asr.engine import Qwen3ASREngine

        return Qwen3ASREngine(name, folder, dtype)
    from voxfast.models.voxtral.engine import VoxtralEngine

    return VoxtralEngine(name, folder, dtype)

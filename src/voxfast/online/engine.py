"""Which architecture a checkpoint is of, and what every architecture offers."""

from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx

from voxfast.models.checkpoint import read_json
from voxfast.online.session import Stream

__all__ = ["Engine", "load_engine"]


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


def load_engine(name: str, folder: Path, dtype: mx.Dtype | None) -> Engine:
    """Load the checkpoint in a folder.

    Raises:
        CheckpointError: if it is incomplete, broken, or of no known architecture.
    """
    config = folder / "config.json"
    if config.is_file() and read_json(config).get("model_type") == "qwen3_asr":
        from voxfast.online.qwen3_asr_engine import Qwen3ASREngine

        return Qwen3ASREngine(name, folder, dtype)
    from voxfast.online.voxtral_engine import VoxtralEngine

    return VoxtralEngine(name, folder, dtype)

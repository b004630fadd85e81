"""Model families, and which of them a checkpoint is of."""

from pathlib import Path

import mlx.core as mx

from voxfast.models.family import LoadedCheckpoint
from voxfast.models.qwen3_asr.config import is_qwen3_asr

__all__ = ["load_checkpoint"]


def load_checkpoint(name: str, folder: Path, dtype: mx.Dtype | None) -> LoadedCheckpoint:
    """Load the checkpoint in a folder.

    Raises:
        CheckpointError: if it is incomplete, broken, or of no known architecture.
    """
    if is_qwen3_asr(folder):
        from voxfast.models.qwen3_asr.loaded import LoadedQwen3ASR

        return LoadedQwen3ASR(name, folder, dtype)
    from voxfast.models.voxtral.loaded import LoadedVoxtral

    return LoadedVoxtral(name, folder, dtype)

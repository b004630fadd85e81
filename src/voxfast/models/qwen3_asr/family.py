"""Qwen3-ASR in the registry of families."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxfast.models.family import Family, LoadedCheckpoint
from voxfast.models.files import file_names, missing_weights

if TYPE_CHECKING:
    import mlx.core as mx

__all__ = ["QWEN3_ASR"]

_FILES = ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json")


def _recognises(config: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "qwen3_asr"


def _missing_files(folder: Path) -> list[str]:
    names = file_names(folder)
    return [*(name for name in _FILES if name not in names), *missing_weights(folder, names)]


def _load(
    name: str, folder: Path, dtype: "mx.Dtype | None", kv_bits: int | None
) -> LoadedCheckpoint:
    from voxfast.models.qwen3_asr.loaded import LoadedQwen3ASR

    return LoadedQwen3ASR(name, folder, dtype, kv_bits)


QWEN3_ASR = Family(
    name="Qwen3-ASR",
    aliases={
        "qwen3-asr-0.6b": "Qwen/Qwen3-ASR-0.6B",
        "qwen3-asr-0.6b-8bit": "mlx-community/Qwen3-ASR-0.6B-8bit",
        "qwen3-asr-0.6b-4bit": "mlx-community/Qwen3-ASR-0.6B-4bit",
        "qwen3-asr-1.7b": "Qwen/Qwen3-ASR-1.7B",
        "qwen3-asr-1.7b-8bit": "mlx-community/Qwen3-ASR-1.7B-8bit",
        "qwen3-asr-1.7b-4bit": "mlx-community/Qwen3-ASR-1.7B-4bit",
    },
    recognises=_recognises,
    missing_files=_missing_files,
    load=_load,
)

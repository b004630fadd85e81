"""Voxtral Realtime in the registry of families."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxfast.models.checkpoint import CONSOLIDATED
from voxfast.models.family import Family, LoadedCheckpoint
from voxfast.models.files import (
    conversions,
    file_names,
    has_tensor,
    missing_weights,
    peek_json,
)
from voxfast.models.values import packing

if TYPE_CHECKING:
    import mlx.core as mx

__all__ = ["VOXTRAL"]

_TOKENIZER = "tekken.json"
_TRANSFORMERS = ("audio_tower.", "multi_modal_projector.")  # names that voxfast does not read


def _recognises(config: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    is_realtime = config.get("model_type") == "voxtral_realtime"
    return is_realtime or "multimodal" in config or "multimodal" in params


def _missing_files(folder: Path) -> list[str]:
    names = file_names(folder)
    config = peek_json(folder / "config.json")
    converted = conversions(names)
    weights: list[str] = []
    if CONSOLIDATED in names and (
        not packing(config) or has_tensor(folder / CONSOLIDATED, (".scales",))
    ):
        needed = [_TOKENIZER] if _recognises(config, {}) else ["params.json", _TOKENIZER]
    elif any(has_tensor(folder / name, _TRANSFORMERS) for name in converted) or (
        "params.json" in names and not any(name.endswith(".safetensors") for name in names)
    ):
        needed, weights = ["params.json", _TOKENIZER], [CONSOLIDATED]
    else:
        sizes = "params.json" if "params.json" in names else "config.json"  # one is enough
        needed, weights = [sizes, _TOKENIZER], missing_weights(folder, names)
    return [*(name for name in needed if name not in names), *weights]


def _load(
    name: str, folder: Path, dtype: "mx.Dtype | None", kv_bits: int | None
) -> LoadedCheckpoint:
    from voxfast.models.voxtral.loaded import LoadedVoxtral

    return LoadedVoxtral(name, folder, dtype, kv_bits)


VOXTRAL = Family(
    name="Voxtral Realtime",
    aliases={
        "voxtral-mini-4b": "mistralai/Voxtral-Mini-4B-Realtime-2602",
        "voxtral-mini-4b-fp16": "mlx-community/Voxtral-Mini-4B-Realtime-2602-fp16",
        "voxtral-mini-4b-6bit": "mlx-community/Voxtral-Mini-4B-Realtime-6bit",
        "voxtral-mini-4b-4bit": "mlx-community/Voxtral-Mini-4B-Realtime-2602-4bit",
    },
    recognises=_recognises,
    missing_files=_missing_files,
    load=_load,
)

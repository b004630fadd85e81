"""The model families, and the family of a checkpoint. A new family is one line here."""

from pathlib import Path
from typing import TYPE_CHECKING

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import is_there, read_json
from voxfast.models.family import Family, LoadedCheckpoint
from voxfast.models.files import file_names, peek_json
from voxfast.models.qwen3_asr.family import QWEN3_ASR
from voxfast.models.voxtral.family import VOXTRAL

if TYPE_CHECKING:
    import mlx.core as mx

__all__ = ["ALIASES", "FAMILIES", "family_of", "load_checkpoint", "missing_files"]

FAMILIES: list[Family] = [VOXTRAL, QWEN3_ASR]
ALIASES = {alias: name for family in FAMILIES for alias, name in family.aliases.items()}

_CONFIGURATIONS = ("config.json", "params.json")


def family_of(folder: Path) -> Family | None:
    """The family of a checkpoint folder; None if no family recognises it."""
    config, params = (peek_json(folder / name) for name in _CONFIGURATIONS)
    return next((family for family in FAMILIES if family.recognises(config, params)), None)


def load_checkpoint(
    name: str, folder: Path, dtype: "mx.Dtype | None", kv_bits: int | None = None
) -> LoadedCheckpoint:
    """Load the checkpoint in a folder.

    Raises:
        CheckpointError: if it is incomplete, broken, or of no known family.
    """
    family = family_of(folder)
    if family is not None:
        return family.load(name, folder, dtype, kv_bits)
    found = [folder / file for file in _CONFIGURATIONS if is_there(folder / file)]
    configs = [read_json(path) for path in found]  # a broken file is reported first
    if not configs:
        raise CheckpointError(f"{folder}: no checkpoint; it has no {' or '.join(_CONFIGURATIONS)}")
    types = [config["model_type"] for config in configs if "model_type" in config]
    raise CheckpointError(
        f"{folder}: of no model family that voxfast runs "
        f"({', '.join(family.name for family in FAMILIES)}); "
        + (f"its model_type is {types[0]!r:.60}" if types else "it names no model_type")
    )


def missing_files(folder: Path) -> list[str]:
    """The required files that are missing in a folder; empty if it is complete.

    Other programs download only the files that they need to the hub's cache, and a download
    may have been interrupted. If no family recognises the configuration, nothing counts as
    missing: loading raises the error.
    """
    family = family_of(folder)
    if family is not None:
        return family.missing_files(folder)
    names = file_names(folder)
    if "params.json" in names:
        return []
    if "tekken.json" in names:
        return ["params.json"]
    return [] if "config.json" in names else ["config.json"]

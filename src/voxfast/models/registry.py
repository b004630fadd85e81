"""The model families, and which of them a checkpoint is of. A new family is one line here."""

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
    """The family that a checkpoint folder is of; None if none recognises it."""
    config, params = (peek_json(folder / name) for name in _CONFIGURATIONS)
    return next((family for family in FAMILIES if family.recognises(config, params)), None)


def load_checkpoint(name: str, folder: Path, dtype: "mx.Dtype | None") -> LoadedCheckpoint:
    """Load the checkpoint in a folder.

    Raises:
        CheckpointError: if it is incomplete, broken, or of no known family.
    """
    family = family_of(folder)
    if family is not None:
        return family.load(name, folder, dtype)
    found = [folder / file for file in _CONFIGURATIONS if is_there(folder / file)]
    configs = [read_json(path) for path in found]  # what is broken is named first
    if not configs:
        raise CheckpointError(f"{folder}: no checkpoint; it has no {' or '.join(_CONFIGURATIONS)}")
    types = [config["model_type"] for config in configs if "model_type" in config]
    raise CheckpointError(
        f"{folder}: of no model family that voxfast runs "
        f"({', '.join(family.name for family in FAMILIES)}); "
        + (f"its model_type is {types[0]!r:.60}" if types else "it names no model_type")
    )


def missing_files(folder: Path) -> list[str]:
    """What a model cannot be loaded without and a folder does not hold; empty if it is whole.

    Other programs fill the hub's cache with the files that they need themselves, and a
    download may have been interrupted. Where the configuration is there and no family recognises
    it, nothing is missing: loading will say so.
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

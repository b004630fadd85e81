"""Inspection of checkpoint folders without loading them."""

import json
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import CONSOLIDATED, INDEX, MAX_JSON, read_json

__all__ = ["conversions", "file_names", "has_tensor", "missing_weights", "peek_json"]

_SHARD = re.compile(r".*-(\d{5})-of-(\d{5})\.safetensors")


def peek_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if the file is missing or broken."""
    try:
        return read_json(path)
    except CheckpointError:
        return {}


def file_names(folder: Path) -> set[str]:
    """Names of the files in a folder, without dangling links."""
    return {path.name for path in folder.iterdir() if path.exists()}


def missing_weights(folder: Path, names: Iterable[str]) -> list[str]:
    """The missing shards; the name of the single file if there are no weights."""
    weights = {name for name in names if name.endswith(".safetensors") and name != CONSOLIDATED}
    if INDEX in names:
        shards = peek_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(x, str) for x in shards.values()):
            return [INDEX]
        return sorted({*shards.values()} - weights)
    shards = {match[2]: match for name in weights if (match := _SHARD.fullmatch(name))}
    for count, match in shards.items():
        stem = match[0].removesuffix(f"-{match[1]}-of-{count}.safetensors")
        every = {f"{stem}-{i:05d}-of-{count}.safetensors" for i in range(1, int(count) + 1)}
        if missing := sorted(every - weights):
            return missing
    return [] if weights else ["model.safetensors"]


def conversions(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith("model") and name.endswith(".safetensors")]


def has_tensor(path: Path, parts: tuple[str, ...]) -> bool:
    """Whether a safetensors file has a tensor whose name contains one of these parts."""
    try:
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            names = json.loads(file.read(length)) if length <= MAX_JSON else ()
    except (OSError, ValueError, RecursionError, struct.error):
        return False
    return any(part in name for name in names for part in parts)

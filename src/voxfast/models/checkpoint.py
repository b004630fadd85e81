"""Reading checkpoint folders: JSON and safetensors files, checked before they are used.

Files come from anywhere, so nothing in them is believed: sizes in headers are compared with
the file before anything is allocated, and neither names of shards nor links lead out of the
folder.
"""

import json
import stat
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import mlx.core as mx

from voxfast.errors import CheckpointError

__all__ = [
    "check_file",
    "compare_tensors",
    "is_file",
    "load_tensors",
    "read_json",
    "weight_files",
]

_ITEM_SIZE = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4}
MAX_JSON = 64 << 20
_MAX_DIMENSIONS = 8


def check_file(path: Path, most_bytes: int | None = None) -> None:
    """Check a file of a checkpoint before it is opened.

    Args:
        path: of the file; the folder it is named in is the checkpoint's.
        most_bytes: the largest size that such a file has.

    Raises:
        CheckpointError: if it is missing, too large, no regular file (reading a device may
            never end), or a link that leads out of the folder.
    """
    try:
        real, folder = path.resolve(strict=True), path.parent.resolve()
        status = real.stat()
    except (OSError, ValueError, RuntimeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise CheckpointError(f"{path}: cannot be opened ({reason})") from error
    allowed = [folder]
    if folder.parent.name == "snapshots":  # the hub's cache links snapshots/REVISION to blobs
        allowed.append(folder.parent.parent / "blobs")
    if real.parent not in allowed:
        raise CheckpointError(
            f"{path}: is a link to {real}, outside the checkpoint; put the file itself there"
        )
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: is not a regular file")
    if most_bytes is not None and status.st_size > most_bytes:
        raise CheckpointError(f"{path}: {status.st_size} bytes; expected {most_bytes} at most")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: if the file is missing, larger than 64 MB, or no JSON object.
    """
    check_file(path, MAX_JSON)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, not {type(value).__name__}")
    return value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one file, or the shards that its index names.

    Raises:
        CheckpointError: if there are none, or the index names what is not in the folder.
    """
    single = folder / "consolidated.safetensors"
    if single.is_file():
        return [single]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        found = sorted(folder.glob("model*.safetensors"))
        if not found:
            raise CheckpointError(
                f"{folder}: no weights; expected consolidated.safetensors or model*.safetensors"
            )
        return found
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{index}: needs an object 'weight_map'")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: {name!r:.80} is not the name of a shard")
        if not is_file(folder / name):
            raise CheckpointError(f"{folder}: the shard {name:.80} is missing; download it again")
    return [folder / name for name in names]


def load_tensors(files: Iterable[Path]) -> dict[str, mx.array]:
    """All tensors of the files, not read yet: MLX reads each when it is first used.

    Raises:
        CheckpointError: on a truncated or malformed file, a type that no layer uses, or a
            tensor that two files hold.
    """
    tensors: dict[str, mx.array] = {}
    for path in files:
        _check_safetensors(path)
        try:
            loaded = mx.load(str(path))
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from error
        if not isinstance(loaded, dict):
            raise CheckpointError(f"{path}: holds no named tensors")
        twice = tensors.keys() & loaded.keys()
        if twice:
            raise CheckpointError(f"{path}: {min(twice)!r} is in another file as well")
        tensors.update(loaded)
    return tensors


def compare_tensors(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise CheckpointError, naming them, on missing, extra or misshapen tensors."""
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    misshapen = [
        f"{name} is {found[name]}, not {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if found[name] != expected[name]
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("unknown", extra), ("misshapen", misshapen))
        if names
    ]
    if problems:
        raise CheckpointError(f"the tensors do not fit the configuration; {'; '.join(problems)}")


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _check_safetensors(path: Path) -> None:
    """Compare a safetensors header with its file (format: github.com/huggingface/safetensors)."""
    check_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(size - 8, MAX_JSON):
            raise CheckpointError(f"{path}: not a safetensors file, or cut off in its header")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: the header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is not a JSON object")
    header.pop("__metadata__", None)
    data = size - 8 - length
    for name, entry in header.items():
        _check_entry(path, name, entry, data)


def _check_entry(path: Path, name: str, entry: Any, data: int) -> None:
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _ITEM_SIZE:
        raise CheckpointError(
            f"{path}: {name!r:.80} has type {dtype!r:.20}; expected one of {', '.join(_ITEM_SIZE)}"
        )
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{path}: {name!r:.80} has no valid shape and place in the file")
    count = 1
    for size in shape:
        count *= size
    if len(shape) > _MAX_DIMENSIONS or offsets[1] - offsets[0] != count * _ITEM_SIZE[dtype]:
        raise CheckpointError(f"{path}: {name!r:.80} has shape {shape} but bytes {offsets}")
    if offsets[1] > data:
        raise CheckpointError(
            f"{path}: the file ends before {name!r:.80}; it is cut off, download it again"
        )


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 48
        for item in value
    )

"""Reading checkpoint folders: JSON and safetensors files, validated before use.

Files are untrusted: sizes in headers are compared with the file before anything is allocated,
and the names of shards must not lead out of the folder. The entries of a folder may be links:
the hub's cache, Nix, DVC, git-annex and Kubernetes store files this way.
"""

import json
import stat
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from voxfast.errors import CheckpointError
from voxfast.models.values import AFFINE_ONLY, packing

if TYPE_CHECKING:
    import mlx.core as mx

__all__ = [
    "check_file",
    "compare_tensors",
    "is_file",
    "is_there",
    "load_tensors",
    "read_json",
    "refuse_transformers",
    "weight_files",
]

CONSOLIDATED = "consolidated.safetensors"
INDEX = "model.safetensors.index.json"
_ITEM_SIZE = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4}
MAX_JSON = 64 << 20
_MAX_DIMENSIONS = 8


def check_file(path: Path, most_bytes: int | None = None) -> None:
    """Check a file of a checkpoint before it is opened.

    Args:
        path: of the file, or of a link to it.
        most_bytes: the largest acceptable size.

    Raises:
        CheckpointError: if it is missing, too large, or not a regular file (reading a device may
            never end).
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        if is_there(path):
            raise CheckpointError(
                f"{path}: is a link to {path.readlink()}, which cannot be opened ({reason}); "
                "fetch that file (git annex get, dvc pull, ...) or put the file itself there"
            ) from error
        raise CheckpointError(f"{path}: cannot be opened ({reason})") from error
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: is not a regular file")
    if most_bytes is not None and status.st_size > most_bytes:
        raise CheckpointError(f"{path}: {status.st_size} bytes; expected {most_bytes} at most")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: if the file is missing, larger than 64 MB, or not a JSON object.
    """
    check_file(path, MAX_JSON)
    try:
        data = path.read_bytes()
        _check_content(path, data)
        value = json.loads(data.decode("utf-8"))
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, not {type(value).__name__}")
    return value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one file, or the shards in its index.

    Mistral's ``consolidated.safetensors`` takes precedence over ``model*.safetensors``, which
    are the same weights for transformers. If the latter are packed they are a conversion of
    the former, and take precedence.

    Raises:
        CheckpointError: if there are none, or the index names a missing file.
    """
    single = folder / CONSOLIDATED
    if is_there(single) and not _is_packed(folder):
        return [single]
    index = folder / INDEX
    if not is_there(index):
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
        if not is_there(folder / name):
            raise CheckpointError(f"{folder}: the shard {name:.80} is missing; download it again")
    return [folder / name for name in names]


def _is_packed(folder: Path) -> bool:
    """Whether the ``model*.safetensors`` of a folder are packed, by configuration or tensors.

    Unreadable files are ignored here: they may not be needed.
    """
    files = sorted(folder.glob("model*.safetensors"))
    with suppress(CheckpointError):
        if files and packing(read_json(folder / "config.json")):
            return True
    for path in files:
        with suppress(CheckpointError):
            if any(name.endswith(".scales") for name in _header(path)):
                return True
    return False


def load_tensors(files: Iterable[Path]) -> "dict[str, mx.array]":
    """All tensors of the files, lazily: MLX reads each when it is first used.

    Raises:
        CheckpointError: for a truncated or malformed file, an unsupported dtype, or a tensor
            that is in two files.
    """
    import mlx.core as mx

    tensors: dict[str, mx.array] = {}
    for path in files:
        _header(path)
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
    """Raise CheckpointError for missing, extra or misshapen tensors; it names them."""
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


def refuse_transformers(
    folder: Path, names: Iterable[str], begins: tuple[str, ...], instead: str
) -> None:
    """Raise CheckpointError if tensors have the names of transformers' own layout.

    Args:
        folder: of the checkpoint.
        names: of its tensors.
        begins: prefixes of that layout.
        instead: the alternative to suggest.
    """
    if found := next((name for name in names if name.startswith(begins)), None):
        raise CheckpointError(
            f"{folder}: the weights are in the layout of transformers ({found!r:.80}), also "
            f"known as -hf, which voxfast does not read; use {instead}, or a conversion for MLX"
        )


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for an invalid name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_there(path: Path) -> bool:
    """Whether there is such a file or link, even a dangling one."""
    try:
        return path.is_symlink() or path.is_file()
    except (OSError, ValueError):
        return False


def _header(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name, checked against the size of the file.

    The format: github.com/huggingface/safetensors.

    Raises:
        CheckpointError: if the file is malformed or truncated.
    """
    check_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        _check_content(path, prefix)
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
    return header


def _check_content(path: Path, data: bytes) -> None:
    """Refuse the pointer files of Git LFS and git-annex."""
    for begin, program in ((b"version ", "git lfs pull"), (b"/annex/o", "git annex get")):
        if data.startswith(begin):
            raise CheckpointError(f"{path}: only points to the file; fetch it with: {program}")


def _check_entry(path: Path, name: str, entry: Any, data: int) -> None:
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if dtype == "U8" and name.endswith(".scales"):
        raise CheckpointError(
            f"{path}: {name!r:.80} are the scales of mxfp4, nvfp4 or mxfp8. {AFFINE_ONLY}"
        )
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

"""What a checkpoint folder may hold: files or links to them, of sizes that are there."""

import json
import os
import shutil
import struct
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import mlx.core as mx
import pytest
from fuzzing.tiny import write_tiny_voxtral

import voxfast
from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import MAX_JSON, load_tensors, read_json, weight_files
from voxfast.models.voxtral.convert import convert
from voxfast.models.voxtral.loaded import LoadedVoxtral

FILES = ("params.json", "tekken.json", "voxfast.json", "consolidated.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_voxtral(tmp_path / "checkpoint")


def load(folder: Path) -> LoadedVoxtral:
    return LoadedVoxtral("tiny", folder, None)


def link_each(folder: Path, names: Iterable[str], to: Path) -> None:
    """Move files of a folder, and leave links to them."""
    to.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.move(folder / name, to / name)
        (folder / name).symlink_to(to / name)


def test_folders_of_links(folder: Path, tmp_path: Path) -> None:
    """Nix's store, DVC's cache, git-annex's objects: each entry is a link to somewhere else."""
    link_each(folder, FILES, tmp_path / "store" / "hash")
    load(folder)
    loaded = load(convert(folder, tmp_path / "converted", bits=None))
    assert loaded.delays_ms
    assert not any(path.is_symlink() for path in (tmp_path / "converted").iterdir())


def test_links_of_links(folder: Path, tmp_path: Path) -> None:
    """Kubernetes mounts volumes so: name → ..data/name, ..data → ..2026_02_04."""
    version = folder / "..2026_02_04"
    version.mkdir()
    for name in FILES:
        shutil.move(folder / name, version / name)
        (folder / name).symlink_to(Path("..data") / name)
    (folder / "..data").symlink_to(version.name)
    load(folder)


@pytest.mark.parametrize("name", FILES)
def test_links_within_the_folder(folder: Path, name: str) -> None:
    (folder / name).rename(folder / "renamed")
    (folder / name).symlink_to("renamed")
    load(folder)


@pytest.mark.parametrize("blobs_elsewhere", [False, True])
def test_the_cache_of_the_hub_links_to_its_blobs(
    folder: Path, tmp_path: Path, blobs_elsewhere: bool
) -> None:
    repository = tmp_path / "models--owner--name"
    snapshot, blobs = repository / "snapshots" / "0123abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    if blobs_elsewhere:  # another disk, say
        (tmp_path / "disk").mkdir()
        blobs.symlink_to(tmp_path / "disk")
    else:
        blobs.mkdir()
    for name in FILES:
        shutil.move(folder / name, blobs / f"hash-{name}")
        (snapshot / name).symlink_to(Path("../../blobs") / f"hash-{name}")
    load(snapshot)
    assert voxfast.load(snapshot).delays_ms


def test_shards_may_be_links(folder: Path, tmp_path: Path) -> None:
    sharded = convert(folder, tmp_path / "sharded", bits=None, shard_bytes=4096)
    names = [path.name for path in weight_files(sharded)]
    assert len(names) > 1
    link_each(sharded, names, tmp_path / "store")
    load(sharded)


@pytest.mark.parametrize("name", FILES)
def test_links_that_lead_nowhere_are_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(folder.parent / ".git" / "annex" / "objects" / name)
    with pytest.raises(CheckpointError, match=rf"{name}.*(is a link to .*annex|is missing)"):
        load(folder)


def test_links_to_devices_are_not_read(folder: Path) -> None:
    for name in ("params.json", "consolidated.safetensors"):
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")
        with pytest.raises(CheckpointError, match="not a regular file"):
            load(folder)


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--0.safetensors\n", "git annex get"),
    ],
)
@pytest.mark.parametrize("name", ["consolidated.safetensors", "tekken.json"])
def test_what_git_keeps_in_the_place_of_a_file_is_named(
    folder: Path, name: str, content: bytes, command: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: only points to the file.*{command}"):
        load(folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "..", "a/b.safetensors"])
def test_an_index_names_files_of_the_folder_only(folder: Path, name: str) -> None:
    (folder / "consolidated.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "params.json").rename(folder / "config.json")
    index = {"weight_map": {"norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="not the name of a shard"):
        load(folder)


def test_names_that_no_file_can_have(folder: Path) -> None:
    (folder / "consolidated.safetensors").unlink()
    for name in ("a" * 300, "a\0b"):
        index = {"weight_map": {"x": f"{name}.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match="missing"):
            weight_files(folder)


def test_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")  # reading it would wait for ever
    (tmp_path / "folder.json").mkdir()
    for name in ("pipe.json", "folder.json"):
        with pytest.raises(CheckpointError, match="not a regular file"):
            read_json(tmp_path / name)


def test_a_file_of_any_size_is_not_read_as_json(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(MAX_JSON + 1)  # a hole; takes no room
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="67108865 bytes"):
        read_json(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ([1 << 40], [0, 1 << 42]),
        ([1 << 31, 1 << 31], [0, 1 << 64]),
        ([(1 << 48) - 1] * 2, [0, 16]),
        ([2], [8, 0]),
        ([-2, -1], [0, 8]),
        ([2], [1 << 47, (1 << 47) + 8]),
        ([0, 1 << 40], [0, 8]),
        ([True], [0, 4]),
    ],
)
def test_sizes_in_headers_are_checked_before_anything_is_allocated(
    tmp_path: Path, shape: list[int], offsets: list[int]
) -> None:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    before = mx.get_active_memory()
    with pytest.raises(CheckpointError, match="'x'"):
        load_tensors([path])
    assert mx.get_active_memory() == before


@pytest.mark.parametrize("dtype", [["F32"], {"F32": 1}, None, 3])
def test_types_of_the_wrong_kind_are_named(tmp_path: Path, dtype: object) -> None:
    entry = {"dtype": dtype, "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(CheckpointError, match="'x' has type"):
        load_tensors([path])


def test_files_that_disagree_on_time_are_refused(folder: Path) -> None:
    tekken = json.loads((folder / "tekken.json").read_text(encoding="utf-8"))
    tekken["audio"]["frame_rate"] = 25.0
    (folder / "tekken.json").write_text(json.dumps(tekken), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"40 ms by tekken\.json and 80 ms by the conf"):
        load(folder)


@pytest.mark.parametrize("delays", [[240, 320], [480, 500]])
def test_delays_that_a_checkpoint_cannot_have_are_refused_on_loading(
    folder: Path, delays: list[int]
) -> None:
    traits = json.loads((folder / "voxfast.json").read_text(encoding="utf-8"))
    traits["delays_ms"] = delays
    (folder / "voxfast.json").write_text(json.dumps(traits), encoding="utf-8")
    with pytest.raises(CheckpointError, match="multiples of 80 ms and include 480 ms"):
        load(folder)

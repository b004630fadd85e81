"""What a checkpoint folder may hold: files of its own, of sizes that are there."""

import json
import os
import shutil
import struct
import tracemalloc
from pathlib import Path

import mlx.core as mx
import pytest
from fuzzing.tiny import write_tiny_voxtral

import voxfast
from voxfast.errors import CheckpointError
from voxfast.models.checkpoint import MAX_JSON, load_tensors, read_json, weight_files
from voxfast.models.convert import convert
from voxfast.online.voxtral_engine import VoxtralEngine

FILES = ("params.json", "tekken.json", "voxfast.json", "consolidated.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_voxtral(tmp_path / "checkpoint")


def load(folder: Path) -> VoxtralEngine:
    return VoxtralEngine("tiny", folder, None)


@pytest.mark.parametrize("name", FILES)
def test_links_out_of_the_folder_are_not_followed(folder: Path, name: str) -> None:
    outside = folder.parent / f"outside-{name}"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(CheckpointError, match=f"{name}: is a link to .*outside-{name}, outside"):
        load(folder)
    if name != "params.json":
        with pytest.raises(CheckpointError, match="outside the checkpoint"):
            convert(folder, folder.parent / "converted", bits=None)


@pytest.mark.parametrize("name", FILES)
def test_links_within_the_folder_are(folder: Path, name: str) -> None:
    (folder / name).rename(folder / "renamed")
    (folder / name).symlink_to("renamed")
    load(folder)


def test_the_cache_of_the_hub_links_to_its_blobs(folder: Path) -> None:
    repository = folder.parent / "models--owner--name"
    snapshot, blobs = repository / "snapshots" / "0123abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in FILES:
        shutil.move(folder / name, blobs / f"hash-{name}")
        (snapshot / name).symlink_to(Path("../../blobs") / f"hash-{name}")
    load(snapshot)
    assert voxfast.load(snapshot).delays_ms
    secret = repository / "refs"
    (blobs / "hash-voxfast.json").rename(secret)
    (snapshot / "voxfast.json").unlink()
    (snapshot / "voxfast.json").symlink_to(secret)
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        load(snapshot)


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

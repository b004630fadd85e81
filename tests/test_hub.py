"""Names of models. Nothing here touches the network."""

import json
import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from voxfast import hub
from voxfast.errors import ModelNotFoundError
from voxfast.models.checkpoint import INDEX

MISTRAL = [
    ".gitattributes",
    "README.md",
    "config.json",
    "consolidated.safetensors",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "params.json",
    "processor_config.json",
    "tekken.json",
    "onnx/config.json",
    "onnx/model.safetensors",
    "sample.wav",
]


class Hub:
    """Stands in for the hub: records what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = MISTRAL
        self.failure: Exception | None = None
        self.calls: list[tuple[object, ...]] = []
        self.config: dict[str, Any] = {}

    def list_repo_files(self, repository: str) -> list[str]:
        self.calls.append(("list", repository))
        if self.failure:
            raise self.failure
        return self.files

    def snapshot_download(
        self, repository: str, *, cache_dir: str | None, allow_patterns: list[str]
    ) -> str:
        self.calls.append(("download", repository, tuple(allow_patterns)))
        return str(Path(cache_dir) if cache_dir else self.folder)

    def hf_hub_download(self, repository: str, name: str, *, cache_dir: str | None) -> str:
        self.calls.append(("file", repository, name))
        self.folder.mkdir(exist_ok=True)
        (self.folder / name).write_text(json.dumps(self.config))
        return str(self.folder / name)


@pytest.fixture
def fake(monkeypatch, tmp_path) -> Hub:
    fake = Hub(tmp_path / "downloaded")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.hf_hub_download)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "voxtral-numbers").mkdir(parents=True)
    monkeypatch.setattr(hub, "CHECKPOINTS", checkpoints)
    return fake


def http_error(kind: type[errors.HfHubHTTPError], message: str) -> errors.HfHubHTTPError:
    response = SimpleNamespace(headers={}, status_code=404, request=None)
    return kind(message, response=response)


VOXTRAL = {"model_type": "voxtral_realtime", "audio_config": {}, "text_config": {}}
QWEN = {"model_type": "qwen3_asr"}
PACKED = VOXTRAL | {"quantization": {"group_size": 64, "bits": 4}}
NAMES = {
    "voxfast": ["decoder.norm.weight"],
    "packed": ["norm.weight", "layers.0.attention.wq.scales"],
    "transformers": ["audio_tower.norm.weight", "language_model.model.norm.weight"],
}


def snapshot(
    cache: Path,
    files: list[str],
    config: dict[str, Any] | None = None,
    index: dict[str, str] | None = None,
    *,
    names: str = "voxfast",
    commit: str = "c0ffee",
    ref: str | None = "main",
) -> Path:
    """A snapshot of owner/name in a cache of the hub: links to blobs, and a ref."""
    home = cache / "models--owner--name"
    folder = home / "snapshots" / commit
    folder.mkdir(parents=True)
    (home / "blobs").mkdir(exist_ok=True)
    header = json.dumps({name: {} for name in NAMES[names]}).encode()
    contents = {
        "config.json": json.dumps(config or {}).encode(),
        "params.json": b'{"multimodal": {}}',
        INDEX: json.dumps({"weight_map": index}).encode(),
    }
    for name in [*files, *([INDEX] if index else [])]:
        weights = struct.pack("<Q", len(header)) + header
        blob = home / "blobs" / f"{commit}-{name}"
        blob.write_bytes(contents.get(name, weights))
        (folder / name).symlink_to(blob)
    if ref:
        path = home / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)
    return folder


def test_embedded_before_folder(fake, tmp_path):
    (tmp_path / "voxtral-numbers").mkdir()
    assert hub.resolve("voxtral-numbers") == tmp_path / "checkpoints" / "voxtral-numbers"
    assert list(hub.embedded_models()) == ["voxtral-numbers"]
    # As a path it is the folder.
    assert hub.resolve(Path("voxtral-numbers")) == Path("voxtral-numbers")


def test_folder_before_hub(fake, tmp_path):
    (tmp_path / "Qwen" / "Qwen3-ASR-0.6B").mkdir(parents=True)
    assert hub.resolve("Qwen/Qwen3-ASR-0.6B") == Path("Qwen/Qwen3-ASR-0.6B")
    assert hub.resolve(str(tmp_path)) == tmp_path
    assert fake.calls == []


def test_another_cache(fake, tmp_path):
    place = tmp_path / "elsewhere"
    assert hub.resolve("voxtral-mini-4b", str(place)) == place
    folder = snapshot(place, ["config.json", "tekken.json", "model.safetensors"], VOXTRAL)
    assert hub.resolve("owner/name", str(place)) == folder
    assert hub.cached("owner/name") is None


def test_alias_downloads_only_what_is_needed(fake):
    assert hub.resolve("Voxtral-Mini-4B") == fake.folder
    repository = "mistralai/Voxtral-Mini-4B-Realtime-2602"
    assert fake.calls == [
        ("list", repository),
        ("file", repository, "config.json"),
        (
            "download",
            repository,
            (
                "config.json",
                "consolidated.safetensors",
                "generation_config.json",
                "params.json",
                "processor_config.json",
                "tekken.json",
            ),
        ),
    ]


def test_needed_files_of_other_layouts():
    qwen = ["config.json", "vocab.json", "merges.txt", "model.safetensors", "README.md", "a.bin"]
    assert hub.needed_files(qwen) == [
        "config.json",
        "merges.txt",
        "model.safetensors",
        "vocab.json",
    ]
    shards = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    assert hub.needed_files(shards) == sorted(shards)


def test_a_conversion_is_downloaded_without_what_it_was_made_of(fake):
    """mlx-audio copies Mistral's files beside the packed weights."""
    fake.config = PACKED
    hub.resolve("owner/name")
    (downloaded,) = (set(call[2]) for call in fake.calls if call[0] == "download")
    assert "consolidated.safetensors" not in downloaded
    assert {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} < downloaded
    assert {"config.json", "tekken.json", "model.safetensors.index.json"} < downloaded


def test_what_is_packed_alone_is_no_matter_of_names():
    packed = ["config.json", "params.json", "consolidated.safetensors", "tekken.json"]
    assert "consolidated.safetensors" in hub.needed_files(packed, PACKED)
    assert hub.needed_files([*packed, "model.safetensors"], PACKED) == sorted(
        {*packed, "model.safetensors"} - {"consolidated.safetensors"}
    )


MISTRALS = ["params.json", "consolidated.safetensors", "tekken.json"]
VOCABULARY = ["vocab.json", "merges.txt", "tokenizer_config.json"]
CONVERTED = ["config.json", "model.safetensors"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
WHOLE = [
    (MISTRALS, {}, None),
    ([*MISTRALS, *CONVERTED], VOXTRAL, None),
    ([*MISTRALS, "config.json"], VOXTRAL, {"x": "model-00001-of-00002.safetensors"}),
    (["config.json", "consolidated.safetensors", "tekken.json"], VOXTRAL, None),
    ([*CONVERTED, "tekken.json"], PACKED, None),
    ([*CONVERTED, *MISTRALS], PACKED, None),
    ([*CONVERTED, "tekken.json"], VOXTRAL, None),
    (["params.json", "model.safetensors", "tekken.json"], {}, None),
    ([*CONVERTED, *VOCABULARY], QWEN, None),
    (["config.json", *SHARDS, *VOCABULARY], QWEN, None),
    (["config.json", "a.safetensors", "tekken.json"], VOXTRAL, {"x": "a.safetensors"}),
    # Loading it will say that no family is its own.
    (["config.json"], {"model_type": "bert"}, None),
]
INCOMPLETE = [
    (["params.json", "tekken.json"], {}, None, ["consolidated.safetensors"]),
    (["params.json", "consolidated.safetensors"], {}, None, ["tekken.json"]),
    (["config.json", "consolidated.safetensors", "tekken.json"], {}, None, ["params.json"]),
    (["config.json", *MISTRALS], PACKED, None, ["model.safetensors"]),
    (CONVERTED, VOXTRAL, None, ["tekken.json"]),
    (["config.json", "tekken.json"], VOXTRAL, None, ["model.safetensors"]),
    (["config.json", *MISTRALS, SHARDS[0]], PACKED, {"x": SHARDS[0], "y": SHARDS[1]}, [SHARDS[1]]),
    (["config.json", "tekken.json", SHARDS[0]], VOXTRAL, None, [SHARDS[1]]),
    (
        ["config.json", "a.safetensors", "tekken.json"],
        VOXTRAL,
        {"x": "a.safetensors", "y": "b.safetensors"},
        ["b.safetensors"],
    ),
    ([*CONVERTED, "vocab.json", "merges.txt"], QWEN, None, ["tokenizer_config.json"]),
    ([*CONVERTED, "tokenizer.json"], QWEN, None, VOCABULARY),
    (["config.json", *VOCABULARY], QWEN, None, ["model.safetensors"]),
    ([*CONVERTED, "tekken.json"], QWEN, None, VOCABULARY),
    (["config.json"], VOXTRAL, None, ["tekken.json", "model.safetensors"]),
    ([], {}, None, ["config.json"]),
]


@pytest.mark.parametrize(("files", "config", "index"), WHOLE)
def test_whole_snapshot_needs_no_network(fake, tmp_path, files, config, index):
    folder = snapshot(tmp_path / "hub", files, config, index)
    assert hub.resolve("owner/name") == folder
    assert fake.calls == []


@pytest.mark.parametrize(("files", "config", "index", "missing"), INCOMPLETE)
def test_incomplete_snapshot_is_completed(
    fake, tmp_path, monkeypatch, files, config, index, missing
):
    folder = snapshot(tmp_path / "hub", files, config, index)
    assert hub.missing_files(folder) == missing
    assert hub.resolve("owner/name") == fake.folder
    assert [call[0] for call in fake.calls if call[0] != "file"] == ["list", "download"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match=f"lacks {', '.join(missing)} of owner/name"):
        hub.resolve("owner/name")


def test_a_cache_that_transformers_filled_is_completed(fake, tmp_path):
    """Mistral's repository without Mistral's weights: those are fetched, and no others."""
    files = ["config.json", "model.safetensors", "tekken.json"]
    folder = snapshot(tmp_path / "hub", files, VOXTRAL, names="transformers")
    assert hub.missing_files(folder) == ["params.json", "consolidated.safetensors"]
    assert hub.resolve("owner/name") == fake.folder
    (downloaded,) = (call[2] for call in fake.calls if call[0] == "download")
    assert "consolidated.safetensors" in downloaded
    assert not any(name.startswith("model") for name in downloaded)


def test_mistrals_file_may_be_packed_itself(fake, tmp_path):
    folder = snapshot(tmp_path / "hub", ["config.json", *MISTRALS], PACKED, names="packed")
    assert hub.resolve("owner/name") == folder


def test_the_main_branch_before_other_snapshots(fake, tmp_path):
    cache = tmp_path / "hub"
    old = snapshot(cache, MISTRALS, commit="01d", ref=None)
    older = snapshot(cache, MISTRALS, commit="01de5", ref=None)
    for path, seconds in ((older, 1), (old, 2)):
        os.utime(path, (seconds, seconds))
    assert hub.resolve("owner/name") == old  # without a ref, too
    main = snapshot(cache, MISTRALS, commit="123")
    os.utime(main, (0, 0))
    assert hub.resolve("owner/name") == main
    (main / "tekken.json").unlink()
    assert hub.resolve("owner/name") == old
    assert fake.calls == []


def test_a_pull_request_is_not_the_model(fake, tmp_path):
    snapshot(tmp_path / "hub", MISTRALS, commit="bad", ref="refs/pr/1")
    assert hub.resolve("owner/name") == fake.folder
    snapshot(tmp_path / "hub", MISTRALS, commit="900d")
    assert hub.resolve("owner/name").name == "900d"


@pytest.mark.parametrize("content", [b"gone", b"../../..", b"\xff", b""])
def test_refs_that_lead_nowhere(fake, tmp_path, content):
    ref = tmp_path / "hub" / "models--owner--name" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_bytes(content)
    assert hub.cached("owner/name") is None
    assert hub.resolve("owner/name") == fake.folder


def test_dangling_link_is_not_whole(fake, tmp_path):
    folder = snapshot(tmp_path / "hub", MISTRALS)
    assert hub.cached("owner/name") == folder
    (folder / "consolidated.safetensors").resolve().unlink()
    assert hub.cached("owner/name") is None


def test_broken_index_is_not_whole(fake, tmp_path):
    files = ["config.json", "model.safetensors", "tekken.json"]
    folder = snapshot(tmp_path / "hub", files, VOXTRAL)
    for text in ("", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "[" * 100_000):
        (folder / "model.safetensors.index.json").write_text(text)
        assert hub.cached("owner/name") is None


def test_offline(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match=r"does not hold owner/name.*HF_HUB_OFFLINE"):
        hub.resolve("owner/name")
    assert fake.calls == []
    folder = snapshot(tmp_path / "hub", MISTRALS)
    assert hub.resolve("owner/name") == folder


def test_unknown_name_says_where_it_looked(fake, tmp_path):
    with pytest.raises(ModelNotFoundError) as raised:
        hub.resolve("voxtral-nmbers")
    message = str(raised.value)
    assert "similar names: voxtral-numbers" in message
    assert str(tmp_path / "checkpoints") in message
    assert str(tmp_path / "voxtral-nmbers") in message
    assert "qwen3-asr-0.6b" in message
    assert fake.calls == []


@pytest.mark.parametrize(
    "name", ["", " ", "zzz", "./a/b", "/no/such", "a/b/c", "owner/", "../x", "~nobody-x/y", "a\0b"]
)
def test_names_that_are_never_asked_for(fake, name):
    with pytest.raises(ModelNotFoundError):
        hub.resolve(name)
    with pytest.raises(ModelNotFoundError):
        hub.resolve(Path("owner/name"))
    assert fake.calls == []


def test_file_instead_of_folder(fake, tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelNotFoundError, match="is a file"):
        hub.resolve("model.safetensors")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            http_error(errors.RepositoryNotFoundError, "404"),
            "no model mistralai/Voxtral-Mini-4B-Rea",
        ),
        (http_error(errors.GatedRepoError, "401"), "terms.*https://huggingface.co/mistralai"),
        (http_error(errors.HfHubHTTPError, "500 oops\nmore"), r"HfHubHTTPError: 500 oops\)"),
        (ConnectionError("no route"), r"ConnectionError: no route.*try again"),
        (OSError(28, "No space left on device"), "No space left"),
        (RuntimeError(""), "no reason given"),
    ],
)
def test_failures_of_the_hub(fake, failure, message):
    fake.failure = failure
    with pytest.raises(ModelNotFoundError, match=message) as raised:
        hub.resolve("mistralai/Voxtral-Mini-4B-Realtime-2603")
    assert "\n" not in str(raised.value)
    # The hub's own exceptions are not shown under ours.
    assert raised.value.__suppress_context__
    if type(failure) is errors.RepositoryNotFoundError:
        assert "similar names: mistralai/Voxtral-Mini-4B-Realtime-2602" in str(raised.value)


def test_failure_while_downloading(fake, monkeypatch):
    def fail(*args: object, **options: object) -> str:
        raise TimeoutError("too slow")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelNotFoundError, match="too slow"):
        hub.resolve("owner/name")


def test_interrupt_is_not_an_error(fake):
    fake.failure = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        hub.resolve("owner/name")


def test_repository_without_weights(fake):
    fake.files = ["README.md", "config.json"]
    with pytest.raises(ModelNotFoundError, match="holds no model"):
        hub.resolve("owner/name")
    assert [call[0] for call in fake.calls] == ["list"]


def test_package_without_checkpoints(fake, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "CHECKPOINTS", tmp_path / "gone")
    with pytest.raises(ModelNotFoundError, match="package is incomplete"):
        hub.resolve("voxtral-numbers")


@pytest.mark.parametrize("name", ["owner/name-", "owner/-name", "owner/a--b", "owner/a.git"])
def test_names_that_the_hub_cannot_have(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no model"):
        hub.resolve(name)


@pytest.mark.parametrize("name", [None, 3, b"voxtral-numbers", ["voxtral-numbers"]])
def test_what_is_no_name(name: Any) -> None:
    with pytest.raises(ModelNotFoundError, match="a model is named by a text or a path; got"):
        hub.resolve(name)

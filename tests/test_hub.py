"""Names of models. Nothing here touches the network."""

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from voxfast import hub
from voxfast.errors import ModelNotFoundError

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
        self.cache: dict[str, Path] = {}

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

    def try_to_load_from_cache(
        self, repository: str, name: str, *, cache_dir: str | None
    ) -> str | object | None:
        path = self.cache.get(f"{cache_dir or ''}{repository}", Path("nowhere")) / name
        return str(path) if path.exists() else None


@pytest.fixture
def fake(monkeypatch, tmp_path) -> Hub:
    fake = Hub(tmp_path / "downloaded")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", fake.try_to_load_from_cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "voxtral-numbers").mkdir(parents=True)
    monkeypatch.setattr(hub, "CHECKPOINTS", checkpoints)
    return fake


def http_error(kind: type[errors.HfHubHTTPError], message: str) -> errors.HfHubHTTPError:
    response = SimpleNamespace(headers={}, status_code=404, request=None)
    return kind(message, response=response)


def snapshot(folder: Path, files: list[str], index: dict[str, str] | None = None) -> Path:
    folder.mkdir()
    for name in files:
        (folder / name).write_text("{}")
    if index is not None:
        text = json.dumps({"weight_map": index})
        (folder / "model.safetensors.index.json").write_text(text)
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
    fake.cache[f"{place}Qwen/Qwen3-ASR-0.6B"] = fake.folder
    fake.folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (fake.folder / name).touch()
    assert hub.resolve("Qwen/Qwen3-ASR-0.6B", str(place)) == fake.folder


def test_alias_downloads_only_what_is_needed(fake):
    assert hub.resolve("Voxtral-Mini-4B") == fake.folder
    repository = "mistralai/Voxtral-Mini-4B-Realtime-2602"
    assert fake.calls == [
        ("list", repository),
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


WHOLE = [
    (["params.json", "consolidated.safetensors", "tekken.json"], None),
    (["config.json", "model.safetensors", "tekken.json"], None),
    (["config.json", "model.safetensors", "vocab.json", "merges.txt"], None),
    (["config.json", "a.safetensors", "b.safetensors", "tekken.json"], {"x": "a.safetensors"}),
]
INCOMPLETE = [
    (["params.json", "tekken.json"], None),
    (["config.json", "consolidated.safetensors", "tekken.json"], None),
    (["config.json", "model.safetensors"], None),
    (["config.json", "model.safetensors", "vocab.json"], None),
    (["config.json", "model-00001-of-00002.safetensors", "tekken.json"], None),
    (["config.json", "a.safetensors", "tekken.json"], {"x": "a.safetensors", "y": "b.safetensors"}),
]


@pytest.mark.parametrize(("files", "index"), WHOLE)
def test_whole_snapshot_needs_no_network(fake, tmp_path, files, index):
    fake.cache["owner/name"] = snapshot(tmp_path / "cached", files, index)
    assert hub.resolve("owner/name") == tmp_path / "cached"
    assert fake.calls == []


@pytest.mark.parametrize(("files", "index"), INCOMPLETE)
def test_incomplete_snapshot_is_completed(fake, tmp_path, files, index):
    fake.cache["owner/name"] = snapshot(tmp_path / "cached", files, index)
    assert hub.resolve("owner/name") == fake.folder
    assert [call[0] for call in fake.calls] == ["list", "download"]


def test_dangling_link_is_not_whole(fake, tmp_path):
    folder = snapshot(tmp_path / "cached", ["params.json", "tekken.json"])
    (folder / "consolidated.safetensors").symlink_to(tmp_path / "gone")
    fake.cache["owner/name"] = folder
    assert hub.cached("owner/name") is None


def test_broken_index_is_not_whole(fake, tmp_path):
    folder = snapshot(tmp_path / "cached", ["config.json", "model.safetensors", "tekken.json"])
    for text in ("", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "[" * 100_000):
        (folder / "model.safetensors.index.json").write_text(text)
        fake.cache["owner/name"] = folder
        assert hub.cached("owner/name") is None


def test_offline(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE"):
        hub.resolve("owner/name")
    assert fake.calls == []
    files = ["params.json", "consolidated.safetensors", "tekken.json"]
    fake.cache["owner/name"] = snapshot(tmp_path / "cached", files)
    assert hub.resolve("owner/name") == tmp_path / "cached"


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

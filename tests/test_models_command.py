"""``voxfast models``, on a cache of the hub that is made here."""

import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from voxfast import cli, hub
from voxfast.cli.models import _size

REPOSITORY = hub.ALIASES["voxtral-mini-4b"]
QWEN = hub.ALIASES["qwen3-asr-0.6b"]
WEIGHTS = 3_000_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, which does not exist yet; the network is never asked."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def download(
    cache: Path,
    repository: str,
    files: dict[str, int],
    commit: str = "c0ffee",
    params: str = '{"multimodal": {}}',
) -> Path:
    """A snapshot of files of such sizes, all zeros but ``params.json``."""
    home = cache / f"models--{repository.replace('/', '--')}"
    folder = home / "snapshots" / commit
    for path in (folder, home / "blobs", home / "refs"):
        path.mkdir(parents=True, exist_ok=True)
    for name, size in files.items():
        blob = home / "blobs" / f"{commit}-{name}"
        blob.write_bytes(params.encode().ljust(size) if name == "params.json" else bytes(size))
        (folder / name).symlink_to(blob)
    (home / "refs" / "main").write_text(commit)
    return home


VOXTRAL = {"params.json": 1000, "tekken.json": 2000, "consolidated.safetensors": WEIGHTS}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["models", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def rows(out: str) -> dict[str, str]:
    return {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}


def test_all_that_there_is(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert code == 0
    listed = rows(out)
    assert listed["NAME"] == "SIZE REPOSITORY"
    assert listed["voxtral-numbers"].endswith("MB embedded")
    for name, repository in hub.ALIASES.items():
        assert listed[name] == f"- not downloaded {repository}"
    assert str(cache) in err


def test_what_is_cached_and_what_is_not_whole(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = download(cache, REPOSITORY, VOXTRAL)
    download(cache, "somebody/voxtral", VOXTRAL)
    partial = download(cache, QWEN, {"vocab.json": 500})
    (partial / "blobs" / "abc.incomplete").write_bytes(bytes(70_000))
    download(cache, "mistralai/no-speech", VOXTRAL, params="{}")
    download(cache, "google/bert", {"model.safetensors": 10, "vocab.txt": 10})
    code, out, _ = run(capsys, "-q")
    assert code == 0
    listed = rows(out)
    assert listed["voxtral-mini-4b"] == f"3.0 MB cached {REPOSITORY}"
    assert listed["qwen3-asr-0.6b"] == f"70.5 kB incomplete {QWEN}"
    assert listed["somebody/voxtral"] == "3.0 MB cached somebody/voxtral"
    assert "google/bert" not in out
    assert "no-speech" not in out
    (home / "blobs" / "c0ffee-tekken.json").unlink()
    code, out, err = run(capsys)
    assert code == 0
    assert "tekken.json" in err  # the hub's own scan cannot make sense of it


@pytest.mark.parametrize("name", ["voxtral-mini-4b", "Voxtral-Mini-4B", REPOSITORY])
def test_removing(cache: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    home = download(cache, REPOSITORY, VOXTRAL)
    download(cache, REPOSITORY, VOXTRAL, commit="bead")  # another revision
    (home / "blobs" / "abc.incomplete").write_bytes(bytes(500_000))
    kept = download(cache, QWEN, {"vocab.json": 500})  # the same revision, as after a renaming
    code, out, _ = run(capsys, "--remove", name)
    assert code == 0
    assert out == f"{REPOSITORY}: removed, 6.5 MB freed\n"
    assert not home.exists()
    assert kept.exists()
    code, out, err = run(capsys, "--remove", name)
    assert (code, out) == (1, "")
    assert f"{REPOSITORY} is not in the cache {cache}" in err


def test_blobs_that_are_elsewhere(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Removing the cache's folder frees nothing if its blobs are a link: that is said."""
    home = download(cache, REPOSITORY, VOXTRAL)
    (home / "blobs").rename(tmp_path / "disk")
    (home / "blobs").symlink_to(tmp_path / "disk")
    code, _, err = run(capsys, "--remove", REPOSITORY)
    assert code == 1
    assert "could not be removed; 0.0 kB were freed" in err
    assert str(tmp_path / "disk") in err


@pytest.mark.parametrize(
    ("name", "message"),
    [("voxtral-numbers", "part of voxfast"), ("folder", "is a folder"), ("no-such", "not in the")],
)
def test_what_is_not_removed(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    home = download(cache, REPOSITORY, VOXTRAL)
    code, out, err = run(capsys, "--remove", REPOSITORY, name)
    assert code == (1 if name == "no-such" else 2)
    assert out == ""
    assert message in err
    assert home.exists()  # nothing was removed before all names were known
    assert (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("answer", "options", "removed"),
    [("y\n", [], True), ("n\n", [], False), ("\n", [], False), ("", [], False), ("", ["-y"], True)],
)
def test_a_terminal_is_asked(
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    options: list[str],
    removed: bool,
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    home = download(cache, REPOSITORY, VOXTRAL)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, out, err = run(capsys, "--remove", REPOSITORY, *options)
    assert code == 0
    assert home.exists() != removed
    assert ("removed" if removed else "kept") in out
    assert (str(home) in err) == (not options)


def test_sizes() -> None:
    assert [_size(n) for n in (0, 999, 70_499, 999_999, 8_859_462_744, 10**13)] == [
        "0.0 kB", "1.0 kB", "70.5 kB", "1000.0 kB", "8.9 GB", "10000.0 GB",
    ]  # fmt: skip

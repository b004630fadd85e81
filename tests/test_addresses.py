"""Recordings at addresses, through fsspec."""

import json
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from encoded import encoded

import voxfast
from voxfast import audio
from voxfast._addresses import check_address, is_address, listed, without_secrets
from voxfast.batch import collect, transcribe_files
from voxfast.errors import AudioFileError, DatasetError

fsspec = pytest.importorskip("fsspec")


def test_what_is_an_address():
    assert is_address("s3://bucket/x.wav")
    assert not is_address("s3:/bucket/x.wav")
    assert not is_address("a/s3://x.wav")


def test_secrets_are_not_shown():
    assert without_secrets("https://me:pw@host:1/a/b.wav?sig=1#x") == "https://host:1/a/b.wav"
    assert without_secrets("s3://bucket/a?b#c.wav") == "s3://bucket/a?b#c.wav"
    assert without_secrets("http://[::1/a.wav?sig=1") == "http://[::1/a.wav"
    assert without_secrets("http://me:pw@[::1/a.wav?sig=1") == "http://[::1/a.wav"


@pytest.mark.parametrize(
    "address",
    ["ssh://host/x.wav", "zip://x.wav::file:///a.zip", "simplecache::http://x", "memory://x.wav"],
)
def test_addresses_of_other_kinds_are_refused(address):
    with pytest.raises((AudioFileError, DatasetError)):
        collect([address])


def test_an_address_of_another_kind_in_a_manifest_fails_alone(tmp_path):
    (tmp_path / "list.csv").write_text("path\nssh://host/x.wav\n")
    assert transcribe_files([tmp_path / "list.csv"], tmp_path / "out", workers=1).failed == 1
    line = json.loads((tmp_path / "out" / "index.jsonl").read_text())
    assert "is no address that is read" in line["error"]


def test_a_store_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ImportError, match="pip install fsspec s3fs"):
        check_address("s3://bucket/x.wav")


@pytest.mark.parametrize("name", ["flac", "m4a", "m4a-index-first", "opus", "mp3", "webm"])
def test_an_object_is_read_as_a_file_is(tmp_path, name):
    path = tmp_path / "x"
    path.write_bytes(encoded(name))
    expected = audio.load_audio(path)
    got = audio.load_audio(f"file://{path}")
    # An end that only the index of a container tells may be there or not.
    assert abs(len(got) - len(expected)) <= 1200
    size = min(len(got), len(expected))
    assert np.abs(got[:size] - expected[:size]).max() < 0.05
    assert audio.duration(f"file://{path}") is None


def test_wav_from_a_second_on(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "x.wav", np.linspace(-0.5, 0.5, 32000), 16000)
    whole = audio.load_audio(tmp_path / "x.wav")
    np.testing.assert_array_equal(
        audio.load_audio(f"file://{tmp_path}/x.wav", start=0.5), whole[8000:]
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\1\2\3" * 999, "begins like no audio file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG image"),
    ],
)
def test_what_is_no_audio_is_not_taken_for_raw_pcm(tmp_path, data, message):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(AudioFileError, match=message):
        audio.load_audio(f"file://{tmp_path}/x")
    with pytest.raises(AudioFileError, match="does not exist"):
        audio.load_audio(f"file://{tmp_path}/y")


def test_what_a_store_raises_is_an_error_of_the_recording(tmp_path, monkeypatch):
    path = tmp_path / "x.flac"
    path.write_bytes(encoded("flac", 3.0))
    opened = fsspec.open

    class Broken:
        def __init__(self, file: object) -> None:
            self._file, self._left = file, 30_000

        def read(self, most: int) -> bytes:
            data = self._file.read(min(most, self._left))
            self._left -= len(data)
            if not data:
                raise TimeoutError("no answer from https://host/x.flac?token=secret")
            return data

        def close(self) -> None:
            self._file.close()

    class Opener:
        def __init__(self, *arguments: str) -> None:
            self._arguments = arguments

        def open(self) -> Broken:
            return Broken(opened(*self._arguments).open())

    monkeypatch.setattr(fsspec, "open", Opener)
    blocks = []
    with pytest.raises(AudioFileError, match="cannot be read: TimeoutError") as error:
        blocks.extend(audio.stream_file(f"file://{path}"))
    assert "secret" not in str(error.value)
    assert sum(map(len, blocks)) > 4000  # what had come is heard


def test_folders_and_patterns_of_a_store(tmp_path):
    for name in ("a/x.wav", "a/b/y.flac", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    root = f"file://{tmp_path}"
    assert listed(f"{root}/a/*.wav") == [f"{root}/a/x.wav"]
    found = collect([f"{root}/a/"])
    assert [item.path for item in found.recordings.values()] == [
        f"{root}/a/b/y.flac",
        f"{root}/a/x.wav",
    ]
    assert found.left_out == {".txt": 1}
    assert next(iter(found.recordings)) == f"file{tmp_path}/a/b/y.flac"
    for nothing in (f"{root}/c/", f"{root}/a/*.mp3"):
        with pytest.raises(DatasetError, match="there is nothing at file://"):
            collect([f"{root}/a/", nothing])


@pytest.mark.parametrize("name", ["flac", "m4a", "m4a-index-first"])
def test_an_object_is_opened_once(tmp_path, monkeypatch, name):
    (tmp_path / "x").write_bytes(encoded(name))
    opened, open_file = [], fsspec.open

    def noting(*arguments: str) -> object:
        opened.append(arguments)
        return open_file(*arguments)

    monkeypatch.setattr(fsspec, "open", noting)
    voxfast.transcribe(f"file://{tmp_path}/x")
    assert len(opened) == 1


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_web_server(tmp_path: Path):
    pytest.importorskip("aiohttp")
    (tmp_path / "x.flac").write_bytes(encoded("flac"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        place = f"http://127.0.0.1:{server.server_port}"
        got = audio.load_audio(f"{place}/x.flac?token=secret")
        np.testing.assert_array_equal(got, audio.load_audio(tmp_path / "x.flac"))
        with pytest.raises(AudioFileError, match="does not exist") as error:
            audio.load_audio(f"{place}/y.flac?token=secret")
        assert "secret" not in str(error.value)
    finally:
        server.shutdown()
        server.server_close()

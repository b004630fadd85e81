"""Files with Qwen3-ASR: the command and the server write what ``voxfast.transcribe`` returns."""

import json
import os
import signal
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem
from serving import fetch, serving

import voxfast
from voxfast import cli
from voxfast.formats import to_srt
from voxfast.serve.dialect import Problem
from voxfast.serve.transcriptions import Job

CLIPS = (18, 1, 9, 38, 22, 30)


@pytest.fixture(scope="module")
def model(qwen_folder: Path) -> Iterator[voxfast.Model]:
    with voxfast.load(qwen_folder, dtype=mx.float32) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def recording(eval_items: list[EvalItem], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six utterances with pauses between them."""
    pause = np.zeros(12_000)
    parts = [part for number in CLIPS for part in (eval_items[number].audio, pause)]
    return write(tmp_path_factory.mktemp("audio") / "talk.wav", np.concatenate(parts))


@pytest.fixture(scope="module")
def short(eval_items: list[EvalItem], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with a pause that is not cut there."""
    parts = [eval_items[1].audio[:60_000], np.zeros(12_000), eval_items[9].audio[:60_000]]
    return write(tmp_path_factory.mktemp("audio") / "short.wav", np.concatenate(parts))


def write(path: Path, audio: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.round(32767 * audio).astype("<i2").tobytes())
    return path


def command(qwen_folder: Path, path: Path, *options: str) -> int:
    model = ("--model", str(qwen_folder), "--dtype", "float32", "--quiet")
    return cli.main(["transcribe", str(path), *model, *options])


def test_the_command_writes_what_transcribe_returns(
    model: voxfast.Model,
    qwen_folder: Path,
    recording: Path,
    short: Path,
    running: list[int],
    tmp_path: Path,
) -> None:
    for path in (recording, short):
        expected = voxfast.transcribe(path, model=model)
        running.clear()
        for name in ("talk.json", "talk.srt", "talk.txt"):
            assert command(qwen_folder, path, "-o", str(tmp_path / name)) == 0
        assert (max(running) > 3) is (path == recording)
        document = json.loads((tmp_path / "talk.json").read_text())
        words = [(word["text"], word["start"], word["end"]) for word in document["words"]]
        assert words == [(word.text, word.start, word.end) for word in expected.words]
        starts = [segment["start"] for segment in document["segments"]]
        assert starts == [segment.start for segment in expected.segments]
        assert (tmp_path / "talk.srt").read_text() == to_srt(expected)
        assert (tmp_path / "talk.txt").read_text().split() == expected.text.split()


def test_an_endpoint_that_was_asked_for_is_kept(
    model: voxfast.Model, qwen_folder: Path, short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = voxfast.transcribe(short, model=model, endpoint_ms=300)
    assert command(qwen_folder, short, "--endpoint-ms", "300", "-f", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [word["end"] for word in document["words"]] == [word.end for word in expected.words]


def test_audio_that_comes_as_it_is_spoken_waits_for_no_other_utterance(
    qwen_folder: Path,
    short: Path,
    eval_items: list[EvalItem],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offline = []
    feed = voxfast.Session.feed

    def noting(session: voxfast.Session, samples: np.ndarray) -> list[voxfast.Word]:
        offline.append(session._stream.is_offline)
        return feed(session, samples)

    monkeypatch.setattr(voxfast.Session, "feed", noting)
    read, end = os.pipe()
    os.write(end, write(tmp_path / "brief.wav", eval_items[1].audio[:16_000]).read_bytes())
    os.close(end)
    assert command(qwen_folder, Path(f"/dev/fd/{read}")) == 0
    os.close(read)
    assert command(qwen_folder, short, "--chunk-ms", "1000") == 0
    assert offline == [False] * 13 + [True] * 7


def test_an_interrupt_keeps_what_was_transcribed(
    model: voxfast.Model,
    qwen_folder: Path,
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The signal comes when an utterance has been transcribed, and others are on their way."""
    monkeypatch.setattr("voxfast.models.qwen3_asr.stream.SIDE_BY_SIDE", 2)
    expected = voxfast.transcribe(recording, model=model).text.split()
    feed = voxfast.Session.feed

    said: list[voxfast.Word] = []

    def interrupted(session: voxfast.Session, samples: np.ndarray) -> list[voxfast.Word]:
        if said:
            os.kill(os.getpid(), signal.SIGINT)
        said.extend(words := feed(session, samples))
        return words

    monkeypatch.setattr(voxfast.Session, "feed", interrupted)
    assert command(qwen_folder, recording) == 130
    found = capsys.readouterr().out.split()
    assert len(said) <= len(found) <= len(expected)
    assert found == expected[: len(found)]


def test_an_upload_is_transcribed_as_by_transcribe(
    model: voxfast.Model, recording: Path, short: Path, running: list[int]
) -> None:
    """All at once, and as events, with the endpoint by the length of the file."""
    with serving(model) as server:
        for path in (recording, short):
            expected = [
                (word.text.strip(), word.start, word.end)
                for word in voxfast.transcribe(path, model=model).words
            ]
            running.clear()
            for stream in (False, True):
                words = uploaded(server.http, path, stream)
                assert [(word["word"].strip(), word["start"], word["end"]) for word in words] == (
                    expected
                )
            assert (max(running) > 3) is (path == recording)


def uploaded(address: str, path: Path, stream: bool) -> list[dict[str, Any]]:
    """The words that the server finds in a file."""
    fields = {
        "response_format": "verbose_json",
        "timestamp_granularities[]": "word",
        "stream": str(stream).lower(),
    }
    parts = [
        f'--x\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="talk.wav"\r\n\r\n'
    body = b"".join([*parts, head, path.read_bytes(), b"\r\n--x--\r\n"])
    headers = {"content-type": "multipart/form-data; boundary=x"}
    url = f"{address}/v1/audio/transcriptions"
    status, answer, _ = fetch(urllib.request.Request(url, body, headers))
    assert status == 200, answer
    if not stream:
        return answer["words"]  # type: ignore[no-any-return]
    events = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
    assert events[-1]["type"] == "transcript.text.done"
    return events[-1]["words"]  # type: ignore[no-any-return]


def test_damage_behind_good_audio_is_told_behind_its_words(
    model: voxfast.Model, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the beginning is read to see how long the file is."""
    following, count = Job._next, []

    async def failing(job: Job) -> Any:
        count.append(1)
        if len(count) == 2:
            raise Problem("the file is damaged", "invalid_audio", param="file")
        return await following(job)

    monkeypatch.setattr(Job, "_next", failing)
    with serving(model) as server:
        fields = b'--x\r\ncontent-disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
        head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = fields + head + short.read_bytes() + b"\r\n--x--\r\n"
        request = urllib.request.Request(
            f"{server.http}/v1/audio/transcriptions",
            body,
            {"content-type": "multipart/form-data; boundary=x"},
        )
        _, answer, _ = fetch(request)
    assert answer.index("transcript.text.delta") < answer.index("the file is damaged")

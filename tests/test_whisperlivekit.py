"""The real WhisperLiveKit with voxfast as its backend, where it is installed."""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation import QWEN_FOLDER, EvalItem

import voxfast
from voxfast.bench.scoring import score

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch and others, while they are imported
    try:
        import whisperlivekit as wlk
    except ImportError as reason:
        pytest.skip(
            f'WhisperLiveKit is not installed ({reason}): pip install ".[whisperlivekit]"',
            allow_module_level=True,
        )
    from voxfast.integrations import whisperlivekit as backend

pytestmark = pytest.mark.filterwarnings("ignore")

SAMPLE_RATE = 16000
MODELS = {
    "voxtral-mlx": {"model_size": "voxtral-numbers"},
    "qwen3-mlx-simul": {"model_dir": str(QWEN_FOLDER)},
}


class Recorder:
    """A session's processor that writes down how it was driven."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self.calls: list[tuple[str, Any]] = []
        self.items: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._processor, name)
        if name not in ("insert_audio_chunk", "start_silence", "end_silence", "finish"):
            return method if name != "process_iter" else self._collected(method)
        call = self._collected(method) if name in ("start_silence", "finish") else method

        def noted(*args: Any) -> Any:
            self.calls.append((name, args[0] if args else None))
            return call(*args)

        return noted

    def _collected(self, method: Any) -> Any:
        def collect(*args: Any) -> Any:
            tokens, upto = method(*args)
            self.items += tokens
            return tokens, upto

        return collect

    @property
    def tokens(self) -> list[Any]:
        """Without the ends of lines."""
        return [item for item in self.items if not item.is_silence()]


def replay(model: voxfast.Model, calls: list[tuple[str, Any]]) -> list[voxfast.Word]:
    """The same audio and pauses through the plain session."""
    words: list[voxfast.Word] = []
    with model.session() as session:
        for name, argument in calls:
            if name == "insert_audio_chunk":
                words += session.feed(argument)
            elif name == "start_silence":
                words += session.flush()
            elif name == "end_silence":
                session.skip(argument)
            else:
                words += session.finish()
    return words


async def drive(
    engine: Any, samples: np.ndarray, pace: float, **options: Any
) -> tuple[Recorder, Any]:
    """Send audio as a client would; returns how the backend was driven, and the last response."""
    processor = wlk.AudioProcessor(transcription_engine=engine, **options)
    processor.transcription = recorder = Recorder(processor.transcription)
    results = await processor.create_tasks()

    async def last_response() -> Any:
        return [response async for response in results][-1]

    listening = asyncio.create_task(last_response())
    pcm = (samples * 32767).astype(np.int16)
    begin = time.monotonic()
    for i in range(0, len(pcm), 1600):
        await processor.process_audio(pcm[i : i + 1600].tobytes())
        wait = pace * (i + 1600) / SAMPLE_RATE - (time.monotonic() - begin)
        await asyncio.sleep(max(0.0, wait))
    await processor.process_audio(b"")
    response = await asyncio.wait_for(listening, 60)
    await processor.cleanup()
    return recorder, response


@contextlib.contextmanager
def engine_of(name: str, **options: Any) -> Iterator[Any]:
    backend.install()
    wlk.TranscriptionEngine.reset()
    engine = wlk.TranscriptionEngine(backend=name, pcm_input=True, **MODELS[name], **options)
    yield engine
    engine.asr.model.close()
    wlk.TranscriptionEngine.reset()


@pytest.fixture(scope="module", params=MODELS)
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An engine without voice detection, for all tests that do not ask for another."""
    with engine_of(request.param, vac=False) as loaded:
        yield loaded


@pytest.fixture
def holder() -> Iterator[Any]:
    """Voxtral, without WhisperLiveKit's engine around it."""
    holder = backend.VoxtralMLXASR(model_size="voxtral-numbers", warmup_file="")
    yield holder
    holder.model.close()


@pytest.fixture
def clip(eval_items: list[EvalItem]) -> EvalItem:
    return next(item for item in eval_items if item.name == "eval_18")


def text(lines: Any) -> str:
    return " ".join(line.text.strip() for line in lines if line.text)


def assert_as_plain(recorder: Recorder, model: voxfast.Model) -> None:
    plain = replay(model, recorder.calls)
    found = [(t.text, t.start, t.end, t.probability) for t in recorder.tokens]
    assert found == [(w.text, w.start, w.end, w.probability) for w in plain]
    assert plain


@pytest.mark.parametrize("pace", [0.0, 1.0], ids=["fast", "real-time"])
def test_words_and_times_are_those_of_the_plain_session(
    engine: Any, clip: EvalItem, pace: float
) -> None:
    recorder, response = asyncio.run(drive(engine, clip.audio, pace))
    assert_as_plain(recorder, engine.asr.model)
    assert text(response.lines) == clip.transcript
    assert response.buffer_transcription == ""
    truth = [word.end for word in clip.words]
    assert [token.end for token in recorder.tokens] == pytest.approx(truth, abs=0.15)


@pytest.mark.parametrize(("name", "mistakes"), [("voxtral-mlx", 1), ("qwen3-mlx-simul", 3)])
def test_its_voice_detection_cuts_silences_out(
    name: str, mistakes: int, eval_items: list[EvalItem]
) -> None:
    pytest.importorskip("onnxruntime", reason="its voice detection needs onnxruntime")
    items = [item for item in eval_items if item.name in ("eval_18", "eval_22")]
    pause = np.zeros(int(2.5 * SAMPLE_RATE), np.float32)
    samples = np.concatenate([items[0].audio, pause, items[1].audio, pause])
    with engine_of(name, vac=True) as engine:
        recorder, response = asyncio.run(drive(engine, samples, 0.0))
        assert_as_plain(recorder, engine.asr.model)
    names = [name for name, _ in recorder.calls]
    assert names.count("start_silence") >= 2
    heard = sum(len(x) for name, x in recorder.calls if name == "insert_audio_chunk")
    assert heard < 0.8 * len(samples)  # silence was left out
    # It cuts into the beginning of speech, so that first words are mistaken or lost.
    shift = items[0].duration + 2.5
    truth = [
        replace(word, start=word.start + start, end=word.end + start)
        for item, start in zip(items, (0.0, shift), strict=True)
        for word in item.words
    ]
    found = score([truth], [[replace(t, text=t.text.strip()) for t in recorder.tokens]])
    assert found.word_error_rate <= mistakes / len(truth)
    assert found.end.mean_absolute < 0.1
    assert text(response.lines).split() == [token.text.strip() for token in recorder.tokens]


@pytest.mark.parametrize("name", MODELS)
def test_a_line_is_a_segment(name: str, eval_items: list[EvalItem]) -> None:
    items = [item for item in eval_items if item.name in ("eval_18", "eval_22")]
    pause = np.zeros(int(1.2 * SAMPLE_RATE), np.float32)
    samples = np.concatenate([items[0].audio, pause, items[1].audio])
    with engine_of(name, vac=False) as engine:
        recorder, response = asyncio.run(drive(engine, samples, 0.0))
        plain = replay(engine.asr.model, recorder.calls)
    segments = voxfast.Transcript(tuple(plain)).segments
    assert len(segments) >= 2
    shown = [(line.text.strip(), line.start, line.end) for line in response.lines]
    assert shown == [(part.text, part.start, part.end) for part in segments]
    language = "en" if name == "qwen3-mlx-simul" else None
    assert {line.detected_language for line in response.lines} == {language}
    rows = response.to_dict()["lines"]
    assert [row["text"].strip() for row in rows] == [part.text for part in segments]


def test_silences_of_some_length_stay() -> None:
    state = wlk.audio_processor.State()
    lines = backend._Lines(state, argparse.Namespace(diarization=False), "")
    one, two = ({"start": at, "end": at + 1, "text": f" {at}."} for at in (1, 5))
    state.new_tokens = [
        backend.ASRToken(**one),
        backend._LineBreak(2.0),
        backend.Silence(start=3.0, end=4.0, has_ended=True),
        backend.ASRToken(**two),
    ]
    lines.update()
    shown = lines.get_lines(audio_time=6.0)[0]
    assert [(line.text, line.start, line.end) for line in shown] == [
        (" 1.", 1, 2), ("", 2.0, 4.0), (" 5.", 5, 6),
    ]  # fmt: skip


def test_several_sessions_at_once(engine: Any, eval_items: list[EvalItem]) -> None:
    items = eval_items[:3]

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(drive(engine, item.audio, 0.0) for item in items))

    for item, (recorder, response) in zip(items, asyncio.run(all_of_them()), strict=True):
        assert_as_plain(recorder, engine.asr.model)
        assert text(response.lines) == item.transcript


@pytest.mark.parametrize("language", ["en", "auto", "AUTO", None])
def test_a_session_may_ask_for_its_language(
    engine: Any, clip: EvalItem, language: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, response = asyncio.run(drive(engine, clip.audio, 0.0, language=language))
    found = {token.detected_language for token in recorder.tokens}
    assert text(response.lines) == clip.transcript
    if isinstance(engine.asr, backend.Qwen3MLXSimulASR):
        assert found == {"en"}
    else:  # It cannot be told one: it says so, and goes on.
        assert found == {None}
        assert ("'en' has no effect" in caplog.text) == (language == "en")


def test_the_language_reaches_the_model(clip: EvalItem) -> None:
    with engine_of("qwen3-mlx-simul", vac=False, lan="GER") as engine:
        asked_and_told = {
            None: "German", "fr": "French", "FRE": "French", "zh_CN": "Chinese", "Auto": None,
        }  # fmt: skip
        for asked, told in asked_and_told.items():
            processor = wlk.AudioProcessor(transcription_engine=engine, language=asked)
            assert processor.transcription._session.language == told
        with pytest.raises(ValueError, match="'tlh' is none that Qwen3-ASR knows"):
            wlk.AudioProcessor(transcription_engine=engine, language="tlh")


def test_errors_are_visible_and_the_session_goes_on(
    holder: Any, clip: EvalItem, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = backend.VoxtralMLXOnlineProcessor(holder)
    processor.end_silence(1.0, 0)
    processor.insert_audio_chunk(np.full(1600, np.nan, np.float32), 1.1)
    assert isinstance(processor.error, voxfast.InvalidAudioError)
    assert "ERROR" in caplog.text
    assert "nan" in caplog.text

    def broken(others: object) -> None:
        raise RuntimeError("no stream on this thread")

    processor.insert_audio_chunk(clip.audio, 1.1 + clip.duration)
    stream = processor._session._stream
    monkeypatch.setattr(stream, "step", broken)
    assert processor.process_iter() == ([], 0.0)
    assert "no stream on this thread" in str(processor.error)
    processor.insert_audio_chunk(clip.audio, 1.1 + 2 * clip.duration)
    tokens, upto = processor.finish()
    assert "".join(t.text for t in tokens).strip() == clip.transcript
    shift = 1.1 + clip.duration
    truth = [word.end + shift for word in clip.words]
    assert [token.end for token in tokens] == pytest.approx(truth, abs=0.15)
    assert upto == pytest.approx(1.1 + 2 * clip.duration, abs=1e-3)
    assert processor.finish()[0] == []
    assert isinstance(processor.error, voxfast.SessionClosedError)


def test_what_it_passes_is_taken(tmp_path: Path, clip: EvalItem) -> None:
    holder = backend.VoxtralMLXASR(
        model_dir=str(voxfast.hub.embedded_models()["voxtral-numbers"]),
        model_size="base",
        model_cache_dir=str(tmp_path),
        warmup_file=str(clip.path),
        lora_path=None,
        min_chunk_size=0.1,
        logfile=sys.stderr,
        delay_ms=960,
    )
    holder.transcribe(None)
    assert (holder.sep, holder.original_language) == ("", None)
    processor = backend.VoxtralMLXOnlineProcessor(holder)
    processor.insert_audio_chunk(clip.audio[: int(16000 * (clip.words[0].end + 0.9))])
    assert processor.process_iter()[0] == []  # half a second earlier by default
    holder.model.close()
    with pytest.raises(voxfast.ModelNotFoundError, match="no-such-model"):
        backend.VoxtralMLXASR(model_size="no-such-model")
    with pytest.raises(voxfast.AudioFileError, match="missing"):
        backend.VoxtralMLXASR(model_size="voxtral-numbers", warmup_file="missing.wav")


def test_the_names_of_its_own_backend_before(
    clip: EvalItem, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    load = voxfast.load
    monkeypatch.setattr(voxfast, "load", lambda name: asked.append(name) or load(QWEN_FOLDER))
    asr = backend.Qwen3MLXSimulStreamingASR(
        model_size="0.6b",
        lan="en",
        alignment_heads_path=str(QWEN_FOLDER / "alignment_heads.json"),
        border_fraction=0.25,
    )
    assert asked == ["qwen3-asr-0.6b"]
    processor = backend.Qwen3MLXSimulStreamingOnlineProcessor(asr, logfile=sys.stderr)
    tokens = []
    for end in range(32000, len(clip.audio) + 32000, 32000):
        processor.insert_audio_chunk(clip.audio[end - 32000 : end], end / SAMPLE_RATE)
        tokens += processor.process_iter(is_last=end >= len(clip.audio))[0]
    assert processor.finish()[0] == []
    assert "".join(token.text for token in tokens).strip() == clip.transcript
    assert (processor.error, "ERROR" in caplog.text) == (None, False)
    asr.model.close()


def test_nothing_of_it_is_changed_on_disk() -> None:
    backend.install()
    files = [f for f in metadata.files("whisperlivekit") or [] if f.suffix == ".py" and f.hash]
    assert files
    for file in files:
        digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value, file


def test_the_server(clip: EvalItem) -> None:
    for name in ("uvicorn", "websockets"):
        pytest.importorskip(name, reason=f"its server needs {name}")
    from websockets.sync.client import connect

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = ["--model", "voxtral-numbers", "--port", str(port), "--pcm-input", "--no-vac"]
    server = subprocess.Popen([sys.executable, "-m", "voxfast.integrations.wlk_command", *command])
    try:
        client = None
        while client is None:
            assert server.poll() is None, "the server ended"
            with contextlib.suppress(OSError):
                client = connect(f"ws://localhost:{port}/asr")
            time.sleep(0.2)
        with client:
            pcm = (clip.audio * 32767).astype(np.int16)
            for i in range(0, len(pcm), 8000):
                client.send(pcm[i : i + 8000].tobytes())
            client.send(b"")
            last: dict[str, Any] = {}
            for message in client:
                answer = json.loads(message)
                if answer.get("type") == "ready_to_stop":
                    break
                last = answer if "lines" in answer else last
        assert " ".join(line["text"].strip() for line in last["lines"]) == clip.transcript
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--model", "no-such-model"], 1, "no model 'no-such-model'"),
        (["--model", "voxtral-numbers", "--delay-ms", "7"], 2, "got delay_ms=7"),
    ],
)
def test_the_server_refuses_before_it_starts(options: list[str], code: int, message: str) -> None:
    pytest.importorskip("uvicorn", reason="its server needs it")
    command = [sys.executable, "-m", "voxfast.integrations.wlk_command", *options, "--no-vac"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


logging.getLogger("whisperlivekit").setLevel(logging.WARNING)

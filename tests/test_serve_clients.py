"""Real clients, as apps have them: their words are those of a plain session.

Skipped without the clients: ``pip install "voxfast[server-clients]"``.
"""

import asyncio
import base64
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from evaluation import EvalItem
from serving import KEY, Running, key_file, pcm, pieces, serving

import voxfast
from voxfast.audio import resample
from voxfast.formats import to_srt, to_vtt
from voxfast.serve.hub import Limits
from voxfast.serve.server import Settings

openai = pytest.importorskip("openai", reason="voxfast[server-clients]")


@pytest.fixture(scope="module")
def server(numbers: voxfast.Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(port=0, api_key_file=key_file(tmp_path_factory.mktemp("keys")))
    with serving(numbers, Limits(drain_seconds=5), settings) as running:
        yield running


@pytest.fixture(scope="module")
def items(eval_items: list[EvalItem]) -> list[EvalItem]:
    return eval_items[:3]


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    with openai.OpenAI(api_key=KEY, base_url=f"{server.http}/v1", max_retries=0) as client:
        yield client


def at_24k(audio: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A client's bytes at 24 kHz, and what a session hears of them."""
    data = pcm(audio, 24_000)
    return data, resample(np.frombuffer(data, "<i2").astype(np.int16), 24_000)


def said(numbers: voxfast.Model, audio: np.ndarray, **options: Any) -> list[str]:
    """What a plain session writes, by turn."""
    with numbers.session(**options) as session:
        session.insert(audio)
        events = session.events(finish=True)
    turns = [""]
    for event in events:
        if isinstance(event, voxfast.Word):
            turns[-1] += event.text
        elif type(event).__name__ == "SpeechEnded":
            turns.append("")
    return [text.strip() for text in turns if text]


# -- openai, over HTTP


def test_files(client: Any, numbers: voxfast.Model, items: list[EvalItem]) -> None:
    for item in items:
        whole = voxfast.transcribe(item.path, model=numbers)
        with item.path.open("rb") as file:
            found = client.audio.transcriptions.create(file=file, model="whisper-1", language="en")
        assert found.text == whole.text
        assert found.usage.seconds == pytest.approx(whole.duration, abs=0.001)


def test_forms_of_a_transcript(client: Any, numbers: voxfast.Model, items: list[EvalItem]) -> None:
    path = items[1].path
    whole = voxfast.transcribe(path, model=numbers)

    def create(format_: str, **options: Any) -> Any:
        return client.audio.transcriptions.create(
            file=path, model="voxtral-numbers", response_format=format_, **options
        )

    assert create("text").strip() == whole.text
    assert create("srt") == to_srt(whole)
    assert create("vtt") == to_vtt(whole)
    verbose = create("verbose_json", timestamp_granularities=["word", "segment"])
    assert [(word.word, word.start, word.end) for word in verbose.words] == [
        (word.text.strip(), round(word.start, 3), round(word.end, 3)) for word in whole.words
    ]
    assert [segment.text for segment in verbose.segments] == [s.text for s in whole.segments]
    probabilities = create("json", include=["logprobs"]).logprobs
    assert "".join(each.token for each in probabilities).strip() == whole.text


def test_server_sent_events(client: Any, numbers: voxfast.Model, items: list[EvalItem]) -> None:
    with client.audio.transcriptions.create(
        file=items[1].path, model="gpt-4o-transcribe", stream=True
    ) as stream:
        *deltas, done = [*stream]
    assert "".join(event.delta for event in deltas) == done.text
    assert done.text == voxfast.transcribe(items[1].path, model=numbers).text


def test_errors_are_the_clients_own(client: Any, server: Running, items: list[EvalItem]) -> None:
    assert [each.id for each in client.models.list()] == ["voxtral-numbers"]
    with pytest.raises(openai.NotFoundError) as missing:
        client.audio.transcriptions.create(file=items[0].path, model="other")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.audio.transcriptions.create(file=items[0].path, model="whisper-1", prompt="x")
    assert wrong.value.param == "prompt"
    stranger = client.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


# -- openai, realtime


def realtime(server: Running, audio: np.ndarray, rate: int, session: dict[str, Any]) -> list[Any]:
    """Events of a session up to its first complete item."""

    async def run() -> list[Any]:
        events: list[Any] = []
        client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{server.http}/v1")
        query = {"intent": "transcription"}
        async with client, client.realtime.connect(extra_query=query) as connection:
            await connection.session.update(session=session)
            for piece in pieces(pcm(audio, rate)):
                await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
            await connection.input_audio_buffer.commit()
            async for event in connection:
                events.append(event)
                if event.type.endswith(".completed"):
                    break
        return events

    return asyncio.run(asyncio.wait_for(run(), 120))


def options(rate: int, turn_detection: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": rate},
                "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
                "turn_detection": turn_detection,
            }
        },
    }


def test_realtime_with_commits(
    server: Running, numbers: voxfast.Model, items: list[EvalItem]
) -> None:
    for item in items:
        _, heard = at_24k(item.audio)
        events = realtime(server, item.audio, 24_000, options(24_000, None))
        completed = [e for e in events if e.type.endswith(".completed")]
        assert [e.transcript for e in completed] == said(numbers, heard)
        deltas = [e.delta for e in events if e.type.endswith(".delta")]
        assert "".join(deltas) == completed[0].transcript
        words = completed[0].model_extra["words"]
        assert " ".join(word["word"] for word in words) == completed[0].transcript
        assert all(word["start"] <= word["end"] for word in words)
        assert all(0 < word["confidence"] <= 1 for word in words)
        assert completed[0].usage.seconds == pytest.approx(len(item.audio) / 16_000, abs=0.01)


def test_realtime_with_voice_detection(
    server: Running, numbers: voxfast.Model, items: list[EvalItem]
) -> None:
    pause = np.zeros(16_000, np.float32)
    audio = np.concatenate([items[0].audio, pause, items[1].audio, pause])
    data, heard = at_24k(audio)

    async def run() -> list[Any]:
        events = []
        client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{server.http}/v1")
        async with client, client.realtime.connect(model="gpt-realtime") as connection:
            turns = {"type": "server_vad", "silence_duration_ms": 500}
            await connection.session.update(session=options(24_000, turns))
            for piece in pieces(data):
                await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
            async for event in connection:
                events.append(event)
                if sum(each.type.endswith(".completed") for each in events) == len(expected):
                    break
        return events

    expected = said(numbers, heard, endpoint_ms=500)
    assert len(expected) > 1
    events = asyncio.run(asyncio.wait_for(run(), 120))
    assert [e.transcript for e in events if e.type.endswith(".completed")] == expected
    started = [e for e in events if e.type.endswith("speech_started")]
    stopped = [e for e in events if e.type.endswith("speech_stopped")]
    assert all(a.audio_start_ms < b.audio_end_ms for a, b in zip(started, stopped, strict=True))


def test_the_beta(server: Running, numbers: voxfast.Model, items: list[EvalItem]) -> None:
    audio = items[1].audio
    data, heard = at_24k(audio)

    async def run() -> list[Any]:
        events = []
        client = openai.AsyncOpenAI(
            api_key=KEY, base_url=f"{server.http}/v1", websocket_base_url=f"{server.ws}/v1"
        )
        async with (
            client,
            client.beta.realtime.connect(
                model="gpt-4o-transcribe", extra_query={"intent": "transcription"}
            ) as connection,
        ):
            await connection.transcription_session.update(
                session={
                    "input_audio_format": "pcm16",
                    "input_audio_transcription": {"model": "gpt-4o-transcribe"},
                    "turn_detection": None,  # type: ignore[typeddict-item]
                }
            )
            for piece in pieces(data):
                await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
            await connection.input_audio_buffer.commit()
            async for event in connection:
                events.append(event)
                if event.type.endswith(".completed"):
                    break
        return events

    if not hasattr(openai.AsyncOpenAI(api_key=KEY).beta, "realtime"):
        pytest.skip("this release of openai has no beta any more")
    events = asyncio.run(asyncio.wait_for(run(), 120))
    assert [events[-1].transcript] == said(numbers, heard)
    assert any(event.type == "transcription_session.updated" for event in events)


# -- mistralai


def test_mistral(server: Running, numbers: voxfast.Model, items: list[EvalItem]) -> None:
    pytest.importorskip("mistralai", reason="voxfast[server-clients]")
    from mistralai.client import Mistral
    from mistralai.client.models import AudioFormat
    from mistralai.extra.realtime import RealtimeTranscription

    async def run(audio: np.ndarray, rate: int) -> list[Any]:
        async def source() -> AsyncIterator[bytes]:
            for piece in pieces(pcm(audio, rate)):
                yield piece

        client = Mistral(api_key=KEY, server_url=server.http)
        stream = RealtimeTranscription(client.sdk_configuration).transcribe_stream(
            source(),
            "voxtral-mini-transcribe-realtime-2602",
            AudioFormat(encoding="pcm_s16le", sample_rate=rate),
            server_url=server.ws,
            target_streaming_delay_ms=480,
        )
        return [event async for event in stream]

    for item in items:
        events = asyncio.run(asyncio.wait_for(run(item.audio, 16_000), 120))
        heard = np.frombuffer(pcm(item.audio), "<i2").astype(np.int16)
        assert all(type(event).__name__ != "UnknownRealtimeEvent" for event in events)
        done = events[-1]
        assert [done.text] == said(numbers, heard)
        assert done.text == "".join(e.text for e in events if e.type == "transcription.text.delta")
        assert done.segments[-1].end <= len(item.audio) / 16_000


# -- curl


def test_curl(server: Running, numbers: voxfast.Model, items: list[EvalItem]) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl")
    path = items[1].path
    done = subprocess.run(
        [
            *(curl, "-sS", "--fail-with-body", f"{server.http}/v1/audio/transcriptions"),
            *("-H", f"Authorization: Bearer {KEY}", "-F", f"file=@{path}"),
            *("-F", "model=whisper-1", "-F", "response_format=text"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == voxfast.transcribe(path, model=numbers).text

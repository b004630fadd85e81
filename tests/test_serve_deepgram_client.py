"""Deepgram's own client against the server: words, times, turns, refusals."""

import asyncio
import contextlib
import hashlib
import json
import urllib.request
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation import EvalItem
from serving import KEY, Running, fetch, key_file, pcm, pieces, serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import voxfast
from voxfast._pcm import Encoding, decode
from voxfast.serve.dialect import Start
from voxfast.serve.doors import DOORS
from voxfast.serve.hub import Limits
from voxfast.serve.server import Settings

deepgram, httpx = pytest.importorskip("deepgram"), pytest.importorskip("httpx")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from deepgram.listen.v1.types import ListenV1Configure
# The client imports names of websockets and pydantic that are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def server(numbers: voxfast.Model) -> Iterator[Running]:
    with serving(numbers) as running:
        yield running


@pytest.fixture(scope="module")
def talk(eval_items: list[EvalItem]) -> np.ndarray:
    """Four clips with pauses of 1.5 s."""
    pause = np.zeros(24_000, np.float32)
    return np.concatenate([part for item in eval_items[:4] for part in (item.audio, pause)])


def client(server: Running, key: str = "any", **options: Any) -> Any:
    environment = deepgram.DeepgramClientEnvironment(
        base=server.http, production=server.ws, agent=server.ws, agent_rest=server.http
    )
    return deepgram.AsyncDeepgramClient(api_key=key, environment=environment, **options)


@contextlib.asynccontextmanager
async def listening(server: Running, **options: Any) -> AsyncIterator[Any]:
    chosen = {"model": "nova-3", "encoding": "linear16", "sample_rate": 16_000, **options}
    async with client(server).listen.v1.connect(**chosen) as socket:
        yield socket


async def transcribe(server: Running, data: bytes, **options: Any) -> list[Any]:
    """Send all audio; the messages up to the end."""
    async with listening(server, **options) as socket:
        for piece in pieces(data, 3201):
            await socket.send_media(piece)
        await socket.send_close_stream()
        return [message async for message in socket]


def words(messages: list[Any]) -> list[tuple[str, float, float, float]]:
    """Of the final results."""
    return [
        (word.punctuated_word, word.start, word.end, word.confidence)
        for message in messages
        if message.type == "Results" and message.is_final
        for word in message.channel.alternatives[0].words
    ]


def plain(
    numbers: voxfast.Model, data: bytes, encoding: Encoding, **options: Any
) -> list[tuple[str, float, float, float]]:
    """The words of a session that is fed the same."""
    samples = voxfast.audio.resample(decode(data, encoding)[:, 0], encoding.rate)
    with numbers.session(**options) as session:
        said = [*session.feed(samples), *session.finish()]
    return [
        (w.text.strip(), round(w.start, 3), round(w.end, 3), round(w.probability or 0, 4))
        for w in said
    ]


@pytest.mark.parametrize(
    ("options", "rate", "sample_format"),
    [
        ({"endpointing": 300}, 16_000, "s16le"),
        ({"endpointing": "false"}, 16_000, "s16le"),
        ({"sample_rate": 48_000, "endpointing": 500}, 48_000, "s16le"),
        ({"encoding": "mulaw", "sample_rate": 8_000}, 8_000, "mulaw"),
    ],
)
def test_the_words_are_those_of_a_plain_session(
    server: Running,
    numbers: voxfast.Model,
    talk: np.ndarray,
    options: dict[str, Any],
    rate: int,
    sample_format: Any,
) -> None:
    data = pcm(talk, rate)
    if sample_format == "mulaw":
        data = to_mulaw(np.frombuffer(data, "<i2"))
    messages = asyncio.run(transcribe(server, data, language="en-US", **options))
    pause = {"false": None, 500: 500.0}.get(options.get("endpointing"), 300.0)
    expected = plain(numbers, data, Encoding(rate, 1, sample_format), endpoint_ms=pause)
    assert words(messages) == expected
    assert expected
    assert [message.type for message in messages][-1] == "Metadata"
    assert messages[-1].duration == pytest.approx(len(talk) / 16_000, abs=0.01)
    assert not any(message.type == "Error" for message in messages)


def to_mulaw(samples: np.ndarray) -> bytes:
    """G.711, as FFmpeg encodes it."""
    av = pytest.importorskip("av")
    codec = av.CodecContext.create("pcm_mulaw", "w")
    codec.sample_rate, codec.layout, codec.format = 8_000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = 8_000
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def test_turns(server: Running, talk: np.ndarray, eval_items: list[EvalItem]) -> None:
    messages = asyncio.run(
        transcribe(
            server,
            pcm(talk),
            interim_results=True,
            endpointing=300,
            utterance_end_ms=1000,
            vad_events=True,
        )
    )
    kinds = [message.type for message in messages]
    assert kinds.count("SpeechStarted") >= 4
    assert kinds.count("UtteranceEnd") >= 4
    results = [message for message in messages if message.type == "Results"]
    ends = [result for result in results if result.speech_final]
    assert len(ends) >= 4
    assert all(result.is_final for result in ends)
    interim = [result for result in results if not result.is_final]
    assert any(result.channel.alternatives[0].words for result in interim)
    # Final results span the stream without gaps; words lie in theirs.
    at = 0.0
    for result in results:
        assert result.start == pytest.approx(at, abs=2e-3)
        if result.is_final:
            at = result.start + result.duration
            for word in result.channel.alternatives[0].words:
                assert word.end <= at + 1e-3
    # Each utterance ends behind its last word.
    last = [message.last_word_end for message in messages if message.type == "UtteranceEnd"]
    begin, spans = 0.0, []
    for item in eval_items[:4]:
        spans.append((begin, begin + item.duration + 0.5))
        begin += item.duration + 1.5
    places = [[n for n, (low, high) in enumerate(spans) if low < end < high] for end in last]
    assert sorted({place for (place,) in places}) == [0, 1, 2, 3]


def test_finalize_and_go_on(server: Running, eval_items: list[EvalItem]) -> None:
    async def run() -> list[Any]:
        found = []
        async with listening(server, endpointing="false") as socket:
            for item in eval_items[:2]:
                await socket.send_keep_alive()
                await socket.send_media(pcm(item.audio))
                await socket.send_finalize()
                while True:
                    message = await socket.recv()
                    found.append(message)
                    if message.type == "Results" and message.from_finalize:
                        break
            await socket.send_close_stream()
            return found + [message async for message in socket]

    messages = asyncio.run(run())
    said = " ".join(word for word, *_ in words(messages))
    assert said == " ".join(item.transcript for item in eval_items[:2])
    assert len([m for m in messages if m.type == "Results" and m.from_finalize]) == 2


def test_keyterms_that_change_on_the_way(
    server: Running,
    numbers: voxfast.Model,
    eval_items: list[EvalItem],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was said before is written to its end, and the times go on."""
    chosen = []

    def options(start: Start) -> dict[str, Any]:
        chosen.append(start.vocabulary)
        return {}

    monkeypatch.setattr("voxfast.serve.live.session_options", options)
    first, second = eval_items[:2]

    async def run() -> list[Any]:
        async with listening(server, keyterm=["one"], endpointing="false") as socket:
            await socket.send_media(pcm(first.audio))
            await socket.send_configure(ListenV1Configure(keyterms=["two", "three"]))
            await socket.send_media(pcm(second.audio))
            await socket.send_close_stream()
            return [message async for message in socket]

    messages = asyncio.run(run())
    assert chosen == [("one",), ("two", "three")]
    (done,) = (message for message in messages if message.type == "ConfigureSuccess")
    assert done.keyterms == ["two", "three"]
    assert messages[-1].duration == pytest.approx(first.duration + second.duration, abs=0.01)
    said = words(messages)
    assert [word for word, *_ in said] == f"{first.transcript} {second.transcript}".split()
    expected = plain(numbers, pcm(second.audio), Encoding(16_000, 1, "s16le"))
    for (_, start, end, _), (_, other_start, other_end, _) in zip(
        said[-len(expected) :], expected, strict=True
    ):
        assert start - first.duration == pytest.approx(other_start, abs=0.01)
        assert end - first.duration == pytest.approx(other_end, abs=0.01)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"encoding": "opus"}, 400),
        ({"multichannel": True, "channels": 2}, 400),
        ({"model": "flux-general-en"}, 404),
    ],
)
def test_a_query_that_cannot_be_is_refused(
    server: Running, options: dict[str, Any], status: int
) -> None:
    async def run() -> None:
        async with listening(server, **options):
            pass

    with pytest.raises(deepgram.core.api_error.ApiError) as refused:
        asyncio.run(run())
    assert refused.value.status_code == status


def test_a_delay_that_the_model_has_not(server: Running) -> None:
    async def run() -> Any:
        options = {"additional_query_parameters": {"delay_ms": 7}}
        async with listening(server, request_options=options) as socket:
            error = await socket.recv()
            with pytest.raises(ConnectionClosed, match="240"):
                await socket.recv()
            return error

    error = asyncio.run(run())
    assert (error.type, error.variant) == ("Error", "INVALID_VALUE")
    assert "240" in error.description


def test_ten_seconds_without_a_frame(numbers: voxfast.Model, monkeypatch: Any) -> None:
    """A shorter limit of the server stands for the ten seconds of the protocol."""
    (door,) = (door for door in DOORS if door.path == "/v1/listen")
    assert door.idle_seconds == 10

    async def run(url: str) -> ConnectionClosed:
        async with connect(f"{url}/v1/listen?encoding=mulaw") as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), 30)
        return closed.value

    with serving(numbers, Limits(idle_seconds=0.3)) as server:
        closed = asyncio.run(run(server.ws))
    assert closed.rcvd is not None
    assert closed.rcvd.code == 1011
    assert closed.rcvd.reason.startswith("NET-0001")


def test_keys(numbers: voxfast.Model, tmp_path: Path, eval_items: list[EvalItem]) -> None:
    """The client sends Authorization: Token; browsers send a subprotocol."""
    settings = Settings(port=0, api_key_file=key_file(tmp_path))
    with serving(numbers, settings=settings) as server:

        async def run(key: str) -> list[Any]:
            options = {"model": "nova-3", "encoding": "linear16", "sample_rate": 16_000}
            async with client(server, key).listen.v1.connect(**options) as socket:
                await socket.send_media(pcm(eval_items[0].audio))
                await socket.send_close_stream()
                return [message async for message in socket]

        said = " ".join(word for word, *_ in words(asyncio.run(run(KEY))))
        assert said == eval_items[0].transcript
        with pytest.raises(deepgram.core.api_error.ApiError) as refused:
            asyncio.run(run("wrong"))
        assert refused.value.status_code == 401

        async def browser() -> str | None:
            url = f"{server.ws}/v1/listen?encoding=mulaw"
            async with connect(url, subprotocols=["token", KEY]) as socket:  # type: ignore[list-item]
                await socket.send('{"type": "CloseStream"}')
                assert json.loads(await socket.recv())["type"] == "Metadata"
                return socket.subprotocol

        assert asyncio.run(browser()) == "token"
        status, body, _ = post(server, "", b"x")
        assert (status, body["err_code"]) == (401, "INVALID_AUTH")


# -- A whole recording


def post(server: Running, query: str, data: bytes, kind: str = "audio/wav") -> tuple[int, Any, Any]:
    url, headers = f"{server.http}/v1/listen{query}", {"content-type": kind}
    return fetch(urllib.request.Request(url, data, headers))


def test_a_file(server: Running, numbers: voxfast.Model, eval_items: list[EvalItem]) -> None:
    item = eval_items[3]
    data = item.path.read_bytes()

    async def run() -> Any:
        async with httpx.AsyncClient() as http:
            media = client(server, httpx_client=http).listen.v1.media
            return await media.transcribe_file(request=data, model="nova-3", utterances=True)

    answer = asyncio.run(run())
    expected = voxfast.transcribe(item.path, model=numbers)
    (channel,) = answer.results.channels
    (alternative,) = channel.alternatives
    assert alternative.transcript == expected.text == item.transcript
    assert [(word.start, word.end, word.confidence) for word in alternative.words] == [
        (round(w.start, 3), round(w.end, 3), round(w.probability or 0, 4)) for w in expected.words
    ]
    assert len(answer.results.utterances) == len(expected.segments)
    assert answer.results.utterances[0].transcript == expected.segments[0].text
    assert answer.metadata.duration == pytest.approx(item.duration, abs=0.01)
    assert answer.metadata.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("query", "data", "kind", "status", "says"),
    [
        ("", b"no audio at all", "audio/wav", 400, "not audio"),
        ("", b"", "audio/wav", 400, "empty"),
        ("", b'{"url": "http://example.org/a.wav"}', "application/json", 400, "fetches no url"),
        ("?diarize=true", b"x", "audio/wav", 400, "diarize"),
        ("?summarize=v2", b"x", "audio/wav", 400, "summarize"),
        ("?model=tiny", b"x", "audio/wav", 404, "voxtral-numbers"),
        ("?utterances=maybe", b"RIFF", "audio/wav", 400, "true or false"),
    ],
)
def test_files_that_are_refused(
    server: Running, query: str, data: bytes, kind: str, status: int, says: str
) -> None:
    got, body, headers = post(server, query, data, kind)
    assert (got, body["request_id"]) == (status, headers["x-request-id"])
    assert says in body["err_msg"]


def test_a_file_that_is_too_large(numbers: voxfast.Model) -> None:
    with serving(numbers, Limits(upload_bytes=1000)) as server:
        status, body, _ = post(server, "", bytes(2000))
    assert (status, body["err_code"]) == (413, "FILE_TOO_LARGE")

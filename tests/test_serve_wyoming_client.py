"""The Wyoming client against the server: transcripts, hostile bytes, limits."""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from evaluation import EvalItem
from serving import pcm, pieces

import voxfast
from voxfast.serve.hub import Hub, Limits
from voxfast.serve.server import Server, Settings
from voxfast.serve.tcp import serve_wyoming

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports audioop
    pytest.importorskip("wyoming.audio")

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong


@contextlib.asynccontextmanager
async def connected(hub: Hub) -> AsyncIterator[AsyncTcpClient]:
    """A client of a server that ends with the block."""
    async with serve_wyoming(hub, "127.0.0.1", 0) as port:
        async with AsyncTcpClient("127.0.0.1", port, read_timeout=30) as client:
            yield client
        while hub.sessions:
            await asyncio.sleep(0.01)


async def transcript(client: AsyncTcpClient, data: bytes, **form: int) -> list[Event]:
    """One request, as Home Assistant makes it; the answers up to the last one."""
    form = {"rate": 16_000, "width": 2, "channels": 1, **form}
    await client.write_event(Transcribe(language="en").event())
    await client.write_event(AudioStart(**form).event())
    for piece in pieces(data, 2048):
        await client.write_event(AudioChunk(audio=piece, **form).event())
    await client.write_event(AudioStop().event())
    return [event async for event in answers(client)]


async def answers(client: AsyncTcpClient) -> AsyncIterator[Event]:
    while (event := await client.read_event()) is not None:
        yield event
        if TranscriptStop.is_type(event.type):
            return


def text(events: list[Event]) -> str:
    """The transcript, which the pieces joined must equal."""
    assert TranscriptStart.is_type(events[0].type)
    *chunks, whole, stop = events[1:]
    assert TranscriptStop.is_type(stop.type)
    said: str = Transcript.from_event(whole).text
    assert "".join(TranscriptChunk.from_event(chunk).text for chunk in chunks) == said
    return said


def test_requests_of_one_connection(numbers: voxfast.Model, eval_items: list[EvalItem]) -> None:
    async def run() -> list[str]:
        async with connected(Hub(numbers)) as client:
            await client.write_event(Describe().event())
            event = await client.read_event()
            assert event is not None
            (program,) = Info.from_event(event).asr
            assert program.models[0].languages == ["en"]
            assert program.supports_transcript_streaming
            await client.write_event(Ping("x").event())
            pong = await client.read_event()
            assert pong is not None
            assert Pong.from_event(pong).text == "x"
            return [text(await transcript(client, pcm(item.audio))) for item in eval_items[:3]]

    said = asyncio.run(run())
    assert said == [voxfast.transcribe(item.audio, model=numbers).text for item in eval_items[:3]]
    assert all(said)


def test_other_forms_of_audio(numbers: voxfast.Model, eval_items: list[EvalItem]) -> None:
    audio = eval_items[1].audio

    async def run() -> list[str]:
        async with connected(Hub(numbers)) as client:
            samples = np.frombuffer(pcm(audio, 48_000), "<i2")
            stereo = np.repeat(samples, 2).astype("<i4") << 16
            wide = await transcript(client, stereo.tobytes(), rate=48_000, width=4, channels=2)
            return [text(wide), text(await transcript(client, b""))]

    assert asyncio.run(run()) == [eval_items[1].transcript, ""]


@pytest.mark.parametrize("has_stop", [True, False])
def test_a_client_that_ends_its_half(
    numbers: voxfast.Model, eval_items: list[EvalItem], has_stop: bool
) -> None:
    async def run() -> list[Event]:
        async with connected(Hub(numbers)) as client:
            form: dict[str, Any] = {"rate": 16_000, "width": 2, "channels": 1}
            await client.write_event(AudioStart(**form).event())
            await client.write_event(AudioChunk(audio=pcm(eval_items[1].audio), **form).event())
            if has_stop:
                await client.write_event(AudioStop().event())
            assert client._writer is not None
            client._writer.write_eof()
            found = [event async for event in answers(client)]
            assert await client.read_event() is None
            return found

    assert text(asyncio.run(run())) == eval_items[1].transcript


def test_refusals_end_the_connection(numbers: voxfast.Model) -> None:
    async def run(event: Event, limits: Limits | None = None) -> str:
        async with connected(Hub(numbers, limits or Limits())) as client:
            await client.write_event(event)
            answer = await client.read_event()
            if answer is not None and TranscriptStart.is_type(answer.type):
                answer = await client.read_event()
            assert answer is not None
            assert Error.is_type(answer.type)
            assert await client.read_event() is None
            return str(Error.from_event(answer).code)

    assert asyncio.run(run(Transcribe(name="whisper").event())) == "model_not_found"
    assert asyncio.run(run(AudioStart(5, 2, 1).event())) == "invalid_value"
    assert asyncio.run(run(AudioStart(16_000, 9, 1).event())) == "invalid_request"
    assert asyncio.run(run(Describe().event(), Limits(sessions=0))) == "too_many_sessions"
    large = AudioChunk(16_000, 2, 1, bytes(2000)).event()
    assert asyncio.run(run(large, Limits(message_bytes=1000))) == "message_too_large"
    assert asyncio.run(run(large, Limits(audio_seconds=0.01))) == "audio_too_long"
    nothing = Event("x")
    assert asyncio.run(run(nothing, Limits(idle_seconds=0.1))) == "idle_timeout"


def test_hostile_bytes_hurt_nobody_else(numbers: voxfast.Model, eval_items: list[EvalItem]) -> None:
    """Random bytes, cut off events and clients that leave, beside one that goes on."""
    rng = np.random.default_rng(0)
    good = b'{"type": "audio-chunk", "data_length": 44, "payload_length": 640}\n'
    good += b'{"rate": 16000, "width": 2, "channels": 1}  ' + bytes(640)

    async def attack(port: int, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = bytearray(good * 3)
        for at in rng.integers(0, len(data), number % 5):
            data[at] = rng.integers(256)
        data = data[: rng.integers(len(data))] if number % 3 else data + rng.bytes(50)
        with contextlib.suppress(OSError):
            writer.write(data)
            await writer.drain()
            if number % 2:
                writer.transport.abort()
            else:
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 30)
        writer.close()

    async def run() -> str:
        hub = Hub(numbers, Limits(sessions=200))
        async with connected(hub) as client:
            port = client._writer.get_extra_info("peername")[1]
            talk = asyncio.create_task(transcript(client, pcm(eval_items[1].audio)))
            await asyncio.gather(*(attack(port, number) for number in range(100)))
            said = text(await talk)
            while hub.sessions > 1:
                await asyncio.sleep(0.01)
            return said

    assert asyncio.run(run()) == eval_items[1].transcript


def test_clients_that_are_left_are_cut_off_at_the_end(numbers: voxfast.Model) -> None:
    async def run() -> None:
        hub = Hub(numbers)
        async with serve_wyoming(hub, "127.0.0.1", 0) as port:
            client = AsyncTcpClient("127.0.0.1", port, read_timeout=30)
            await client.connect()
            await client.write_event(AudioStart(16_000, 2, 1).event())
            while not hub.sessions:
                await asyncio.sleep(0.01)
        assert hub.sessions == 0
        with contextlib.suppress(ConnectionError):
            while await client.read_event() is not None:
                pass
        with contextlib.suppress(ConnectionError):
            await client.disconnect()
        with pytest.raises(ConnectionRefusedError):
            await AsyncTcpClient("127.0.0.1", port).connect()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_the_server_listens_and_lets_last_words_be_written(
    numbers: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    """As ``voxfast serve --wyoming PORT`` does it; a request under way is finished."""
    ports: asyncio.Queue[int] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def listener() -> AsyncIterator[None]:
        async with serve_wyoming(hub, "127.0.0.1", 0) as port:
            ports.put_nowait(port)
            yield

    async def run(server: Server) -> list[Event]:
        serving = asyncio.create_task(server._run())
        form: dict[str, Any] = {"rate": 16_000, "width": 2, "channels": 1}
        async with AsyncTcpClient("127.0.0.1", await ports.get(), read_timeout=30) as client:
            await client.write_event(AudioStart(**form).event())
            await client.write_event(AudioChunk(audio=pcm(eval_items[1].audio), **form).event())
            while not [seat for seat in hub._seats if seat.audio_seconds]:
                await asyncio.sleep(0.01)
            server.stop()
            found = [event async for event in answers(client)]
            ending = await client.read_event()
            assert ending is not None
            assert ending.type == "error"  # more audio was to come
            assert "ending" in ending.data["text"]
        assert await serving
        return found

    hub = Hub(numbers, Limits(drain_seconds=20))
    events = asyncio.run(run(Server(hub, Settings(port=0), [listener])))
    assert text(events) == eval_items[1].transcript

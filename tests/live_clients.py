"""Clients of ``voxfast serve``, one for each dialect, without anybody's library.

A live client says audio as it comes, and hears how many words each answer brings, then the text.
"""

import asyncio
import base64
import contextlib
import io
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import soundfile
from evaluation import load_eval_items
from serving import pcm
from websockets.asyncio.client import ClientConnection, connect

import voxfast
from voxfast.serve.wyoming import FrameReader, frame_bytes

__all__ = [
    "DIALECTS",
    "PIECE_BYTES",
    "PIECE_SECONDS",
    "RATE",
    "Address",
    "Clip",
    "Live",
    "load_clips",
    "upload",
    "upload_rudely",
]

RATE = 16_000
PIECE_SECONDS = 0.08
PIECE_BYTES = round(PIECE_SECONDS * RATE) * 2
_FORM = {"rate": RATE, "width": 2, "channels": 1}
_FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="clip"\r\n\r\n'

Answer: TypeAlias = int | str
"""So many words; at last, the whole text."""


@dataclass(frozen=True)
class Address:
    """Where the server listens, on this machine."""

    http: int
    wyoming: int


@dataclass(frozen=True)
class Clip:
    """A recording, and what a plain session hears in it.

    Attributes:
        data: samples of 16 bits.
        file: the same as WAV.
        ends: of its words, in seconds.
    """

    data: bytes
    file: bytes
    seconds: float
    text: str
    ends: tuple[float, ...]


def load_clips(model: voxfast.Model, most: int = 40) -> list[Clip]:
    """The evaluation clips, the shortest first; without the long one."""
    clips = []
    for item in sorted(load_eval_items(), key=lambda item: item.duration)[:most]:
        data = pcm(item.audio)
        samples = np.frombuffer(data, "<i2")
        heard = voxfast.transcribe(samples, model=model)
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, format="WAV")
        ends = tuple(word.end for word in heard.words)
        clips.append(Clip(data, file.getvalue(), item.duration, heard.text, ends))
    return clips


class Live(Protocol):
    """A connection of a live client, which lasts as long as the block."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *error: object) -> None: ...

    async def say(self, audio: bytes) -> None:
        """Send samples: 16 bits, 16 kHz, mono."""
        ...

    async def end(self) -> None:
        """There is no more audio."""
        ...

    def answers(self) -> AsyncIterator[Answer]:
        """What comes back."""
        ...

    async def send_garbage(self) -> None:
        """Send what is no message."""
        ...

    def abort(self) -> None:
        """Go away without a word."""
        ...


class _Socket:
    """A WebSocket."""

    def __init__(self, address: Address, path: str) -> None:
        self._connecting = connect(f"ws://127.0.0.1:{address.http}{path}", close_timeout=5)

    async def __aenter__(self) -> Self:
        self._socket: ClientConnection = await self._connecting
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._socket.close()

    async def send(self, message: dict[str, Any]) -> None:
        await self._socket.send(json.dumps(message))

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        async for frame in self._socket:
            event = json.loads(frame)
            if event["type"].lower() == "error":
                raise RuntimeError(f"an error of the server: {frame!r:.300}")
            yield event

    async def send_garbage(self) -> None:
        await self._socket.send(random.randbytes(random.randrange(1, 3000)))
        await self._socket.send('{"type": "' + "x" * random.randrange(3000))

    def abort(self) -> None:
        self._socket.transport.abort()


class _Base64(_Socket):
    """A dialect with audio in Base64, an event for each word, and one at the end."""

    path: str
    opening: tuple[dict[str, Any], ...] = ()
    append: str
    ending: dict[str, Any]
    delta: str
    done: str
    text = "text"  # its place in the last event

    def __init__(self, address: Address) -> None:
        super().__init__(address, self.path)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for event in self.opening:
            await self.send(event)
        return self

    async def say(self, audio: bytes) -> None:
        await self.send({"type": self.append, "audio": base64.b64encode(audio).decode()})

    async def end(self) -> None:
        await self.send(self.ending)

    async def answers(self) -> AsyncIterator[Answer]:
        async for event in self.events():
            if event["type"] == self.delta:
                yield 1
            elif event["type"] == self.done:
                yield event[self.text]
                return


_INPUT = {"format": {"type": "audio/pcm", "rate": RATE}, "turn_detection": None}


class _OpenAI(_Base64):
    path = "/v1/realtime?intent=transcription"
    opening = (
        {
            "type": "session.update",
            "session": {"type": "transcription", "audio": {"input": _INPUT}},
        },
    )
    append = "input_audio_buffer.append"
    ending = {"type": "input_audio_buffer.commit"}  # noqa: RUF012
    delta = "conversation.item.input_audio_transcription.delta"
    done = "conversation.item.input_audio_transcription.completed"
    text = "transcript"


class _Vllm(_Base64):
    path = "/v1/realtime"
    opening = ({"type": "session.update", "model": "voxtral-numbers"},)
    append = "input_audio_buffer.append"
    ending = {"type": "input_audio_buffer.commit", "final": True}  # noqa: RUF012
    delta = "transcription.delta"
    done = "transcription.done"


class _Mistral(_Base64):
    path = "/v1/audio/transcriptions/realtime"
    append = "input_audio.append"
    ending = {"type": "input_audio.end"}  # noqa: RUF012
    delta = "transcription.text.delta"
    done = "transcription.done"


class _Deepgram(_Socket):
    """The words of interim results do not change, so each counts when it comes first."""

    def __init__(self, address: Address) -> None:
        query = f"encoding=linear16&sample_rate={RATE}&interim_results=true&endpointing=false"
        super().__init__(address, f"/v1/listen?{query}")

    async def say(self, audio: bytes) -> None:
        await self._socket.send(audio)

    async def end(self) -> None:
        await self.send({"type": "CloseStream"})

    async def answers(self) -> AsyncIterator[Answer]:
        said: list[str] = []
        counted = 0
        async for event in self.events():
            if event["type"] == "Metadata":
                yield " ".join(said)
                return
            words = event["channel"]["alternatives"][0]["words"]
            if (count := len(said) + len(words)) > counted:
                yield count - counted
                counted = count
            if event["is_final"]:
                said += [word["punctuated_word"] for word in words]


class _Wyoming:
    """Events over TCP."""

    def __init__(self, address: Address) -> None:
        self._port = address.wyoming

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(frame_bytes("audio-start", _FORM))
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def say(self, audio: bytes) -> None:
        header = {"type": "audio-chunk", "data": _FORM, "payload_length": len(audio)}
        await self._send(json.dumps(header).encode() + b"\n" + audio)

    async def end(self) -> None:
        await self._send(frame_bytes("audio-stop"))

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answers(self) -> AsyncIterator[Answer]:
        frames = FrameReader(1 << 20)
        while data := await self._reader.read(1 << 16):
            for frame in frames.step(data):
                match frame.type:
                    case "transcript-chunk":
                        yield 1
                    case "transcript":
                        yield str(frame.data["text"])
                        return
                    case "error":
                        raise RuntimeError(f"an error of the server: {frame.data!r:.300}")

    async def send_garbage(self) -> None:
        await self._send(random.randbytes(random.randrange(1, 3000)))

    def abort(self) -> None:
        self._writer.transport.abort()


DIALECTS: dict[str, Callable[[Address], Live]] = {
    "openai": _OpenAI,
    "vllm": _Vllm,
    "mistral": _Mistral,
    "deepgram": _Deepgram,
    "wyoming": _Wyoming,
}


# -- Files


async def upload(address: Address, file: bytes) -> str:
    """The text of a file."""
    reader, writer = await asyncio.open_connection("127.0.0.1", address.http)
    try:
        writer.write(_request(_FILE + file + b"\r\n--b--\r\n"))
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.transport.abort()
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise RuntimeError(f"an error of the server: {body!r:.300}")
    return str(json.loads(body)["text"])


async def upload_rudely(address: Address, manner: str, file: bytes, seconds: float) -> None:
    """Leave in the middle of a file, send what is none, or read nothing of the answer."""
    if manner == "sends garbage":
        file = random.randbytes(random.randrange(1, 100_000))
    streaming = b'--b\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
    request = _request(streaming + _FILE + file + b"\r\n--b--\r\n")
    if manner == "goes away":
        request = request[: random.randrange(len(request))]
    _, writer = await asyncio.open_connection("127.0.0.1", address.http)
    try:
        writer.write(request)
        await writer.drain()
        await asyncio.sleep(seconds)
    finally:
        writer.transport.abort()


def _request(body: bytes) -> bytes:
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body

"""Mutated frames for every protocol of the server; see tools/fuzz_server.py.

A connection follows from its number: valid frames of its dialect, of which most are mutated, in
any order, some of them huge, and an end of any kind. What the server answers must be events of
the dialect, and its refusals in the dialect's own form. Meanwhile a neighbour, who behaves, must
get the words of each clip alone.
"""

import asyncio
import base64
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

from live_clients import DIALECTS, PIECE_BYTES, PIECE_SECONDS, Address, Clip, upload
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fuzzing.mutate import mutate_bytes, mutate_json, mutate_json_text
from voxfast.serve.wyoming import FrameReader

__all__ = ["MESSAGE_KB", "TARGETS", "Tally", "attack"]

MESSAGE_KB = 128
"""The longest message that the server is to accept, so that huge ones are cheap."""
HANGS_AFTER = 60  # seconds without an end
SIDE_BY_SIDE = 8
_LAST = "the last frame"  # a type that no dialect has: its refusal answers all before it
_END_CODES = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1013}  # not 1006 and 1011: faults

Frame: TypeAlias = dict[str, Any] | bytes


@dataclass
class Tally:
    """What has happened.

    Attributes:
        frames: sent; a handshake or a request is one, too.
        refusals: by code.
        faults: of the server, in words: wrong forms, dropped connections, no answer.
        clips, wrong: of the neighbour.
    """

    frames: int = 0
    connections: int = 0
    answers: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    clips: int = 0
    wrong: int = 0


async def attack(
    name: str, address: Address, clips: list[Clip], frames: int, first: int, tally: Tally
) -> int:
    """Send so many mutated frames, beside a neighbour.

    Args:
        name: one of :data:`TARGETS`.
        first: number of the first connection.

    Returns:
        The number of the connection that comes next.
    """
    target, numbers, end = TARGETS[name], itertools.count(first), tally.frames + frames

    async def one_after_the_other() -> None:
        while tally.frames < end:
            number = next(numbers)
            tally.connections += 1
            try:
                await _limited(target.connection(address, Random(f"{name} {number}"), tally))
            except _Fault as fault:
                tally.faults.append(f"connection {number}: {fault}")

    neighbour = asyncio.create_task(_behave(target.neighbour, address, clips, tally))
    await asyncio.sleep(0)
    await asyncio.gather(*(one_after_the_other() for _ in range(SIDE_BY_SIDE)))
    neighbour.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await neighbour
    return next(numbers)


class _Fault(Exception):
    """The server did what it must not."""


async def _limited(connection: Coroutine[Any, Any, None]) -> None:
    """Seconds are counted one by one: a machine that is suspended loses one of them only."""
    task = asyncio.create_task(connection)
    for _ in range(HANGS_AFTER):
        if (await asyncio.wait({task}, timeout=1))[0]:
            return task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    raise _Fault(f"no end after {HANGS_AFTER} s")


async def _behave(dialect: str, address: Address, clips: list[Clip], tally: Tally) -> None:
    """Say one clip after the other, until it is cancelled between two."""
    for clip in itertools.cycle(clips):
        saying = asyncio.create_task(_say(dialect, address, clip))
        try:
            text = await asyncio.shield(saying)
        except asyncio.CancelledError:
            text = await saying
            raise
        finally:
            tally.clips += 1
            tally.wrong += text.split() != clip.text.split()


async def _say(dialect: str, address: Address, clip: Clip) -> str:
    if dialect not in DIALECTS:
        await asyncio.sleep(clip.seconds / 4)
        return await upload(address, clip.file)
    async with DIALECTS[dialect](address) as live:
        speaking = asyncio.create_task(_speak(live, clip))
        text = ""
        async for answer in live.answers():
            text = answer if isinstance(answer, str) else text
        await speaking
    return text


async def _speak(live: Any, clip: Clip) -> None:
    for at in range(0, len(clip.data), PIECE_BYTES):
        await live.say(clip.data[at : at + PIECE_BYTES])
        await asyncio.sleep(PIECE_SECONDS)
    await live.end()


# -- Forms of refusals: the code, or None for an event that is none


def _code(event: dict[str, Any]) -> str | None:
    """That of OpenAI's, vLLM's, Mistral's or Deepgram's error."""
    match event:
        case {"type": "error", "error": {"message": str(), "type": str(), "code": str(code)}}:
            return code
        case {"type": "error", "error": {"message": str(), "kind": str(code), "code": int()}}:
            return code
        case {"type": "error", "error": str(), "code": str(code)}:
            return code
        case {"type": "Error", "variant": str(code), "description": str(), "message": str()}:
            return code
        case {"type": "ConfigureFailure", "code": str(code), "description": str()}:
            return code
        case {"type": str(kind)} if kind.lower() != "error":
            return None
    raise _Fault(f"an event of an odd form: {event!r:.200}")


def _http_code(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        raise _Fault(f"a refusal that is not JSON: {body!r:.200}") from None
    match answer:
        case {"error": {"message": str(), "type": str(), "code": str(code)}}:
            return code
        case {"err_code": str(code), "err_msg": str(), "request_id": str()}:
            return code
    raise _Fault(f"a refusal of an odd form: {body!r:.200}")


def _refused(tally: Tally, code: str) -> None:
    tally.refusals[code.lower()] += 1
    if code.lower() == "internal_error":
        raise _Fault("an internal error")


# -- WebSockets


@dataclass(frozen=True)
class _Message:
    """A message of a WebSocket.

    Attributes:
        leaves: the data is written as it is, and the client goes away.
    """

    data: bytes
    is_text: bool = False
    in_fragments: bool = False
    leaves: bool = False

    @property
    def parts(self) -> bytes | list[bytes]:
        data = self.data
        return [data[:5], b"", data[5:]] if self.in_fragments else data

    @property
    def is_foul(self) -> bool:
        """Whether the server's library refuses it, before any dialect."""
        if len(self.data) > MESSAGE_KB << 11:
            return True
        return self.is_text and "\ufffd" in self.data.decode(errors="replace")


@dataclass(frozen=True)
class _Socket:
    """A door for WebSockets.

    Attributes:
        neighbour: the dialect of whoever behaves.
        first: sent before all others, most of the time.
        valid: frames; bytes are audio.
    """

    neighbour: str
    path: str
    query: str
    valid: tuple[Frame, ...]
    first: tuple[Frame, ...] = ()

    async def connection(self, address: Address, rng: Random, tally: Tally) -> None:
        query = self.query if rng.random() < 0.9 else _mutated_query(rng, self.query)
        url = f"ws://127.0.0.1:{address.http}{self.path}?{query}"
        tally.frames += 1
        try:
            socket = await connect(url, close_timeout=5, max_size=None, max_queue=None)
        except InvalidStatus as refused:
            _refused(tally, _http_code(refused.response.body or b""))
            return
        reading = asyncio.create_task(self._read(socket, tally))
        messages = [*self._messages(rng)]
        try:
            with contextlib.suppress(ConnectionClosed):
                for message in messages:
                    tally.frames += 1
                    if message.leaves:
                        socket.transport.write(message.data)
                        await asyncio.sleep(0.01)
                        return
                    await socket.send(message.parts, text=message.is_text)
                await socket.send(json.dumps({"type": _LAST}))
            await reading
            code = socket.close_code or 1000
            # What the server's library refuses resets the connection, and so may lose the code.
            if code not in _END_CODES and not (code == 1006 and any(m.is_foul for m in messages)):
                raise _Fault(f"the connection was closed with {code}: {socket.close_reason}")
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            socket.transport.abort()

    def _messages(self, rng: Random) -> Iterator["_Message"]:
        frames = [*self.first] if rng.random() < 0.9 else []
        frames += rng.choices(self.valid, k=rng.choice((1, 3, 10, 40)))
        for frame in frames:
            is_text = not isinstance(frame, bytes)
            data = json.dumps(frame).encode() if is_text else frame
            huge = MESSAGE_KB << rng.randrange(8, 12)
            match rng.randrange(100):
                case 0:  # no WebSocket's frame
                    yield _Message(rng.randbytes(rng.choice((1, 7, 100))), leaves=True)
                case 1:
                    yield _Message(b"", leaves=True)
                case 2:
                    yield _Message(data, is_text, in_fragments=True)
                case 3:
                    yield _Message(bytes(huge))
                case 4:
                    yield _Message(b"[" * huge, is_text=True)
                case number if number < 40:
                    yield _Message(data, is_text)
                case _ if isinstance(frame, bytes):
                    yield _Message(mutate_bytes(rng, frame), is_text=rng.random() < 0.1)
                case _:
                    yield _Message(mutate_json_text(rng, frame), is_text=rng.random() < 0.95)

    async def _read(self, socket: ClientConnection, tally: Tally) -> None:
        """Read until the last frame is answered, or the server closes."""
        with contextlib.suppress(ConnectionClosed):
            async for frame in socket:
                event = json.loads(frame, parse_constant=_no_constant)
                tally.answers += 1
                if (code := _code(event)) is not None:
                    if _LAST in str(event):
                        return
                    _refused(tally, code)


def _no_constant(name: str) -> Any:
    raise _Fault(f"{name} is no JSON")


def _mutated_query(rng: Random, query: str) -> str:
    pairs: list[tuple[str, str | bytes]] = [*parse_qsl(query)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        name = rng.choice([*dict(pairs), *_PARAMETERS])
        value = rng.choice((*_PARAMETER_VALUES, mutate_bytes(rng, b"en 16000 true")))
        pairs.insert(rng.randrange(len(pairs) + 1), (name, value))
        if rng.random() < 0.2:
            del pairs[rng.randrange(len(pairs))]
    return urlencode(pairs)


_PARAMETERS = (
    *("model", "language", "encoding", "sample_rate", "channels", "endpointing", "keyterm"),
    *("interim_results", "utterance_end_ms", "vad_events", "keywords", "delay_ms", "diarize"),
    *("intent", "callback", "key", "", "x"),
)
_PARAMETER_VALUES = (
    *("", "true", "false", "0", "-1", "1", "8000", "16000", "192001", "1e3", "NaN", "9" * 400),
    *("linear16", "linear32", "mulaw", "alaw", "opus", "en", "xx", "multi", "nova-3", "other"),
    *("transcription", "a:b", "door:2", "\0", "é", "/", "../..", "480"),
)


# -- Wyoming


@dataclass(frozen=True)
class _Wyoming:
    """A connection is a stream of bytes, which ends with its client's half."""

    neighbour: str
    valid: tuple[tuple[dict[str, Any], bytes], ...]

    async def connection(self, address: Address, rng: Random, tally: Tally) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.wyoming)
        reading = asyncio.create_task(self._read(reader, tally))
        try:
            for header, payload in rng.choices(self.valid, k=rng.choice((1, 3, 10, 40))):
                tally.frames += 1
                writer.write(self._frame(rng, header, payload))
                await writer.drain()
                if rng.random() < 0.01 or reading.done():
                    break
            if rng.random() < 0.95:
                writer.write_eof()
                await reading
        except ConnectionError:
            await reading  # after a refusal, what is still sent may find nobody
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            writer.transport.abort()

    def _frame(self, rng: Random, header: dict[str, Any], payload: bytes) -> bytes:
        kind = rng.randrange(20)
        if kind == 0:
            return rng.randbytes(rng.choice((1, 10, 1000))) + b"\n"
        if kind == 1:
            return b'{"type": "' + b"x" * (MESSAGE_KB << 9)
        if kind == 2:
            return json.dumps(mutate_json(rng, header)).encode() + b"\n" + payload
        if kind == 3:
            return mutate_json_text(rng, header) + b"\n" + payload
        data = json.dumps(header).encode() + b"\n" + payload
        return mutate_bytes(rng, data) if kind < 6 else data

    async def _read(self, reader: asyncio.StreamReader, tally: Tally) -> None:
        frames = FrameReader(1 << 20)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                for frame in frames.step(data):
                    tally.answers += 1
                    if frame.type == "error":
                        if not isinstance(frame.data.get("text"), str):
                            raise _Fault(f"an error without a text: {frame}")
                        _refused(tally, str(frame.data.get("code")))


# -- HTTP


@dataclass(frozen=True)
class _Http:
    """A request for each frame.

    Attributes:
        request: makes one; (query, type of the body, body).
    """

    neighbour: str
    path: str
    request: Callable[[Random], tuple[str, str, bytes]]

    async def connection(self, address: Address, rng: Random, tally: Tally) -> None:
        tally.frames += 1
        query, content_type, body = self.request(rng)
        head = (
            f"POST {self.path}?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        is_whole = True
        if rng.random() < 0.05:
            head, is_whole = mutate_bytes(rng, head), False
        if rng.random() < 0.05:
            body, is_whole = body[: rng.randrange(len(body) + 1)], False
        reader, writer = await asyncio.open_connection("127.0.0.1", address.http)
        try:
            writer.write(head + body)
            await writer.drain()
            async with asyncio.timeout(None if is_whole else rng.choice((0.0, 0.5))):
                answer = await reader.read()
        except (ConnectionError, TimeoutError):
            if is_whole:
                raise _Fault("the connection was dropped") from None
            return
        finally:
            writer.transport.abort()
        if is_whole:
            self._check(answer, tally)

    def _check(self, answer: bytes, tally: Tally) -> None:
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head[9:12]
        if status == b"200":
            tally.answers += 1
            for line in body.split(b"\n"):  # of a stream, which may end with an error
                if line.startswith(b'data: {"type": "error"'):
                    _refused(tally, _http_code(line.removeprefix(b"data: ")))
        elif status.startswith(b"4"):
            _refused(tally, _http_code(body))
        else:
            raise _Fault(f"an answer of {answer!r:.200}")


# -- What is valid

_SPEECH = bytes(range(256)) * 10  # 80 ms at 16 kHz
_AUDIO = base64.b64encode(_SPEECH).decode()
_FORM = {"rate": 16_000, "width": 2, "channels": 1}


def _wav() -> bytes:
    sizes = (len(_SPEECH) + 36).to_bytes(4, "little"), len(_SPEECH).to_bytes(4, "little")
    layout = bytes.fromhex("10000000 0100 0100 803e0000 007d0000 0200 1000")
    return b"RIFF" + sizes[0] + b"WAVEfmt " + layout + b"data" + sizes[1] + _SPEECH


def _upload(rng: Random) -> tuple[str, str, bytes]:
    """A form: fields of which some are mutated, and a file."""
    fields = rng.sample(_FIELDS, rng.randrange(4))
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (name, value if rng.random() < 0.5 else mutate_bytes(rng, value))
        for name, value in fields
    ]
    file = _wav() if rng.random() < 0.5 else mutate_bytes(rng, _wav(), other=_wav())
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = b"".join([*parts, head, file, b"\r\n--b--\r\n"])
    if rng.random() < 0.4:
        body = mutate_bytes(rng, body, other=body)
    kinds = ("multipart/form-data", "multipart/form-data; boundary=", "text/plain", "x" * 300)
    kind = "multipart/form-data; boundary=b" if rng.random() < 0.95 else rng.choice(kinds)
    return "", kind, body


_FIELDS = [
    (b"model", b"whisper-1"),
    (b"response_format", b"verbose_json"),
    (b"stream", b"true"),
    (b"language", b"en"),
    (b"keywords[]", b"door"),
    (b"include[]", b"logprobs"),
    (b"delay_ms", b"480"),
    (b"timestamp_granularities[]", b"word"),
    (b"chunking_strategy", b"auto"),
]


def _recording(rng: Random) -> tuple[str, str, bytes]:
    query = "utterances=true&language=en"
    body = _wav() if rng.random() < 0.3 else mutate_bytes(rng, _wav(), other=_wav())
    kind = rng.choice(("audio/wav", "audio/wav", "audio/wav", "application/json", ""))
    return query if rng.random() < 0.5 else _mutated_query(rng, query), kind, body


def _session(**given: Any) -> dict[str, Any]:
    session = {"type": "transcription", "audio": {"input": given}, "include": [_LOGPROBS]}
    return {"type": "session.update", "event_id": "mine", "session": session}


_LOGPROBS = "item.input_audio_transcription.logprobs"
_MANUAL = _session(format={"type": "audio/pcm", "rate": 16_000}, turn_detection=None)
_OPENAI: tuple[Frame, ...] = (
    _MANUAL,
    _session(
        format={"type": "audio/pcmu"},
        transcription={
            "model": "whisper-1",
            "language": "en",
            "keywords": ["door"],
            "delay": "low",
        },
        turn_detection={"type": "server_vad", "silence_duration_ms": 300, "threshold": 0.4},
    ),
    {
        "type": "transcription_session.update",
        "session": {
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": "whisper-1", "language": "en", "prompt": ""},
            "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
            "include": [_LOGPROBS],
        },
    },
    *({"type": "input_audio_buffer.append", "audio": _AUDIO},) * 5,
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
)
_UPDATE = {"type": "session.update", "model": "voxtral-numbers", "language": "en", "prompt": ""}

TARGETS: dict[str, "_Socket | _Wyoming | _Http"] = {
    "openai": _Socket("openai", "/v1/realtime", "intent=transcription", _OPENAI),
    "vllm": _Socket(
        "vllm",
        "/v1/realtime",
        "",
        (
            _UPDATE,
            *({"type": "input_audio_buffer.append", "audio": _AUDIO},) * 4,
            {"type": "input_audio_buffer.commit"},
            {"type": "input_audio_buffer.commit", "final": True},
        ),
        (_UPDATE,),
    ),
    "mistral": _Socket(
        "mistral",
        "/v1/audio/transcriptions/realtime",
        "model=voxtral-mini-transcribe-realtime-2602",
        (
            {
                "type": "session.update",
                "session": {
                    "audio_format": {"encoding": "pcm_mulaw", "sample_rate": 8000},
                    "target_streaming_delay_ms": 500,
                    "language": "en",
                    "context_bias": ["door"],
                    "turn_detection": {"min_silence_ms": 700},
                },
            },
            *({"type": "input_audio.append", "audio": _AUDIO},) * 6,
            {"type": "input_audio.flush"},
            {"type": "input_audio.end"},
        ),
    ),
    "deepgram": _Socket(
        "deepgram",
        "/v1/listen",
        "model=nova-3&encoding=linear16&sample_rate=16000&interim_results=true&vad_events=true",
        (
            *(_SPEECH,) * 6,
            {"type": "KeepAlive"},
            {"type": "Finalize", "channel": 0},
            {"type": "Configure", "keyterms": ["door", "window"], "features": None},
            {"type": "CloseStream"},
        ),
    ),
    "wyoming": _Wyoming(
        "wyoming",
        (
            ({"type": "describe"}, b""),
            ({"type": "ping", "data": {"text": "x"}}, b""),
            ({"type": "transcribe", "data": {"name": "", "language": "en"}}, b""),
            ({"type": "audio-start", "data": _FORM}, b""),
            *(({"type": "audio-chunk", "data": _FORM, "payload_length": 2560}, _SPEECH),) * 5,
            ({"type": "audio-stop"}, b""),
        ),
    ),
    "transcriptions": _Http("upload", "/v1/audio/transcriptions", _upload),
    "recordings": _Http("deepgram", "/v1/listen", _recording),
}
"""By name, in the order in which they are attacked."""

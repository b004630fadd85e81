"""Wyoming, the protocol of home automation: events over TCP.

An event is a line of JSON with its ``type``; ``data_length`` bytes of more JSON and
``payload_length`` bytes of audio follow it. A client says ``transcribe``, ``audio-start``,
``audio-chunk`` as often as it likes and ``audio-stop``; it gets ``transcript-start``,
``transcript-chunk`` while the words come, then the whole ``transcript``, and ``transcript-stop``.
``describe`` is answered by ``info``, ``ping`` by ``pong``; events of other types are dropped, as
the protocol demands. It has no keys.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from voxfast._pcm import SampleFormat
from voxfast._version import version
from voxfast.serve import frames
from voxfast.serve.dialect import (
    Action,
    Audio,
    Close,
    Event,
    Failed,
    Finish,
    Finished,
    Handshake,
    Problem,
    Send,
    Service,
    Start,
    Started,
)
from voxfast.serve.pieces import Pieces
from voxfast.timed import Word

__all__ = ["Frame", "FrameReader", "WyomingDialect", "frame_bytes"]

MOST_HEADER = 1 << 16
_ENDING = "the server is ending; the transcript holds what was said until then"
MOST_DATA = 1 << 20
_WIDTHS: dict[int, SampleFormat] = {1: "u8", 2: "s16le", 3: "s24le", 4: "s32le"}
_LINK = "https://github.com/voxfast/voxfast"


@dataclass(frozen=True, slots=True)
class Frame:
    """An event on the wire."""

    type: str
    data: dict[str, Any]
    payload: bytes = b""


class FrameReader:
    """Takes a stream of bytes apart into events.

    Parity: for any split of the bytes, the same events, and the same error behind them.

    Args:
        most_payload: bytes.
    """

    def __init__(self, most_payload: int) -> None:
        self._most_payload = most_payload
        self._waiting = bytearray()
        self._looked = 0  # bytes in which there is no end of the line
        self._header: tuple[str, dict[str, Any], int, int] | None = None

    @property
    def is_inside(self) -> bool:
        """Whether an event has begun, and is not complete."""
        return bool(self._waiting) or self._header is not None

    def step(self, data: bytes) -> Iterator[Frame]:
        """The events that are complete.

        Raises:
            Problem: for what is no event, or too long; nothing can be read behind it.
        """
        self._waiting += data
        while True:
            if self._header is None:
                line = self._line()
                if line is None:
                    return
                self._header = self._parsed(line)
            kind, known, data_length, payload_length = self._header
            if len(self._waiting) < data_length + payload_length:
                return
            more = self._take(data_length)
            payload = self._take(payload_length)
            self._header = None
            yield Frame(kind, known | _object(more, "data") if more else known, payload)

    def _line(self) -> bytes | None:
        end = self._waiting.find(b"\n", self._looked)
        if max(end, len(self._waiting) if end < 0 else 0) > MOST_HEADER:
            raise Problem(f"a header of more than {MOST_HEADER} bytes", "message_too_large", 413)
        self._looked = len(self._waiting) if end < 0 else 0
        return None if end < 0 else self._take(end + 1)

    def _parsed(self, line: bytes) -> tuple[str, dict[str, Any], int, int]:
        header = _object(line, "header")
        kind, data = header.get("type"), header.get("data")
        if not isinstance(kind, str):
            raise Problem("the header of an event has a type, which is a text", "invalid_event")
        if data is not None and not isinstance(data, dict):
            raise Problem("the data of an event must be an object", "invalid_event")
        return (
            kind,
            data or {},
            _length(header, "data_length", MOST_DATA),
            _length(header, "payload_length", self._most_payload),
        )

    def _take(self, count: int) -> bytes:
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        return taken


def _object(text: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Problem(f"the {name} of an event must be a JSON object", "invalid_event")
    return value


def _length(header: dict[str, Any], name: str, most: int) -> int:
    value = header.get(name)
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise Problem(f"{name} must be a number of bytes; got {value!r:.40}", "invalid_event")
    if value > most:
        raise Problem(f"{name} may be {most} at most; got {value!r:.40}", "message_too_large", 413)
    return value


def frame_bytes(kind: str, data: dict[str, Any] | None = None) -> bytes:
    """An event as it is sent."""
    more = b"" if data is None else json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
    header: dict[str, Any] = {"type": kind, "version": version()}
    if more:
        header["data_length"] = len(more)
    return json.dumps(header).encode() + b"\n" + more


class WyomingDialect:
    """A connection of the Wyoming protocol."""

    def __init__(self, handshake: Handshake, service: Service) -> None:
        self._service = service
        self._frames = FrameReader(service.message_bytes)
        self._asked = Start()  # by the last `transcribe`
        self._sound: Start | None = None  # of the audio that is coming
        self._languages: deque[str | None] = deque()  # of the transcripts that are due
        self._due = 0  # transcripts for which an audio-stop has come
        self._has_ended = self._is_over = False  # the client's half; the connection
        self._pieces = Pieces()

    def open(self) -> Iterable[Action]:
        """The connection is there."""
        return []

    # -- What the client sends

    def receive(self, frame: str | bytes) -> Iterable[Action]:
        """Any piece of the stream of bytes; empty: its end, and the client may still read."""
        if self._is_over:
            return
        try:
            if not frame:
                yield from self._end()
                return
            for event in self._frames.step(frame.encode() if isinstance(frame, str) else frame):
                yield from self._frame(event)
        except Problem as problem:
            yield from self._refuse(problem)

    def _frame(self, frame: Frame) -> Iterator[Action]:
        match frame.type:
            case "describe":
                yield Send(frame_bytes("info", _info(self._service)))
            case "ping":
                text = frame.data.get("text")
                yield Send(frame_bytes("pong", {"text": text if isinstance(text, str) else None}))
            case "transcribe":
                self._asked = self._transcribe(frame.data)
            case "audio-start":
                if self._sound is not None:
                    raise Problem("audio-start came before the audio-stop of the last audio")
                yield self._open(frame.data)
            case "audio-chunk":
                if self._sound is None:  # clients may leave audio-start out
                    yield self._open(frame.data)
                elif _sound(self._asked, frame.data) != self._sound:
                    raise Problem("an audio-chunk is of another form than the audio before it")
                if frame.payload:
                    yield Audio(frame.payload)
            case "audio-stop":
                if self._sound is None:  # a transcript of nothing
                    yield self._open({"rate": 16_000, "width": 2, "channels": 1})
                yield self._stop()

    def _stop(self) -> Action:
        self._sound = None
        self._due += 1
        return Finish()

    def _end(self) -> Iterator[Action]:
        """The client sends no more: its audio ends, and the connection behind the transcripts."""
        self._has_ended = True
        if self._frames.is_inside:
            raise Problem("the connection ended inside of an event", "invalid_event")
        if self._sound is not None:
            yield self._stop()
        if not self._due:
            yield Close()

    def _transcribe(self, data: dict[str, Any]) -> Start:
        if self._sound is not None:
            raise Problem("transcribe came before the audio-stop of the last audio")
        self._service.check_model(frames.text(data.get("name"), "name"))
        return Start(
            language=frames.text(data.get("language"), "language"),
            vocabulary=(
                *frames.terms(data.get("transcript_names"), "transcript_names"),
                *frames.terms(data.get("transcript_terms"), "transcript_terms"),
            ),
        )

    def _open(self, data: dict[str, Any]) -> Start:
        self._sound = _sound(self._asked, data)
        self._languages.append(self._asked.language)
        return self._sound

    # -- What happens in the session

    def event(self, event: Event) -> Iterable[Action]:
        """Something has happened in the session."""
        match event:
            case Started():
                self._pieces = Pieces()
                return [Send(frame_bytes("transcript-start", self._language()))]
            case Word():
                return self._word(event)
            case Finished():
                return self._transcript()
            case Failed(problem=problem):
                return self._refuse(problem)
        return []

    def _word(self, word: Word) -> list[Action]:
        """A piece of the transcript: the pieces joined are the whole."""
        text = self._pieces.add(word)
        if not text:
            return []
        return [Send(frame_bytes("transcript-chunk", {"text": text}))]

    def _transcript(self) -> list[Action]:
        """The whole; an error follows it if more audio was to come."""
        text = {"text": self._pieces.text, **self._language()}
        told = [Send(frame_bytes("transcript", text)), Send(frame_bytes("transcript-stop"))]
        if not self._due:
            return [*told, *self._refuse(Problem(_ENDING, "server_ending", 503))]
        self._due -= 1
        self._languages.popleft()
        return [*told, Close()] if self._has_ended and not self._due else [*told]

    def _language(self) -> dict[str, str]:
        """The code that the client gave: it would not know the model's name of it."""
        language = self._languages[0] if self._languages else None
        return {} if language is None else {"language": language}

    def _refuse(self, problem: Problem) -> list[Action]:
        """Clients do not read on behind an error, but wait for the end of the connection."""
        if self._is_over:
            return []
        self._is_over = True
        error = {"text": problem.message, "code": problem.code}
        return [Send(frame_bytes("error", error)), Close(problem.close_code, problem.message[:100])]


def _sound(asked: Start, data: dict[str, Any]) -> Start:
    """The options with the form of the audio."""
    rate, width, channels = (_whole(data, name) for name in ("rate", "width", "channels"))
    if width not in _WIDTHS:
        raise Problem(f"samples have a width of 1 to 4 bytes; got {width!r:.40}", param="width")
    return Start(
        sample_rate=rate,
        sample_format=_WIDTHS[width],
        channels=channels,
        language=asked.language,
        vocabulary=asked.vocabulary,
    )


def _whole(data: dict[str, Any], name: str) -> int:
    value = data.get(name)
    if type(value) is not int or not 0 < value < 1_000_000:
        raise Problem(f"audio needs a {name}, a whole number; got {value!r:.40}", param=name)
    return value


def _info(service: Service) -> dict[str, Any]:
    """What the server can do. A program of which the client's own voice detection ends turns."""
    model = {
        "name": service.model,
        "attribution": {"name": "voxfast", "url": _LINK},
        "installed": True,
        "description": service.description,
        "version": version(),
        "languages": [*service.languages],
    }
    program = {
        "name": "voxfast",
        "attribution": {"name": "voxfast", "url": _LINK},
        "installed": True,
        "description": "streaming speech recognition",
        "version": version(),
        "models": [model],
        "supports_transcript_streaming": True,
        "requires_external_vad": True,
    }
    return {"asr": [program]}

"""Mistral's realtime transcription: ``/v1/audio/transcriptions/realtime``.

Differences to the service: speakers are not told apart (``diarize`` and ``speaker_references`` are
refused), and a turn has no early end. ``transcription.segment`` and the segments of
``transcription.done`` have times; ``words`` of the latter have times and ``confidence``.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from voxfast._pcm import SampleFormat
from voxfast.serve import frames
from voxfast.serve.dialect import (
    Action,
    Audio,
    Close,
    Commit,
    Event,
    Failed,
    Finish,
    Finished,
    Handshake,
    LanguageFound,
    Problem,
    Send,
    Service,
    Start,
    Started,
)
from voxfast.serve.forms import word_object
from voxfast.serve.pieces import Pieces
from voxfast.timed import Segment, Word
from voxfast.vad import SpeechEnded, SpeechStarted

__all__ = ["MistralRealtime"]

MOST_AUDIO = 262_144
HOSTED_MODELS = ("voxtral-mini-transcribe-", "voxtral-mini-latest", "voxtral-mini-2")
MOST_PAUSE_MS = 60_000
DEFAULT_PAUSE_MS = 500

_ENCODINGS: dict[str, SampleFormat] = {
    "pcm_s16le": "s16le",
    "pcm_s32le": "s32le",
    "pcm_f32le": "f32le",
    "pcm_mulaw": "mulaw",
    "pcm_alaw": "alaw",
}


@dataclass(frozen=True, slots=True)
class _Options:
    """What a client has asked for; ``encoding`` is Mistral's name of the sample format."""

    start: Start = field(default_factory=Start)
    encoding: str = "pcm_s16le"


class MistralRealtime:
    """The dialect.

    Raises:
        Problem: if the URL names a model that is not there.
    """

    def __init__(self, handshake: Handshake, service: Service) -> None:
        service.check_model(handshake.one("model"), HOSTED_MODELS)
        self._service, self._request_id = service, handshake.request_id
        self._options = self._effective = _Options()
        # Options that the session has not taken yet, and whether the client waits for an answer.
        self._pending: deque[tuple[_Options, bool]] = deque()
        self._is_open = self._has_opened = self._has_ended = False
        self._pieces = Pieces()
        self._segments: list[Segment] = []
        self._language: str | None = None

    # -- Client

    def open(self) -> Iterable[Action]:
        """Greet."""
        yield _send("session.created", session=self._session())

    def receive(self, frame: str | bytes) -> Iterable[Action]:
        """A client's event."""
        try:
            yield from [*self._receive(frames.read(frame))]
        except Problem as problem:
            yield _error(problem)

    def _receive(self, event: Mapping[str, Any]) -> Iterator[Action]:
        kind = event.get("type")
        if self._has_ended:
            raise Problem("the audio has ended; open another connection", "ended")
        match kind:
            case "session.update":
                session = frames.obj(event.get("session"), "session") or {}
                yield self._start(_updated(self._options, session, self._service), is_asked=True)
            case "input_audio.append":
                data = frames.audio(event, MOST_AUDIO)
                yield from self._begin()
                yield Audio(data)
            case "input_audio.flush":
                yield from self._begin()
                yield Commit()
            case "input_audio.end":
                yield from self._begin()
                self._has_ended = True
                yield Finish()
            case str():
                raise Problem(f"{kind!r:.60} is no event of this protocol", "unknown_event")
            case _:
                raise Problem("an event must have a type", "unknown_event")

    def _begin(self) -> Iterator[Action]:
        if not self._is_open:
            yield self._start(self._options, is_asked=False)

    def _start(self, options: _Options, *, is_asked: bool) -> Action:
        self._options, self._is_open = options, True
        self._pending.append((options, is_asked))
        return options.start

    # -- Session

    def event(self, event: Event) -> Iterable[Action]:
        """An event of the session."""
        match event:
            case Started():
                self._effective, is_asked = self._pending.popleft()
                self._has_opened = True
                if is_asked:
                    yield _send("session.updated", session=self._session())
            case LanguageFound(language):
                self._language = language
                yield _send("transcription.language", audio_language=language)
            case SpeechStarted(time):
                yield _send("turn.start", time_s=round(time, 3))
            case SpeechEnded(time):
                yield _send("turn.end", time_s=round(time, 3), end_reason="threshold")
            case Word():
                yield _send("transcription.text.delta", text=self._pieces.add(event))
            case Segment():
                self._segments.append(event)
                yield _send("transcription.segment", **_segment(event))
            case Finished(duration):
                yield self._done(duration)
                yield Close() if self._has_ended else Close(1001, "the server is ending")
            case Failed(problem, _, command):
                if isinstance(command, Start):
                    self._pending.popleft()
                    self._options = self._pending[-1][0] if self._pending else self._effective
                    self._is_open = self._has_opened or bool(self._pending)
                yield _error(problem)

    def _done(self, duration: float) -> Action:
        return _send(
            "transcription.done",
            model=self._service.model,
            text=self._pieces.text,
            language=self._language,
            usage={
                "prompt_tokens": 0,
                "completion_tokens": 0,
                "total_tokens": 0,
                "prompt_audio_seconds": round(duration),
            },
            segments=[
                {"type": "transcription_segment", **_segment(segment)} for segment in self._segments
            ],
            words=[word_object(word) for word in self._pieces.words],
        )

    def _session(self) -> dict[str, Any]:
        options = self._effective.start
        pause = options.endpoint_ms
        return {
            "request_id": self._request_id,
            "model": self._service.model,
            "audio_format": {
                "encoding": self._effective.encoding,
                "sample_rate": options.sample_rate,
            },
            "target_streaming_delay_ms": options.delay_ms,
            "language": options.language,
            "context_bias": [*options.vocabulary],
            "turn_detection": None if pause is None else {"min_silence_ms": round(pause)},
        }


def _updated(options: _Options, session: Mapping[str, Any], service: Service) -> _Options:
    """The options after an update; what is absent stays. Raises Problem."""
    for name in ("diarize", "speaker_references"):
        if session.get(name):
            raise Problem(
                f"speakers are not told apart; leave {name} out", "unsupported", param=name
            )
    start, encoding = options.start, options.encoding
    if (given := frames.obj(session.get("audio_format"), "audio_format")) is not None:
        encoding = given.get("encoding", encoding)
        if not isinstance(encoding, str) or encoding not in _ENCODINGS:
            names = ", ".join(_ENCODINGS)
            raise Problem(f"audio_format.encoding must be one of {names}", "invalid_value")
        name = "audio_format.sample_rate"
        rate = frames.number(given.get("sample_rate"), name, 1000, 192_000)
        start = replace(
            start,
            sample_format=_ENCODINGS[encoding],
            sample_rate=start.sample_rate if rate is None else int(rate),
        )
    if "target_streaming_delay_ms" in session:
        name = "target_streaming_delay_ms"
        delay = frames.number(session[name], name, 0, 10_000)
        start = replace(start, delay_ms=None if delay is None else service.nearest_delay(delay))
    if "language" in session:
        start = replace(start, language=frames.text(session["language"], "language"))
    if "context_bias" in session:
        start = replace(start, vocabulary=frames.terms(session["context_bias"], "context_bias"))
    if "turn_detection" in session:
        start = replace(start, endpoint_ms=_pause(session["turn_detection"]))
    return _Options(start, encoding)


def _pause(value: Any) -> float | None:
    """The pause that ends a turn; None without turns."""
    given = frames.obj(value, "turn_detection")
    if given is None:
        return None
    name = "turn_detection.min_silence_ms"
    pause = frames.number(given.get("min_silence_ms"), name, 32, MOST_PAUSE_MS)
    return DEFAULT_PAUSE_MS if pause is None else pause


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "text": segment.text,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "speaker_id": None,
    }


def _send(kind: str, **fields: Any) -> Send:
    return Send(frames.write({"type": kind, **fields}))


def _error(problem: Problem) -> Send:
    error = {"message": problem.message, "code": problem.status, "kind": problem.code}
    return _send("error", error=error)

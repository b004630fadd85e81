"""Deepgram's live dialect: ``/v1/listen``.

Binary frames are audio; text frames are ``KeepAlive``, ``Finalize``, ``Configure`` and
``CloseStream``. The answers are ``Results``, ``SpeechStarted``, ``UtteranceEnd``,
``ConfigureSuccess`` and ``ConfigureFailure``, ``Error``, and ``Metadata`` at last.

A result spans from the end of the last final one to the audio that was transcribed by then. Its
``words`` are certain, in interim results, too; the ``transcript`` of an interim result ends with
what may still change. A result is final at the end of a sentence or turn, and after 5 s of words.

Beyond Deepgram's fields, a word has its ``text`` as the model wrote it, with its leading space if
the language has spaces, and an interim result its ``tentative`` text: joined they are the
transcript of the stream.
"""

import datetime
import hashlib
import math
import re
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from voxfast._pcm import SampleFormat
from voxfast._version import version
from voxfast.serve import frames
from voxfast.serve.dialect import (
    Action,
    Audio,
    Close,
    Commit,
    Committed,
    Event,
    Failed,
    Finish,
    Finished,
    Handshake,
    Problem,
    Processed,
    Send,
    Service,
    Start,
    Started,
    Tentative,
)
from voxfast.timed import Segment, Word, join
from voxfast.vad import SpeechEnded, SpeechStarted

__all__ = ["DeepgramDialect", "Listening", "deepgram_error", "listening"]

HOSTED = ("nova", "enhanced", "base", "general", "whisper")
"""Beginnings of the names that Deepgram's own models have."""
MOST_SECONDS = 5.0  # of words in a result
INTERIM_SECONDS = 1.0  # of audio after which an interim result comes, if nothing has changed, too
ENDPOINT_MS = 300.0  # Deepgram's default of 10 ms would end a turn inside of a word
LEAST_ENDPOINT_MS = 100.0
QUIET_MS = 1500.0  # ends a turn without anybody being told, for `vad_events` alone
UNSURE_SECONDS = 1.0  # in which a word may still come, while someone speaks

_ENCODINGS: dict[str, SampleFormat] = {
    "linear16": "s16le",
    "linear32": "s32le",
    "mulaw": "mulaw",
    "alaw": "alaw",
}
_TELEPHONE = ("mulaw", "alaw")
# What would have to change the text, or send it elsewhere.
_REFUSED = ("callback", "redact", "search", "replace", "diarize", "detect_entities", "multichannel")
_KEYWORD = re.compile(r"(.+?)(?::(-?[0-9]+(?:\.[0-9]+)?))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Listening:
    """What a client asks for in the query.

    Attributes:
        start: the session.
        interim: whether interim results are sent.
        tells_end: whether a result says that a turn has ended (``speech_final``).
        tells_start: whether ``SpeechStarted`` is sent.
        utterance_end: seconds without a word before ``UtteranceEnd``; None: it is not sent.
    """

    start: Start
    interim: bool
    tells_end: bool
    tells_start: bool
    utterance_end: float | None


def listening(handshake: Handshake, service: Service) -> Listening:
    """What the query of a connection asks for.

    Raises:
        Problem: for a value that cannot be, or what this server does not do.
    """
    for name in _REFUSED:
        if (value := handshake.one(name)) not in (None, "", "false", "False"):
            raise _refusal(name, value, "this server does not do it")
    service.check_model(handshake.one("model"), HOSTED)
    interim, tells_start = _flag(handshake, "interim_results"), _flag(handshake, "vad_events")
    endpoint_ms = _endpoint(handshake)
    utterance_ms = _number(handshake, "utterance_end_ms", 1000, 60_000)
    if utterance_ms is not None and not interim:
        raise _refusal("utterance_end_ms", str(utterance_ms), "it needs interim_results=true")
    pause_ms: float | None = endpoint_ms
    if pause_ms is None and (utterance_ms is not None or tells_start):
        pause_ms = QUIET_MS if utterance_ms is None else utterance_ms
    start = Start(
        language=_language(handshake.one("language")),
        vocabulary=frames.terms(
            [*handshake.query.get("keyterm", ()), *_keywords(handshake)], "keyterm"
        ),
        endpoint_ms=pause_ms,
        delay_ms=_number(handshake, "delay_ms", 0, 10_000),
    )
    return Listening(
        start=_sound(handshake, start),
        interim=interim,
        tells_end=endpoint_ms is not None,
        tells_start=tells_start,
        utterance_end=None if utterance_ms is None else utterance_ms / 1000,
    )


def _sound(handshake: Handshake, start: Start) -> Start:
    """The options with the form of the audio."""
    name = handshake.one("encoding")
    if name is None:
        raise Problem(
            "audio in a container is not accepted here: send PCM, and say "
            f"encoding={', '.join(_ENCODINGS)} and sample_rate",
            param="encoding",
        )
    if name not in _ENCODINGS:
        raise _refusal("encoding", name, f"this server accepts {', '.join(_ENCODINGS)}")
    rate = _number(handshake, "sample_rate", 1000, 192_000)
    if rate is None:
        if name not in _TELEPHONE:
            raise Problem(f"encoding={name} needs a sample_rate", param="sample_rate")
        rate = 8000
    channels = _number(handshake, "channels", 1, 8) or 1
    return replace(start, sample_rate=rate, sample_format=_ENCODINGS[name], channels=channels)


def _endpoint(handshake: Handshake) -> float | None:
    """Milliseconds of a pause that ends a turn; None: turns are not told."""
    value = handshake.one("endpointing")
    if value is None or value.lower() == "true":
        return ENDPOINT_MS
    if value.lower() == "false":
        return None
    return max(LEAST_ENDPOINT_MS, _number(handshake, "endpointing", 0, 60_000) or 0)


def _keywords(handshake: Handshake) -> Iterator[str]:
    """The words of ``keywords``; their weights are Deepgram's own."""
    for value in handshake.query.get("keywords", ()):
        match = _KEYWORD.fullmatch(value)
        if match is None:
            raise _refusal("keywords", value, "a keyword has letters")
        if match[2] and float(match[2]) < 0:
            raise _refusal("keywords", value, "words can be expected, not suppressed")
        yield match[1]


def _language(value: str | None) -> str | None:
    return None if value is None or value.lower() == "multi" else value


def _flag(handshake: Handshake, name: str) -> bool:
    value = (handshake.one(name) or "false").lower()
    if value not in ("true", "false"):
        raise _refusal(name, value, "say true or false")
    return value == "true"


def _number(handshake: Handshake, name: str, least: int, most: int) -> int | None:
    value = handshake.one(name)
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII) or not least <= int(value) <= most:
        raise _refusal(name, value, f"say {least} to {most}")
    return int(value)


def _refusal(name: str, value: str, remedy: str) -> Problem:
    return Problem(f"{name}={value!r:.60}: {remedy}", param=name)


def deepgram_error(problem: Problem, request_id: str) -> dict[str, Any]:
    """The body of an HTTP error, in Deepgram's form."""
    code = "INVALID_AUTH" if problem.status == 401 else problem.code.upper()
    return {"err_code": code, "err_msg": problem.message, "request_id": request_id}


class DeepgramDialect:
    """A connection to ``/v1/listen``.

    Args:
        handshake: how the client has come.
        service: what the server offers.

    Raises:
        Problem: for a query that asks for what cannot be.
    """

    def __init__(self, handshake: Handshake, service: Service) -> None:
        self._asked = listening(handshake, service)
        self._id, self._model = handshake.request_id, service.model
        self._created = datetime.datetime.now(datetime.UTC)
        self._received = hashlib.sha256()
        self._is_open = self._ends = False  # the session; CloseStream has come
        self._configuring: tuple[str, ...] | None = None
        # -- The open result
        self._words: list[Word] = []
        self._start = 0.0
        self._tentative = ""
        self._is_complete = False  # a sentence or turn has ended with its words
        # -- The stream
        self._now = 0.0  # seconds that are transcribed
        self._told: tuple[int, str, float] = (0, "", 0.0)  # of the last interim result
        self._speaks = False
        self._last_end: float | None = None  # of the last word, until UtteranceEnd

    def open(self) -> Iterable[Action]:
        """The connection is there."""
        return [self._asked.start]

    # -- What the client sends

    def receive(self, frame: str | bytes) -> Iterable[Action]:
        """Audio, or a message."""
        if self._ends:
            return []
        if isinstance(frame, bytes):
            self._received.update(frame)
            return [Audio(frame)] if frame else []
        try:
            message = frames.read(frame)
        except Problem as problem:
            return [self._error(problem.message, problem.code.upper())]
        kind = message.get("type")
        if kind == "KeepAlive":
            return []
        if kind == "Finalize":
            if message.get("channel", 0) not in (0, None):
                return [self._error("there is one channel, number 0", "INVALID_CHANNEL")]
            return [Commit()]
        if kind == "CloseStream":
            self._ends = True
            return [Finish()]
        if kind == "Configure":
            return self._configure(message)
        return [self._error(f"there is no message of type {kind!r:.60}", "UNKNOWN_MESSAGE")]

    def _configure(self, message: dict[str, Any]) -> list[Action]:
        if self._configuring is not None:
            return [self._not_configured("CONFIGURE_ALREADY_PENDING", "wait for the answer")]
        if message.get("features"):
            return [self._not_configured("CONFIGURE_INTERNAL_ERROR", "there are no features")]
        try:
            self._configuring = frames.terms(message.get("keyterms"), "keyterms")
        except Problem as problem:
            return [self._not_configured("CONFIGURE_KEYTERM_LIMIT_EXCEEDED", problem.message)]
        return [replace(self._asked.start, vocabulary=self._configuring)]

    # -- What happens in the session

    def event(self, event: Event) -> Iterable[Action]:
        """Something has happened in the session."""
        actions: list[Action] = []
        if self._is_complete and isinstance(event, Word | SpeechStarted):
            actions += self._final()
        match event:
            case Word():
                actions += self._word(event)
            case Segment():
                self._is_complete = bool(self._words)
            case SpeechStarted(time=time):
                self._speaks = True
                if self._asked.tells_start:
                    actions.append(_send(type="SpeechStarted", channel=[0], timestamp=_ms(time)))
            case SpeechEnded(time=time):
                self._speaks = False
                actions += self._final(time, speech_final=self._asked.tells_end)
            case Tentative(text=text):
                self._tentative = text
            case Processed(time=time):
                self._now = time
                actions += self._progress()
            case Started():
                actions += self._started()
            case Committed(time=time):
                actions += self._final(time, from_finalize=True)
            case Finished():
                actions += self._finished(event)
            case Failed():
                actions += self._failed(event)
        return actions

    def _word(self, word: Word) -> Iterator[Action]:
        if self._words and word.end - self._words[0].start > MOST_SECONDS:
            yield from self._final()
        self._words.append(word)
        if word.text.strip():
            self._last_end = max(word.end, self._last_end or 0.0)

    def _progress(self) -> Iterator[Action]:
        """So much is transcribed: an interim result, and the end of an utterance."""
        pause = self._asked.utterance_end
        if pause is not None and self._last_end is not None and not self._tentative:
            unsure = UNSURE_SECONDS if self._speaks else 0.0
            if self._now - self._last_end >= pause + unsure:
                last, self._last_end = self._last_end, None
                if self._words:
                    yield from self._final()
                yield _send(type="UtteranceEnd", channel=[0, 1], last_word_end=_ms(last))
        if not self._asked.interim or self._is_complete:
            return
        count, tentative, then = self._told
        is_new = (len(self._words), self._tentative) != (count, tentative)
        if is_new or self._now - then >= INTERIM_SECONDS:
            self._told = (len(self._words), self._tentative, self._now)
            yield self._result(max(self._now, self._start), may_skip=True)

    def _final(
        self, time: float | None = None, *, speech_final: bool = False, from_finalize: bool = False
    ) -> Iterator[Action]:
        """The open result, which ends at ``time``, or with its last word."""
        self._is_complete = False
        if not (self._words or speech_final or from_finalize):
            return
        end = max(word.end for word in self._words) if self._words else self._start
        end = max(self._start, end, 0.0 if time is None else time)
        yield self._result(
            end, is_final=True, speech_final=speech_final, from_finalize=from_finalize
        )
        self._words, self._start = [], end
        self._told = (0, "", self._now)

    def _finished(self, event: Finished) -> Iterator[Action]:
        """The last result, and what the stream was."""
        if self._words:
            yield from self._final(event.duration, speech_final=self._asked.tells_end)
        model = _model_id(self._model)
        yield _send(
            type="Metadata",
            transaction_key="deprecated",
            request_id=self._id,
            sha256=self._received.hexdigest(),
            created=self._created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            duration=_ms(event.duration),
            channels=1,
            models=[model],
            model_info={model: _model_info(self._model)},
        )
        yield Close() if self._ends else Close(1001, "the server is ending")

    def _started(self) -> Iterator[Action]:
        self._is_open = True
        terms, self._configuring = self._configuring, None
        if terms is not None:
            yield _send(type="ConfigureSuccess", request_id=self._id, keyterms=list(terms))

    def _failed(self, event: Failed) -> Iterator[Action]:
        problem = event.problem
        if self._configuring is not None and not event.is_final:
            self._configuring = None
            yield self._not_configured("CONFIGURE_KEYTERMS_NOT_SUPPORTED", problem.message)
        elif problem.code == "idle_timeout":
            yield Close(
                1011,
                "NET-0001: the server did not receive audio or a text message within the timeout",
            )
        else:
            yield self._error(problem.message, problem.code.upper())
            if not self._is_open:
                yield Close(problem.close_code, problem.message[:100])

    # -- Messages

    def _result(
        self,
        end: float,
        *,
        is_final: bool = False,
        speech_final: bool = False,
        from_finalize: bool = False,
        may_skip: bool = False,
    ) -> Send:
        words = [*_words(self._words)]
        tentative = "" if is_final else self._tentative
        alternative = {
            "transcript": (join(self._words) + tentative).strip(),
            "confidence": _mean([word["confidence"] for word in words]),
            "words": words,
        }
        if not is_final:
            alternative["tentative"] = tentative
        return _send(
            may_skip,
            type="Results",
            channel_index=[0, 1],
            duration=_ms(end - self._start),
            start=_ms(self._start),
            is_final=is_final,
            speech_final=speech_final,
            from_finalize=from_finalize,
            channel={"alternatives": [alternative]},
            metadata={
                "request_id": self._id,
                "model_info": _model_info(self._model),
                "model_uuid": _model_id(self._model),
            },
        )

    def _not_configured(self, code: str, description: str) -> Send:
        return _send(
            type="ConfigureFailure", request_id=self._id, code=code, description=description
        )

    def _error(self, description: str, code: str) -> Send:
        return _send(
            type="Error", variant=code, code=code, description=description, message=description
        )


def _send(may_skip: bool = False, **message: Any) -> Send:
    return Send(frames.write(message), may_skip)


def _words(words: Sequence[Word]) -> Iterator[dict[str, Any]]:
    """Words with some text; white space that comes alone goes before the next one."""
    space = ""
    for word in words:
        text, space = space + word.text, ""
        if not text.strip():
            space = text
            continue
        yield {
            "word": _bare(text),
            "start": _ms(word.start),
            "end": _ms(word.end),
            "confidence": round(1.0 if word.probability is None else word.probability, 4),
            "punctuated_word": text.strip(),
            "text": text,
        }


def _bare(text: str) -> str:
    """A word in lower case, without the punctuation around it, if it is more than that."""
    shown = text.strip()
    start, end = 0, len(shown)
    while start < end and _is_mark(shown[start]):
        start += 1
    while end > start and _is_mark(shown[end - 1]):
        end -= 1
    return (shown[start:end] or shown).lower()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("P")


def _mean(values: Sequence[float]) -> float:
    return round(math.fsum(values) / len(values), 4) if values else 0.0


def _ms(seconds: float) -> float:
    """Seconds to the millisecond."""
    return round(max(0.0, seconds), 3)


def _model_id(name: str) -> str:
    """The same for the same name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"voxfast:{name}"))


def _model_info(name: str) -> dict[str, str]:
    return {"name": name, "version": version(), "arch": "voxfast"}

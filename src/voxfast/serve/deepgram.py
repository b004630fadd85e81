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
import unicodedata
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from voxfast._version import version
from voxfast.serve import frames
from voxfast.serve.deepgram_query import listening
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

__all__ = ["DeepgramDialect", "alternative", "model_id", "model_info"]

MOST_SECONDS = 5.0  # of words in a result
INTERIM_SECONDS = 1.0  # of audio after which an interim result comes, if nothing has changed, too
UNSURE_SECONDS = 1.0  # in which a word may still come, while someone speaks


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
        self._starts: deque[tuple[str, ...] | None] = deque()  # under way; keyterms of Configure
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
        self._starts.append(None)
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
        if any(terms is not None for terms in self._starts):
            return [self._not_configured("CONFIGURE_ALREADY_PENDING", "wait for the answer")]
        if message.get("features"):
            return [self._not_configured("CONFIGURE_INTERNAL_ERROR", "there are no features")]
        try:
            terms = frames.terms(message.get("keyterms"), "keyterms")
        except Problem as problem:
            return [self._not_configured("CONFIGURE_KEYTERM_LIMIT_EXCEEDED", problem.message)]
        self._starts.append(terms)
        return [replace(self._asked.start, vocabulary=terms)]

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
        model = model_id(self._model)
        yield _send(
            type="Metadata",
            transaction_key="deprecated",
            request_id=self._id,
            sha256=self._received.hexdigest(),
            created=self._created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            duration=_ms(event.duration),
            channels=1,
            models=[model],
            model_info={model: model_info(self._model)},
        )
        yield Close() if self._ends else Close(1001, "the server is ending")

    def _started(self) -> Iterator[Action]:
        self._is_open = True
        terms = self._starts.popleft() if self._starts else None
        if terms is not None:
            yield _send(type="ConfigureSuccess", request_id=self._id, keyterms=list(terms))

    def _failed(self, event: Failed) -> Iterator[Action]:
        problem, terms = event.problem, None
        if isinstance(event.command, Start) and self._starts:
            terms = self._starts.popleft()
        if terms is not None:
            yield self._not_configured("CONFIGURE_KEYTERMS_NOT_SUPPORTED", problem.message)
            return
        if event.is_final:
            yield from self._final()  # the words until here
        if problem.code == "idle_timeout":
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
        found = alternative(self._words)
        if not is_final:
            found["transcript"] = (found["transcript"] + self._tentative).strip()
            found["tentative"] = self._tentative
        return _send(
            may_skip,
            type="Results",
            channel_index=[0, 1],
            duration=_ms(end - self._start),
            start=_ms(self._start),
            is_final=is_final,
            speech_final=speech_final,
            from_finalize=from_finalize,
            channel={"alternatives": [found]},
            metadata={
                "request_id": self._id,
                "model_info": model_info(self._model),
                "model_uuid": model_id(self._model),
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


def alternative(words: Sequence[Word]) -> dict[str, Any]:
    """Words as a transcript in Deepgram's form."""
    found = [*_words(words)]
    return {
        "transcript": join(words),
        "confidence": _mean([word["confidence"] for word in found]),
        "words": found,
    }


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


def model_id(name: str) -> str:
    """A UUID of a model: the same for the same name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"voxfast:{name}"))


def model_info(name: str) -> dict[str, str]:
    """What results say of a model."""
    return {"name": name, "version": version(), "arch": "voxfast"}

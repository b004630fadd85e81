"""OpenAI's realtime interface, as far as it transcribes: the present one and the beta.

The two differ in the names and the nesting of a session's options (:mod:`.openai_session`), and in
the name of the event that announces an item. An item is what was said between two commits, which
the client asks for, or voice detection, at the end of a turn.

Differences to the service: text comes while an item is spoken, before it is committed, with voice
detection, too. Items have ``words`` with times and ``confidence`` beside their ``transcript``.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from voxfast.serve import frames
from voxfast.serve.dialect import (
    Action,
    Audio,
    Clear,
    Cleared,
    Commit,
    Committed,
    Event,
    Failed,
    Finished,
    Handshake,
    Problem,
    Send,
    Service,
    Start,
    Started,
    new_id,
)
from voxfast.serve.forms import logprobs, usage, word_object
from voxfast.serve.openai_session import SessionOptions, default_options, read_beta, read_session
from voxfast.serve.pieces import Pieces
from voxfast.timed import Word
from voxfast.vad import SpeechEnded, SpeechStarted

__all__ = ["OpenAIRealtime"]

ITEM = "conversation.item"
TRANSCRIPTION = f"{ITEM}.input_audio_transcription"


class OpenAIRealtime:
    """The dialect."""

    def __init__(self, handshake: Handshake, service: Service) -> None:
        self._service = service
        self._id = new_id("sess")
        self._is_beta = "realtime=v1" in handshake.headers.get("openai-beta", "")
        self._options = default_options(service)
        self._acknowledged = self._options
        self._updates: deque[tuple[SessionOptions, bool]] = deque()  # see _start
        self._items = _Items()
        self._has_started = self._has_opened = self._has_audio = False
        self._begin = 0.0  # second at which the open item begins, for its usage

    # -- Client

    def open(self) -> Iterable[Action]:
        """Greet."""
        yield self._session(
            "session.created" if not self._is_beta else "transcription_session.created"
        )

    def receive(self, frame: str | bytes) -> Iterable[Action]:
        """A client's event."""
        event: dict[str, Any] = {}
        try:
            event = frames.read(frame)
            yield from [*self._receive(event)]
        except Problem as problem:
            yield _error(problem, event)

    def _receive(self, event: Mapping[str, Any]) -> Iterator[Action]:
        match event.get("type"):
            case "session.update":
                self._is_beta = False
                yield self._start(read_session(event, self._options, self._service))
            case "transcription_session.update":
                self._is_beta = True
                yield self._start(read_beta(event, self._options, self._service))
            case "input_audio_buffer.append":
                data = frames.audio(event)
                if not self._has_started:
                    yield self._start(self._options, is_asked=False)
                self._has_audio = self._has_audio or bool(data)
                yield Audio(data)
            case "input_audio_buffer.commit":
                if not self._has_audio:
                    raise Problem(
                        "there is no audio to commit; append some first",
                        "input_audio_buffer_commit_empty",
                    )
                self._has_audio = False
                yield self._committed(*self._items.commit())
                yield Commit()
            case "input_audio_buffer.clear":
                self._has_audio = False
                yield Clear()
            case str() as kind:
                raise Problem(
                    f"{kind!r:.60} is no event of a transcription session",
                    "unknown_event",
                    param="type",
                )
            case _:
                raise Problem("an event must have a type", "missing_type", param="type")

    def _start(self, options: SessionOptions, *, is_asked: bool = True) -> Action:
        """Open the session, or change it; ``is_asked``: the client waits for an answer."""
        self._options = options
        self._has_started = True
        self._updates.append((options, is_asked))
        return options.start(self._service)

    # -- Session

    def event(self, event: Event) -> Iterable[Action]:
        """An event of the session."""
        match event:
            case Started():
                self._acknowledged, is_asked = self._updates.popleft()
                self._has_opened = True
                if is_asked:
                    kind = "transcription_session.updated" if self._is_beta else "session.updated"
                    yield self._session(kind)
            case SpeechStarted(time):
                if self._items.has_words and not self._items.is_committed:
                    yield from self._end_turn(time)
                item = self._items.current
                milliseconds = round(1000 * time)
                yield _send(
                    "input_audio_buffer.speech_started", audio_start_ms=milliseconds, item_id=item
                )
            case Word():
                yield from self._word(event)
            case SpeechEnded(time):
                milliseconds, item = round(1000 * time), self._items.current
                yield _send(
                    "input_audio_buffer.speech_stopped", audio_end_ms=milliseconds, item_id=item
                )
                if (
                    not self._items.is_committed
                ):  # else the item ends with what the client committed
                    yield from self._end_turn(time)
            case Committed(time):
                yield from self._complete(time)
            case Cleared():
                self._items.clear()
                yield _send("input_audio_buffer.cleared")
            case Finished(duration):
                if self._items.has_words and not self._items.is_committed:
                    yield from self._end_turn(duration)
            case Failed(problem, _, Start()):
                self._updates.popleft()
                self._options = self._updates[-1][0] if self._updates else self._acknowledged
                self._has_started = self._has_opened or bool(self._updates)
                yield _error(problem, {})
            case Failed(problem):
                yield _error(problem, {})

    def _word(self, word: Word) -> Iterator[Action]:
        if not self._items.has_words:
            yield from self._announce("added", "created")
        delta = self._items.pieces.add(word)
        fields = {"item_id": self._items.current, "content_index": 0, "delta": delta}
        if self._options.logprobs:
            fields["logprobs"] = logprobs([word])
        yield _send(f"{TRANSCRIPTION}.delta", **fields)

    def _end_turn(self, time: float) -> Iterator[Action]:
        """Voice detection commits."""
        self._has_audio = False
        yield self._committed(*self._items.commit())
        yield from self._complete(time)

    def _complete(self, time: float) -> Iterator[Action]:
        """The oldest item that is committed has all of its words."""
        words = self._items.pieces.words
        if not words:
            yield from self._announce("added", "created")
        yield from self._announce("done", None)
        fields: dict[str, Any] = {
            "item_id": self._items.current,
            "content_index": 0,
            "transcript": self._items.pieces.text,
            "usage": usage(max(0.0, time - self._begin)),
            "words": [word_object(word) for word in words],
        }
        if self._options.logprobs:
            fields["logprobs"] = logprobs(words)
        self._begin = time
        self._items.complete()
        yield _send(f"{TRANSCRIPTION}.completed", **fields)

    def _announce(self, name: str, beta_name: str | None) -> Iterator[Action]:
        """Tell of the item's existence."""
        chosen = beta_name if self._is_beta else name
        if chosen is not None:
            item = {
                "id": self._items.current,
                "type": "message",
                "object": "realtime.item",
                "status": "completed" if name == "done" else "in_progress",
                "role": "user",
                "content": [{"type": "input_audio", "transcript": None}],
            }
            yield _send(f"{ITEM}.{chosen}", previous_item_id=self._items.previous, item=item)

    def _committed(self, item: str, previous: str | None) -> Action:
        return _send("input_audio_buffer.committed", item_id=item, previous_item_id=previous)

    def _session(self, kind: str) -> Action:
        form = self._acknowledged.to_beta if self._is_beta else self._acknowledged.to_session
        # vLLM's clients read id and created beside the session.
        fields = {"id": self._id, "created": self._service.created}
        return _send(kind, **fields, session={"id": self._id, **form()})


class _Items:
    """Names of items: of those committed whose words are not all there, and of the open one.

    A commit is answered at once, but the words before it may still be on their way: they belong
    to the oldest item that is not complete.
    """

    def __init__(self) -> None:
        self._committed: deque[str] = deque()
        self._open: str | None = None
        self._last_committed: str | None = None
        self._last_complete: str | None = None
        self.pieces = Pieces()  # of the current item

    @property
    def current(self) -> str:
        """The item that words belong to now."""
        if self._committed:
            return self._committed[0]
        if self._open is None:
            self._open = new_id("item")
        return self._open

    @property
    def previous(self) -> str | None:
        """The item before the current one."""
        return self._last_complete

    @property
    def has_words(self) -> bool:
        """Whether the current item has some."""
        return bool(self.pieces.words)

    @property
    def is_committed(self) -> bool:
        """Whether the current item is."""
        return bool(self._committed)

    def commit(self) -> tuple[str, str | None]:
        """Commit the open item; its name, and that of the one committed before."""
        name, self._open = self._open or new_id("item"), None
        before, self._last_committed = self._last_committed, name
        self._committed.append(name)
        return name, before

    def complete(self) -> None:
        """The current item has all of its words."""
        self._last_complete = self._committed.popleft()
        self.pieces = Pieces()

    def clear(self) -> None:
        """Forget the open item."""
        if not self._committed:
            self._open, self.pieces = None, Pieces()


def _send(kind: str, **fields: Any) -> Send:
    return Send(frames.write({"type": kind, "event_id": new_id("event"), **fields}))


def _error(problem: Problem, cause: Mapping[str, Any]) -> Send:
    """An error; the session stays open unless the bridge closes it."""
    given = cause.get("event_id")
    return _send(
        "error",
        error={
            "type": problem.kind,
            "code": problem.code,
            "message": problem.message,
            "param": problem.param,
            "event_id": given if isinstance(given, str) else None,
        },
    )

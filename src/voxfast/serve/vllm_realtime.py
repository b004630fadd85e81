"""vLLM's realtime interface: flat events, PCM of 16 bits at 16 kHz, one text per commit.

Differences to vLLM: the first commit, which starts its generation, may be left out; the audio
before it is heard as well. ``transcription.done`` has ``words`` with times and ``confidence``.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from voxfast.serve import frames
from voxfast.serve.dialect import (
    Action,
    Audio,
    Event,
    Failed,
    Finish,
    Finished,
    Handshake,
    Problem,
    Send,
    Service,
    Start,
    new_id,
)
from voxfast.serve.forms import usage, word_object
from voxfast.serve.pieces import Pieces
from voxfast.timed import Word

__all__ = ["VllmRealtime"]


class VllmRealtime:
    """The dialect."""

    def __init__(self, handshake: Handshake, service: Service) -> None:
        self._service = service
        self._options: Start | None = None  # once the model is named
        self._is_open = False
        self._pieces = Pieces()

    # -- Client

    def open(self) -> Iterable[Action]:
        """Greet."""
        yield _send("session.created", id=new_id("sess"), created=self._service.created)

    def receive(self, frame: str | bytes) -> Iterable[Action]:
        """A client's event."""
        try:
            yield from [*self._receive(frames.read(frame))]
        except Problem as problem:
            yield _error(problem)

    def _receive(self, event: Mapping[str, Any]) -> Iterator[Action]:
        match event.get("type"):
            case "session.update":
                self._service.check_model(frames.text(event.get("model"), "model"))
                self._options = Start(
                    language=frames.text(event.get("language"), "language"),
                    prompt=frames.text(event.get("prompt"), "prompt"),
                )
                if self._is_open:
                    yield self._options
            case "input_audio_buffer.append":
                yield from self._begin()
                yield Audio(frames.audio(event))
            case "input_audio_buffer.commit":
                yield from self._begin()
                if frames.boolean(event.get("final"), "final"):
                    self._is_open = False
                    yield Finish()
            case str() as kind:
                raise Problem(f"{kind!r:.60} is no event of this protocol", "unknown_event")
            case _:
                raise Problem("an event must have a type", "unknown_event")

    def _begin(self) -> Iterator[Action]:
        if self._options is None:
            raise Problem("name a model first, in a session.update", "model_not_validated")
        if not self._is_open:
            self._is_open = True
            yield self._options

    # -- Session

    def event(self, event: Event) -> Iterable[Action]:
        """An event of the session."""
        match event:
            case Word():
                yield _send("transcription.delta", delta=self._pieces.add(event))
            case Finished(duration):
                yield _send(
                    "transcription.done",
                    text=self._pieces.text,
                    usage=usage(duration),
                    words=[word_object(word) for word in self._pieces.words],
                )
                self._pieces = Pieces()
            case Failed(problem, _, command):
                if isinstance(command, Start):
                    self._options, self._is_open = None, False
                yield _error(problem)


def _send(kind: str, **fields: Any) -> Send:
    return Send(frames.write({"type": kind, **fields}))


def _error(problem: Problem) -> Send:
    return _send("error", error=problem.message, code=problem.code)

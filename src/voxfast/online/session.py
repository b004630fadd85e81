"""A live stream's two faces: for apps, and for WhisperLiveKit. One implementation."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from voxfast.audio import check_samples
from voxfast.errors import InvalidOptionError, SessionClosedError, VoxfastError
from voxfast.online.owner import OwnerThread
from voxfast.timed import Word

__all__ = ["OnlineProcessor", "Session", "Stream", "Tentative"]


class Stream(Protocol):
    """What a session needs of a model's stream; see :class:`voxfast.online.voxtral.VoxtralStream`.

    Everything but ``step`` is cheap and may be called from any thread.
    """

    words: list[Word]

    def push(self, samples: NDArray[np.float32]) -> None: ...
    def skip(self, seconds: float) -> None: ...
    def end_utterance(self) -> None: ...
    def end_stream(self) -> None: ...
    def step(self) -> None: ...
    @property
    def due(self) -> bool: ...
    @property
    def heard(self) -> float: ...
    @property
    def processed(self) -> float: ...
    @property
    def lag(self) -> float: ...
    @property
    def tentative(self) -> str: ...


@dataclass(slots=True)
class Tentative:
    """Text that may still change. A fresh one for every call; the caller may modify it."""

    text: str = ""
    start: float | None = None
    end: float | None = None


class Session:
    """A live stream, for apps. Made by :meth:`voxfast.Model.session`.

    ::

        with model.session() as session:
            for pcm in microphone():
                for word in session.feed(pcm):
                    print(word.text, word.start, word.end)
            for word in session.finish(): ...

    May be driven from changing threads; concurrent calls wait for each other. A call that is
    rejected leaves the session as it was. A call that is interrupted (Ctrl-C) loses nothing:
    words that it would have returned come with the next call.
    """

    def __init__(self, stream: Stream, owner: OwnerThread) -> None:
        self._stream, self._owner = stream, owner
        self._lock = RLock()
        self._state = "open"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def insert(self, samples: Any, sample_rate: int = 16000) -> None:
        """Queue audio without processing it; cheap.

        Args:
            samples: [N] mono audio of any length, float32 in -1 ... 1 or int16.
            sample_rate: its rate; anything but 16000 is rejected.

        Raises:
            InvalidAudioError: on another dtype, shape or rate, NaN, or samples out of range.
            SessionClosedError: after ``finish()`` or ``close()``.
        """
        checked = check_samples(samples, sample_rate)
        with self._lock:
            self._check_open()
            self._stream.push(checked)

    def process(self) -> list[Word]:
        """Process everything that was inserted; return the words that are now certain."""
        with self._lock:
            self._check_open()
            return self._drain()

    def feed(self, samples: Any, sample_rate: int = 16000) -> list[Word]:
        """:meth:`insert`, then :meth:`process`: the words that this audio made certain.

        A committed word is never taken back.
        """
        with self._lock:
            self.insert(samples, sample_rate)
            return self._drain()

    def flush(self) -> list[Word]:
        """Bring out the last words of an utterance; the stream goes on.

        The model is given the silence it needs to write what it has heard. Times of later
        words are not shifted by it.
        """
        with self._lock:
            self._check_open()
            self._stream.end_utterance()
            return self._drain()

    def take(self) -> list[Word]:
        """Words that are certain and that no call has returned yet; processes nothing.

        For those of a call that raised or was interrupted, also after it.
        """
        words = self._stream.words[:]
        del self._stream.words[: len(words)]
        return words

    def skip(self, seconds: float) -> None:
        """Note a pause that is not fed: later words are that much later.

        Raises:
            InvalidOptionError: if it is negative or no finite number.
        """
        if not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
            raise InvalidOptionError(f"a pause must be 0 seconds or longer; got {seconds!r}")
        with self._lock:
            self._check_open()
            self._stream.skip(float(seconds))

    def finish(self) -> list[Word]:
        """End the stream; return its last words. The session takes no audio afterwards."""
        with self._lock:
            self._check_open()
            self._stream.end_stream()
            words = self._drain()
            self._state = "finished"
            return words

    def close(self) -> None:
        """Give up the stream. Does nothing if that was done."""
        with self._lock:
            if self._state == "open":
                self._state = "closed"

    @property
    def tentative(self) -> str:
        """Text that is recognised but may still change."""
        return self._stream.tentative

    @property
    def heard(self) -> float:
        """Seconds of audio inserted so far, pauses included."""
        return self._stream.heard

    @property
    def processed(self) -> float:
        """Seconds of audio that the model has consumed."""
        return self._stream.processed

    @property
    def lag(self) -> float:
        """Seconds of audio that wait to be processed."""
        return self._stream.lag

    def _check_open(self) -> None:
        if self._state != "open":
            raise SessionClosedError(f"the session is {self._state}; open a new one")

    def _drain(self) -> list[Word]:
        """Step until nothing is due. Steps are short, so Ctrl-C is answered between them."""
        try:
            while self._stream.due:
                self._owner.run(self._stream.step)
        except VoxfastError:
            raise
        except Exception:
            self._state = "broken by an earlier error"
            raise
        return self.take()


class OnlineProcessor:
    """The interface by which WhisperLiveKit drives a backend; a thin cover of a session.

    Second items of results, and all times, are seconds of the stream, pauses included.
    """

    SAMPLING_RATE = 16000

    def __init__(self, asr: Any, new_session: Callable[[], Session]) -> None:
        self.asr = asr
        self._new_session = new_session
        self._session = new_session()

    def insert_audio_chunk(self, audio: Any, audio_stream_end_time: float | None = None) -> None:
        """Queue float32 or int16 mono audio of any length; cheap, from any thread."""
        self._session.insert(audio)

    def process_iter(self, is_last: bool = False) -> tuple[list[Word], float]:
        """Process what was inserted: (words that are now certain, processed up to)."""
        words = self._session.finish() if is_last else self._session.process()
        return words, self._session.processed

    def get_buffer(self) -> Tentative:
        """What is recognised but not certain; the caller may modify it."""
        return Tentative(self._session.tentative)

    def start_silence(self) -> tuple[list[Word], float]:
        """Speech paused: bring out everything said so far."""
        return self._session.flush(), self._session.processed

    def end_silence(self, duration: float | None, offset: float | None = 0.0) -> None:
        """A pause of ``duration`` seconds, none of which was inserted, is over."""
        self._session.skip(duration or 0.0)

    def new_speaker(self, change: Any) -> tuple[list[Word], float]:
        """Somebody else speaks. The model needs no reset for it, so no word is lost."""
        return self.process_iter()

    def warmup(self, audio: Any, init_prompt: str = "") -> None:
        """Run a session of its own over some audio, so that the first real chunk is fast."""
        with self._new_session() as session:
            session.feed(audio)
            session.finish()

    def finish(self) -> tuple[list[Word], float]:
        """The stream is over: its last words."""
        return self._session.finish(), self._session.processed

"""The two interfaces of a live stream: for apps, and for WhisperLiveKit."""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, RLock
from types import TracebackType
from typing import Any, Self

from voxfast.audio import SAMPLE_RATE, check_samples
from voxfast.errors import InvalidOptionError, SessionClosedError, VoxfastError
from voxfast.online.forks import check_process, is_forked
from voxfast.online.owner import OwnerThread
from voxfast.online.stream import Stream
from voxfast.timed import Word

__all__ = ["OnlineProcessor", "Session", "Tentative"]

log = logging.getLogger(__name__)

# The owner thread's time slice per session: short, so that Ctrl-C and other sessions do not wait;
# long compared with a hand-over between threads.
SLICE_SECONDS = 0.05
BEHIND_SECONDS, CAUGHT_UP_SECONDS = 2.0, 0.5


@dataclass(slots=True)
class Tentative:
    """Text that may still change. Every call returns a new object; callers may modify it."""

    text: str = ""
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A queued call of a stream's method, with the audio it brings."""

    apply: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    samples: int = 0
    pause: float = 0.0  # seconds


class _OverloadLog:
    """Warns once when audio arrives faster than it is processed, and again when it is over."""

    def __init__(self) -> None:
        self._begin = self._busy = 0.0
        self._is_behind = False

    def begin(self, waiting: float) -> None:
        """Processing begins with this backlog, in seconds.

        A large chunk alone is no overload. A backlog as long as the duration of the last call
        is.
        """
        if waiting >= BEHIND_SECONDS and self._busy >= 0.9 * waiting and not self._is_behind:
            self._is_behind = True
            log.warning(
                "%.1f s behind: audio comes faster than it is processed; nothing is dropped",
                waiting,
            )
        elif waiting < CAUGHT_UP_SECONDS and self._is_behind:
            self._is_behind = False
            log.warning("caught up: %.1f s behind", waiting)
        self._begin = time.monotonic()

    def end(self) -> None:
        """Processing ended."""
        self._busy = time.monotonic() - self._begin


class Session:
    """A live stream, for apps. Made by :meth:`voxfast.Model.session`.

    ::

        with model.session() as session:
            for pcm in microphone():
                for word in session.feed(pcm):
                    print(word.text, word.start, word.end)
            for word in session.finish(): ...

    May be driven from changing threads. Calls that process wait for each other, other calls do
    not wait. A rejected call leaves the session unchanged. An interrupted call (Ctrl-C) loses
    nothing: the next call returns its words, and ``heard`` tells whether its audio was queued.
    Audio that arrives while a call processes is left for the next call; ``lag`` is its
    duration, and a warning is logged when it grows. In a forked child, methods raise
    ForkedProcessError.
    """

    def __init__(self, stream: Stream, owner: OwnerThread) -> None:
        self._stream, self._owner = stream, owner
        # Every change of the stream is queued with one append and applied on the owner thread,
        # which receives no signals: an interrupt finds it complete or not begun. The stream
        # itself has no lock.
        self._arrivals: deque[_Arrival] = deque()
        self._arriving = Lock()
        self._processing = RLock()
        self._state = "open"
        self._overload = _OverloadLog()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def insert(self, samples: Any, sample_rate: int = SAMPLE_RATE) -> None:
        """Queue audio without processing it; cheap, also while another thread processes.

        Args:
            samples: [N] mono audio of any length, float32 in -1 ... 1 or int16; copied.
            sample_rate: in Hz; only 16000 is accepted.

        Raises:
            InvalidAudioError: for another dtype, shape or rate, NaN, or samples out of range.
            SessionClosedError: after ``finish()`` or ``close()``.
        """
        checked = check_samples(samples, sample_rate)
        if checked is samples or checked.base is not None:
            checked = checked.copy()  # the caller may reuse its buffer
        self._queue(_Arrival(self._stream.push, (checked,), len(checked)))

    def process(self) -> list[Word]:
        """Process all inserted audio; return newly committed words."""
        check_process()
        self._check_open()
        self._drain()
        return self.take()

    def feed(self, samples: Any, sample_rate: int = SAMPLE_RATE) -> list[Word]:
        """:meth:`insert`, then :meth:`process`: return newly committed words.

        A committed word is never taken back.
        """
        self.insert(samples, sample_rate)
        return self.process()

    def flush(self) -> list[Word]:
        """End an utterance and return its last words; the stream goes on.

        The audio is padded with silence, so that the model writes its pending words. The padding
        does not shift the times of later words.
        """
        self._queue(_Arrival(self._stream.end_utterance))
        self._drain()
        return self.take()

    def take(self) -> list[Word]:
        """Return committed words that no call has returned yet; processes nothing.

        Those may be left by a call that raised or was interrupted.
        """
        words = self._stream.words
        count = len(words)
        # Python handles signals and switches threads at calls. There is none from here on: words
        # are either still in the list or being returned.
        taken = words[:count]
        del words[:count]
        return taken

    def skip(self, seconds: float) -> None:
        """Note a pause that is not fed: it delays the times of later words.

        Raises:
            InvalidOptionError: if it is negative or not finite.
        """
        if not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
            raise InvalidOptionError(f"a pause must be 0 seconds or longer; got {seconds!r}")
        self._queue(_Arrival(self._stream.skip, (float(seconds),), pause=float(seconds)))

    def finish(self) -> list[Word]:
        """End the stream and return its last words. No audio is accepted afterwards.

        If the call is interrupted, call it again for the words.
        """
        check_process()
        with self._arriving:
            if self._state != "ending":
                self._check_open()
            self._state = "ending"
            self._arrivals.append(_Arrival(self._stream.end_stream))
        self._drain()
        words = self.take()
        self._state = "finished"
        return words

    def close(self) -> None:
        """Abandon the stream. Idempotent; does nothing in a forked child."""
        if is_forked():
            return
        with self._arriving:
            if self._state in ("open", "ending"):
                self._state = "closed"

    @property
    def tentative(self) -> str:
        """Text that is recognised but may still change."""
        return self._stream.tentative

    @property
    def language(self) -> str | None:
        """Name of the requested or last detected language, if there is one."""
        return self._stream.language

    @property
    def heard(self) -> float:
        """Seconds of audio inserted so far, pauses included."""
        with self._arriving:
            waiting = sum(a.samples / SAMPLE_RATE + a.pause for a in self._arrivals)
            return self._stream.heard + waiting

    @property
    def processed(self) -> float:
        """Seconds of audio that the model has consumed."""
        return self._stream.processed

    @property
    def lag(self) -> float:
        """Seconds of audio that are not processed yet."""
        with self._arriving:
            return self._stream.lag + sum(a.samples for a in self._arrivals) / SAMPLE_RATE

    # -- inside

    def _check_open(self) -> None:
        if self._state == "ending":
            raise SessionClosedError("the session is ending; call finish() for its last words")
        if self._state != "open":
            raise SessionClosedError(f"the session is {self._state}; open a new one")

    def _queue(self, arrival: _Arrival) -> None:
        check_process()  # before a lock that another thread may have held at the fork
        with self._arriving:
            self._check_open()
            self._arrivals.append(arrival)

    def _drain(self) -> None:
        """Process the arrivals so far; later ones are left for the next call.

        Ctrl-C is handled between slices.
        """
        with self._processing:
            self._overload.begin(self.lag)
            count = len(self._arrivals)
            try:
                while self._owner.run(self._slice, count):
                    count = 0
            except VoxfastError:
                raise
            except Exception:
                self._state = "broken by an earlier error"
                raise
            self._overload.end()

    # -- owner thread

    def _slice(self, count: int) -> bool:
        """Apply the first arrivals, then run steps; returns whether more are due."""
        with self._arriving:
            # Fewer may be left: the slice of an interrupted call may have applied some.
            for _ in range(min(count, len(self._arrivals))):
                arrival = self._arrivals[0]
                arrival.apply(*arrival.arguments)
                self._arrivals.popleft()
        end = time.monotonic() + SLICE_SECONDS
        while self._stream.due:
            self._stream.step()
            if time.monotonic() >= end:
                return self._stream.due
        return False


class OnlineProcessor:
    """A session with the interface that WhisperLiveKit expects of a backend.

    Methods return (words, seconds processed). All times are seconds of the stream, pauses
    included.
    """

    SAMPLING_RATE = SAMPLE_RATE

    def __init__(self, asr: Any, new_session: Callable[[], Session]) -> None:
        self.asr = asr
        self._new_session = new_session
        self._session = new_session()

    def insert_audio_chunk(self, audio: Any, audio_stream_end_time: float | None = None) -> None:
        """Queue float32 or int16 mono audio of any length; cheap, from any thread."""
        self._session.insert(audio)

    def process_iter(self, is_last: bool = False) -> tuple[list[Word], float]:
        """Process all inserted audio: (newly committed words, seconds processed).

        Args:
            is_last: no more audio follows, so all words are committed. ``finish()`` may still be
                called.
        """
        words = self._session.flush() if is_last else self._session.process()
        return words, self._session.processed

    def get_buffer(self) -> Tentative:
        """The tentative text; the caller may modify the object."""
        return Tentative(self._session.tentative)

    def start_silence(self) -> tuple[list[Word], float]:
        """Speech pauses: commit all pending words."""
        return self._session.flush(), self._session.processed

    def end_silence(self, duration: float | None, offset: float | None = 0.0) -> None:
        """A pause of ``duration`` seconds, which was not inserted, is over."""
        self._session.skip(duration or 0.0)

    def new_speaker(self, change: Any) -> tuple[list[Word], float]:
        """The speaker changes. The model needs no reset, so no word is lost."""
        return self.process_iter()

    def warmup(self, audio: Any, init_prompt: str = "") -> None:
        """Run a separate session over some audio, so that the first real chunk is fast."""
        with self._new_session() as session:
            session.feed(audio)
            session.finish()

    def finish(self) -> tuple[list[Word], float]:
        """End the stream: its last words."""
        return self._session.finish(), self._session.processed

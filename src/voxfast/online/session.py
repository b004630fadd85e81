"""The two interfaces of a live stream: for apps, and for WhisperLiveKit."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Real
from threading import Lock, RLock
from types import TracebackType
from typing import Any, Self, TypeVar

from voxfast.audio import SAMPLE_RATE, check_samples
from voxfast.errors import InvalidOptionError, SessionClosedError, VoxfastError
from voxfast.online.asynchronous import AsyncSession
from voxfast.online.forks import check_process, is_forked
from voxfast.online.listener import PIECE, Listener
from voxfast.online.owner import OwnerThread
from voxfast.online.peers import Peers
from voxfast.online.stream import Stream
from voxfast.online.turns import Event, Turns
from voxfast.timed import Word

__all__ = ["OnlineProcessor", "Session", "Tentative"]

log = logging.getLogger(__name__)
T = TypeVar("T")

# A session gives the owner thread back after this time, or after the step that exceeds it. Short
# enough for Ctrl-C and other sessions; long enough that switching threads costs little.
SLICE_SECONDS = 0.05
# Of another session's step, in which this one gets ready to take part.
PREPARING_SECONDS = 0.002
# A warning is logged at the first backlog, and another when it has fallen below the second.
BEHIND_SECONDS, CAUGHT_UP_SECONDS = 2.0, 0.5


@dataclass(slots=True)
class Tentative:
    """Text that may still change, in the form that WhisperLiveKit expects; it has no times."""

    text: str = ""
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class _QueuedCall:
    """A queued call of a stream's method, and the audio (samples) or pause (seconds) it adds."""

    apply: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    samples: int = 0
    pause: float = 0.0


class _OverloadLog:
    """Logs a warning when processing falls behind, and another when it has caught up."""

    def __init__(self) -> None:
        self._begin = self._busy = 0.0
        self._is_behind = False

    def begin(self, waiting: float) -> None:
        """Processing begins with this backlog, in seconds.

        It is behind if the backlog built up while the last call ran: if that call took at least
        90 % as long. One large chunk is no overload.
        """
        if waiting >= BEHIND_SECONDS and self._busy >= 0.9 * waiting and not self._is_behind:
            self._is_behind = True
            log.warning(
                "%.1f s behind: audio comes faster than it is processed; nothing is dropped",
                waiting,
            )
        elif self._is_behind and (waiting < CAUGHT_UP_SECONDS or self._busy < 0.5 * waiting):
            self._is_behind = False
            log.warning("caught up: %.1f s behind", waiting)
        self._begin = time.monotonic()

    def end(self) -> None:
        """Processing ended."""
        self._busy = time.monotonic() - self._begin


def _no_vocabulary(entries: object) -> Any:
    raise InvalidOptionError("this model takes no vocabulary")


class Session:
    """A live stream, for apps. Made by :meth:`voxfast.Model.session`.

    ::

        with model.session() as session:
            for pcm in microphone():
                for word in session.feed(pcm):
                    print(word.text, word.start, word.end)
            for word in session.finish(): ...

    Thread-safe: :meth:`process`, :meth:`feed`, :meth:`flush` and :meth:`finish` run one at a
    time; all other calls return without waiting for them. A rejected call leaves the session
    unchanged. A call that is interrupted by Ctrl-C loses no words, the next call returns them;
    compare ``heard`` before and after to see whether its audio was queued. Audio inserted while a
    call runs is processed by the next call. ``lag`` is the unprocessed audio in seconds; a
    warning is logged when it grows. In a forked child, methods raise ForkedProcessError. On an
    event loop, ``async with`` gives an :class:`.AsyncSession`.
    """

    def __init__(
        self,
        stream: Stream,
        owner: OwnerThread,
        peers: Peers,
        listener: Listener | None = None,
        compile_vocabulary: Callable[[object], Any] = _no_vocabulary,
    ) -> None:
        self._stream, self._owner, self._listener = stream, owner, listener
        self._peers = peers
        self._compile_vocabulary = compile_vocabulary
        self._vocabulary: tuple[tuple[str, float], ...] = ()
        self._input = stream if listener is None else listener
        self._turns = Turns()
        self._events: list[Event] = []  # that no call has returned yet
        # Only the owner thread calls methods that change the stream, so the stream needs no lock;
        # callers append to a queue. Signal handlers run on the main thread, so Ctrl-C cannot
        # interrupt a change halfway. Exception: take() and events() remove words and events on
        # the caller's thread.
        self._calls: deque[_QueuedCall] = deque()
        self._applied = 0  # calls so far
        self._settled = 0  # of them, after which no step was due any more
        self._limit: int | None = None  # number of the last one that the running call processes
        self._calls_lock = Lock()
        self._process_lock = RLock()
        self._state = "open"
        self._overload = _OverloadLog()
        peers.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> AsyncSession:
        return AsyncSession(self, self._owner)

    async def __aexit__(self, *_: object) -> None:
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
        pieces = [checked]
        if self._listener is not None:
            pieces = [checked[i : i + PIECE] for i in range(0, len(checked), PIECE)]
        self._enqueue(*(_QueuedCall(self._input.push, (piece,), len(piece)) for piece in pieces))

    def process(self) -> list[Word]:
        """Process all inserted audio; return newly committed words."""
        self._check_advance()
        self._drain()
        return self.take()

    def feed(self, samples: Any, sample_rate: int = SAMPLE_RATE) -> list[Word]:
        """:meth:`insert`, then :meth:`process`: return newly committed words.

        A committed word is never taken back.
        """
        self.insert(samples, sample_rate)
        return self.process()

    def events(self, *, flush: bool = False, finish: bool = False) -> list[Event]:
        """:meth:`process`, with what is known beside words, in the order of the stream.

        * :class:`~voxfast.vad.SpeechStarted` and :class:`~voxfast.vad.SpeechEnded`, if the
          session has ``endpoint_ms`` or ``skip_silence``. After the end of speech come the last
          words of the turn at once: before it in this list, that is.
        * :class:`~voxfast.Word`: committed.
        * :class:`~voxfast.Segment`, when it is complete: behind its last word.

        Words that :meth:`feed`, :meth:`process`, :meth:`flush` or :meth:`finish` has returned are
        in none of them: a session is read in one way or the other. A call that is interrupted by
        Ctrl-C loses nothing: the next one returns it.

        Args:
            flush: end the utterance, as :meth:`flush` does, and the segment.
            finish: end the stream, as :meth:`finish` does.
        """
        self._queue_before_events(flush, finish)
        # Gathered on the owner thread, where no interrupt loses what is half done.
        self._drain(partial(self._gather_events, flush or finish))
        return self._take_events(finish)

    def flush(self) -> list[Word]:
        """End an utterance and return its last words; the session stays open.

        Silence is appended, so that the model emits its pending words. It does not count towards
        the times of later words.
        """
        self._queue_flush()
        self._drain()
        return self.take()

    def take(self) -> list[Word]:
        """Return committed words that no call has returned yet; processes nothing.

        Use it after a call that raised or was interrupted.
        """
        return _taken(self._stream.words)

    def skip(self, seconds: float) -> None:
        """Skip a pause whose audio is not inserted: later words are that many seconds later.

        Raises:
            InvalidOptionError: if it is not a number, negative or not finite.
            SessionClosedError: after ``finish()`` or ``close()``.
        """
        if not _is_number(seconds) or not 0 <= seconds < float("inf"):
            raise InvalidOptionError(f"a pause must be a number of seconds from 0; got {seconds!r}")
        self._enqueue(_QueuedCall(self._input.skip, (float(seconds),), pause=float(seconds)))

    def end(self) -> None:
        """Queue the end of the stream without processing it; cheap. :meth:`finish` does the rest.

        For several sessions on one thread: end all of them, and the first :meth:`finish` takes
        the others along.

        Raises:
            SessionClosedError: after ``finish()`` or ``close()``.
        """
        check_process()
        with self._calls_lock:
            if self._state != "ending":
                self._check_open()
            self._state = "ending"
            # Again if it was called before: an interrupt may have come before this line.
            self._calls.append(_QueuedCall(self._input.end_stream))

    def finish(self) -> list[Word]:
        """End the stream and return its last words. No audio is accepted afterwards.

        If the call is interrupted, call it again for the words.
        """
        self.end()
        self._drain()
        return self._take_last()

    @property
    def vocabulary(self) -> tuple[tuple[str, float], ...]:
        """Phrases that are going to be said, with their weights; see ``Model.session``.

        May be set at any time, as often as needed, and then holds for audio that is inserted
        afterwards; words that were spoken less than the delay before may be written by it, too.
        With ``skip_silence`` the same is true of what the detector still holds back.

        Raises:
            InvalidOptionError: for what is no vocabulary; the former one stays.
            SessionClosedError: after ``finish()`` or ``close()``.
        """
        return self._vocabulary

    @vocabulary.setter
    def vocabulary(self, entries: Iterable[str | tuple[str, float]]) -> None:
        compiled = self._compile_vocabulary(entries)
        self._enqueue(_QueuedCall(self._input.use_vocabulary, (compiled,)))
        self._vocabulary = () if compiled is None else compiled.phrases

    def close(self) -> None:
        """Reject further audio; a call that runs completes. Does nothing in a forked child."""
        if is_forked():
            return
        with self._calls_lock:
            if self._state in ("open", "ending"):
                self._state = "closed"

    @property
    def tentative(self) -> str:
        """Text that is recognised but may still change."""
        return self._stream.tentative

    @property
    def language(self) -> str | None:
        """The requested or last detected language, such as "English"; None if unknown."""
        return self._stream.language

    @property
    def heard(self) -> float:
        """Stream time received so far, in seconds: inserted audio and skipped pauses."""
        check_process()
        with self._calls_lock:
            waiting = sum(call.samples / SAMPLE_RATE + call.pause for call in self._calls)
            unheard = 0.0 if self._listener is None else self._listener.unheard
            return self._stream.heard + unheard + waiting

    @property
    def processed(self) -> float:
        """Seconds of audio that the model has consumed."""
        return self._stream.processed

    @property
    def skipped(self) -> float:
        """Seconds of inserted audio that ``skip_silence`` has kept from the model so far."""
        return 0.0 if self._listener is None else self._listener.skipped

    @property
    def lag(self) -> float:
        """Unprocessed audio, in seconds."""
        check_process()
        with self._calls_lock:
            return self._stream.lag + sum(call.samples for call in self._calls) / SAMPLE_RATE

    # -- Internal, on any thread

    def _check_open(self) -> None:
        if self._state == "ending":
            raise SessionClosedError("the session is ending; call finish() for its last words")
        if self._state != "open":
            raise SessionClosedError(f"the session is {self._state}; open a new one")

    def _check_advance(self) -> None:
        check_process()
        self._check_open()

    def _queue_flush(self) -> None:
        self._enqueue(_QueuedCall(self._input.end_utterance))

    def _queue_before_events(self, flush: bool, finish: bool) -> None:
        if finish:
            self.end()
        elif flush:
            self._queue_flush()
        else:
            self._check_advance()

    def _take_last(self) -> list[Word]:
        words = self.take()
        self._state = "finished"
        return words

    def _take_events(self, finish: bool) -> list[Event]:
        events = _taken(self._events)
        if finish:
            self._state = "finished"
        return events

    def _enqueue(self, *calls: _QueuedCall) -> None:
        check_process()  # first: after a fork, a thread that is gone may hold the lock
        with self._calls_lock:
            self._check_open()
            self._calls.extend(calls)

    def _drain(self, then: Callable[[], None] | None = None) -> None:
        """Process what is queued by now; later calls are left for the next time.

        Ctrl-C is handled between slices. ``then`` is called on the owner thread behind the last
        step, before anything else can happen to the stream. Without it, nothing waits for the
        owner thread where steps of other sessions have done all there was to do.
        """
        if then is None and self._is_served():
            return
        with self._process_lock, self._draining() as last:
            while self._owner.run(self._slice, last, then):
                pass

    def _is_served(self) -> bool:
        """Whether a call has nothing to wait for, since all that was queued is done."""
        with self._calls_lock:
            queued = self._applied + len(self._calls)
        is_settled = self._settled == queued and self._stream.error is None
        self._stream.was_awaited |= is_settled
        return is_settled

    @contextmanager
    def _draining(self) -> Iterator[int]:
        """The time in which slices are processed, up to the call of this number."""
        # Of a recording as much waits as makes passes full.
        self._overload.begin(0.0 if self._stream.is_offline else self.lag)
        with self._calls_lock:
            last = self._limit = self._applied + len(self._calls)
        try:
            yield last
        except VoxfastError:
            raise
        except Exception:
            self._state = "broken by an earlier error"
            raise
        finally:
            self._limit = None
            self._overload.end()

    # -- Internal, on the owner thread only

    def _slice(self, last: int, then: Callable[[], None] | None = None) -> bool:
        """Apply queued calls, up to number ``last``, then run steps; :data:`SLICE_SECONDS` of it.

        Only one step while others wait, so that no session waits for another's backlog.

        Returns:
            Whether work remains; else ``then`` was called.
        """
        if self._stream.error is not None:  # in a step that another session asked for
            raise self._stream.error
        end = time.monotonic() + SLICE_SECONDS
        has_stepped = False
        try:
            while (has_applied := self._apply(last)) or self._step():
                has_stepped |= not has_applied
                is_over = self._owner.is_wanted or time.monotonic() >= end
                if is_over and (self._applied < last or self._stream.due):
                    return True
        except Exception as error:
            self._stream.error = error  # also if nobody waits for this slice any more
            raise
        self._note_settled()
        self._stream.was_awaited = True
        if then is not None:
            then()
        if not has_stepped and not self._owner.is_wanted:
            self._peers.settle(self)  # a step would have done it
        return False

    def _note_settled(self) -> None:
        """Note the applied calls as done, if no step is due."""
        if not self._stream.due:
            self._settled = self._applied

    def _gather_events(self, ends: bool) -> None:
        """Put the words and what was heard into the list of events, in order.

        Args:
            ends: whether a segment ends with the last of them.
        """
        heard = [] if self._listener is None else _taken(self._listener.events)
        words = _taken(self._stream.words)
        self._events += self._turns.step(words, heard, self._stream.language, finish=ends)

    def _apply(self, last: int) -> bool:
        """Apply the next queued call, if there is one up to number ``last`` and it may be now."""
        if self._stream.is_busy:
            return False
        with self._calls_lock:
            # A slice of a call that was interrupted, or a peer, may have applied it.
            if self._applied >= last or not self._calls:
                return False
            call = self._calls[0]
            call.apply(*call.arguments)  # raises nothing: arguments were checked before
            self._calls.popleft()
            self._applied += 1
        return True

    def _step(self) -> bool:
        """Run a step, if one is due, and take along the sessions that have one to do, too."""
        if not self._stream.due:
            return False
        peers = self._peers.due(self)
        self._stream.step([peer._stream for peer in peers])
        for peer in peers:
            peer._note_settled()
        return True

    @property
    def _is_live(self) -> bool:
        """Whether steps that other sessions ask for may take this one along."""
        return self._state in ("open", "ending") and self._stream.error is None

    def _prepare(self) -> bool:
        """Get ready to take part in a step of another session; return whether there is one to do.

        Calls that were queued behind a call that runs now are left for the next one. Where words
        depend on how much audio is there, all others are applied, as in a step of its own.
        """
        stream, limit = self._stream, self._limit
        stream.is_awaited = limit is not None
        if stream.is_busy:
            return True
        end = time.monotonic() + PREPARING_SECONDS
        try:
            while stream.chunks_matter or not stream.due:
                if not self._apply(self._applied + 1 if limit is None else limit):
                    break
                if time.monotonic() >= end:
                    return stream.due and not stream.chunks_matter
        except Exception as error:
            stream.error = error
            return False
        return stream.due if stream.is_awaited else stream.may_share


def _taken(items: list[T]) -> list[T]:
    """Remove and return all items of a list to which the owner thread only appends."""
    count = len(items)
    # CPython with its lock (3.11 to 3.13) runs signal handlers and switches threads only at
    # calls and backward jumps. The lines below have neither, so no word is lost or returned
    # twice. Do not add a call here.
    taken = items[:count]
    del items[:count]
    return taken


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


class OnlineProcessor:
    """A session with the interface that WhisperLiveKit expects of a backend.

    Methods return (words, seconds processed). All times are seconds of the stream, pauses
    included. WhisperLiveKit calls them on worker threads, which Ctrl-C does not interrupt;
    arguments without a use here belong to its interface.
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
        """Called when silence starts: commit all pending words."""
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

"""A session for asyncio: the same calls, awaited, without a thread per session."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from voxfast.audio import SAMPLE_RATE
from voxfast.online.owner import OwnerThread
from voxfast.online.turns import Event
from voxfast.timed import Word

if TYPE_CHECKING:
    from voxfast.online.session import Session

__all__ = ["AsyncSession"]

P = ParamSpec("P")
T = TypeVar("T")


class AsyncSession:
    """A live stream on an event loop. Made by ``async with model.session()``.

    ::

        async with model.session() as session:
            async for word in session.words(microphone()):
                print(word.text, word.start, word.end)

    The model computes on its own thread, and the loop goes on meanwhile. Calls of one session
    run one after the other, in their order; sessions take turns of 50 ms. A call that is
    cancelled loses nothing: its audio stays queued, and the next call returns its words.

    Methods do and raise what those of :class:`voxfast.Session` do. Drive a session in one way:
    from one event loop, or by the calls that wait.
    """

    def __init__(self, session: "Session", owner: OwnerThread) -> None:
        self._session, self._owner = session, owner
        self._turn = asyncio.Lock()

    async def words(
        self, chunks: Iterable[Any] | AsyncIterable[Any], sample_rate: int = SAMPLE_RATE
    ) -> AsyncIterator[Word]:
        """All words of a stream of audio, as they are committed; then the session is finished.

        Args:
            chunks: as :meth:`feed` takes them; an async or an ordinary iterable.
            sample_rate: in Hz; only 16000 is accepted.
        """
        async for chunk in _each(chunks):
            self.insert(chunk, sample_rate)
            await self._drain()
            for word in self._committed():
                yield word
        self._session.end()
        await self._drain()
        for word in self._committed():
            yield word
        self._session._take_last()

    async def feed(self, samples: Any, sample_rate: int = SAMPLE_RATE) -> list[Word]:
        """Insert audio, process it, and return newly committed words."""
        self.insert(samples, sample_rate)
        return await self.process()

    def insert(self, samples: Any, sample_rate: int = SAMPLE_RATE) -> None:
        """Queue audio; cheap."""
        self._session.insert(samples, sample_rate)

    def skip(self, seconds: float) -> None:
        """Skip a pause whose audio is not inserted."""
        self._session.skip(seconds)

    async def process(self) -> list[Word]:
        """Process all inserted audio; return newly committed words."""
        self._session._check_advance()
        await self._drain()
        return self._session.take()

    async def events(self, *, flush: bool = False, finish: bool = False) -> list[Event]:
        """:meth:`process`, with turns and segments; see :meth:`voxfast.Session.events`."""
        self._session._queue_before_events(flush, finish)
        await self._drain(partial(self._session._gather_events, flush or finish))
        return self._session._take_events(finish)

    async def flush(self) -> list[Word]:
        """End an utterance and return its last words; the session stays open."""
        self._session._queue_flush()
        await self._drain()
        return self._session.take()

    def end(self) -> None:
        """Queue the end of the stream; cheap. :meth:`finish` processes it."""
        self._session.end()

    async def finish(self) -> list[Word]:
        """End the stream and return its last words. If it is cancelled, call it again."""
        self._session.end()
        await self._drain()
        return self._session._take_last()

    def take(self) -> list[Word]:
        """Words that no call has returned yet; processes nothing."""
        return self._session.take()

    def close(self) -> None:
        """Reject further audio; ``async with`` does it at the end."""
        self._session.close()

    @property
    def tentative(self) -> str:
        """Text that is recognised but may still change."""
        return self._session.tentative

    @property
    def vocabulary(self) -> tuple[tuple[str, float], ...]:
        """Phrases that are going to be said; may be set, see :attr:`voxfast.Session.vocabulary`."""
        return self._session.vocabulary

    @vocabulary.setter
    def vocabulary(self, entries: Iterable[str | tuple[str, float]]) -> None:
        self._session.vocabulary = entries

    @property
    def language(self) -> str | None:
        """The requested or last detected language; None if unknown."""
        return self._session.language

    @property
    def heard(self) -> float:
        """Stream time received so far, in seconds."""
        return self._session.heard

    @property
    def processed(self) -> float:
        """Seconds of audio that the model has consumed."""
        return self._session.processed

    @property
    def lag(self) -> float:
        """Unprocessed audio, in seconds."""
        return self._session.lag

    @property
    def skipped(self) -> float:
        """Seconds that ``skip_silence`` has left out so far."""
        return self._session.skipped

    # -- inside

    def _committed(self) -> Iterator[Word]:
        """Committed words, one by one: whoever leaves the loop finds the others in the session."""
        words = self._session._stream.words
        while words:
            yield words.pop(0)

    async def _drain(self, then: Callable[[], None] | None = None) -> None:
        """Process what is queued by now, and call ``then`` on the owner thread."""
        if then is None and self._session._is_served():
            await asyncio.sleep(0)  # a loop of such calls holds up no other task
            return
        async with self._turn:
            with self._session._draining() as last:
                while await self._run(self._session._slice, last, then):
                    pass

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function on the owner thread; the loop goes on meanwhile.

        A cancelled call runs to its end.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._owner.post(_Settler(loop, future), lambda: function(*args, **kwargs))
        return await future


class _Settler:
    """Takes the owner thread's reply to the event loop that waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]") -> None:
        self._loop, self._future = loop, future

    def put(self, reply: tuple[Any, BaseException | None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._settle, *reply)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self._future.done():  # cancelled
            return
        if error is None:
            self._future.set_result(result)
        else:
            self._future.set_exception(error)


async def _each(chunks: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk

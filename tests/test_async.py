"""Sessions on an event loop: the words of a session that waits, and a loop that goes on."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem

import voxfast
from voxfast.errors import InvalidAudioError, SessionClosedError, VoxfastError


@pytest.fixture(scope="module")
def model() -> Iterator[voxfast.Model]:
    with voxfast.load(dtype=mx.float32) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clips(eval_items: list[EvalItem]) -> list[np.ndarray]:
    return [item.audio for item in eval_items[:6]]


@pytest.fixture(scope="module")
def expected(model: voxfast.Model, clips: list[np.ndarray]) -> list[list[voxfast.Word]]:
    found = []
    for audio in clips:
        with model.session() as session:
            found.append([*session.feed(audio), *session.finish()])
    return found


def chunks(audio: np.ndarray, size: int = 3200) -> Iterator[np.ndarray]:
    return (audio[at : at + size] for at in range(0, len(audio), size))


def test_sessions_side_by_side_write_the_words_of_each_alone(
    model: voxfast.Model, clips: list[np.ndarray], expected: list[list[voxfast.Word]]
) -> None:
    async def transcribe(audio: np.ndarray) -> list[voxfast.Word]:
        async with model.session() as session:
            return [word async for word in session.words(chunks(audio))]

    async def all_of_them() -> list[list[voxfast.Word]]:
        return await asyncio.gather(*map(transcribe, clips))

    before = threading.active_count()
    assert asyncio.run(all_of_them()) == expected
    assert threading.active_count() == before  # the model's own thread, and no other


def test_an_async_source_and_the_single_calls(
    model: voxfast.Model, clips: list[np.ndarray], expected: list[list[voxfast.Word]]
) -> None:
    async def microphone() -> AsyncIterator[np.ndarray]:
        for chunk in chunks(clips[1], 1000):
            await asyncio.sleep(0)
            yield chunk

    async def run() -> None:
        async with model.session() as session:
            assert [word async for word in session.words(microphone())] == expected[1]
            with pytest.raises(SessionClosedError):
                await session.process()
        async with model.session() as session:
            words = []
            for chunk in chunks(clips[1]):
                words += await session.feed(chunk)
            assert session.heard == pytest.approx(len(clips[1]) / 16000)
            assert session.lag < 0.08
            session.end()
            words += await session.finish()
            assert words == expected[1]
        async with model.session() as session:
            await session.feed(clips[1])
            words = session.take() + await session.flush()
            session.skip(5.0)
            assert await session.process() == []
            assert session.heard > 5
        with pytest.raises(SessionClosedError):
            session.insert(clips[1])

    asyncio.run(run())


def test_events_are_those_of_a_session_that_waits(
    model: voxfast.Model, clips: list[np.ndarray]
) -> None:
    audio = np.concatenate([clips[0], np.zeros(16000, np.float32), clips[1]])
    with model.session(endpoint_ms=500) as plain:
        plain.insert(audio)
        expected = plain.events(finish=True)

    async def run() -> list[object]:
        async with model.session(endpoint_ms=500) as session:
            session.insert(audio)
            return [*await session.events(), *await session.events(finish=True)]

    assert asyncio.run(run()) == expected


def test_a_flush_among_events_ends_the_segment(
    model: voxfast.Model, clips: list[np.ndarray]
) -> None:
    with model.session() as plain:
        first = plain.feed(clips[1]) + plain.flush()
        second = plain.feed(clips[1]) + plain.finish()

    async def run() -> list[list[object]]:
        async with model.session() as session:
            session.insert(clips[1])
            found = [await session.events(flush=True)]
            session.insert(clips[1])
            return [*found, await session.events(finish=True)]

    for events, words in zip(asyncio.run(run()), (first, second), strict=True):
        assert [event for event in events if isinstance(event, voxfast.Word)] == words
        segments = [event for event in events if isinstance(event, voxfast.Segment)]
        assert [word for segment in segments for word in segment.words] == words
        assert isinstance(events[-1], voxfast.Segment)


def test_the_loop_goes_on_while_the_model_computes(
    model: voxfast.Model, clips: list[np.ndarray]
) -> None:
    async def run() -> int:
        ticks = 0
        async with model.session() as session:
            task = asyncio.create_task(session.feed(np.tile(clips[0], 20)))
            while not task.done():
                await asyncio.sleep(0.001)
                ticks += 1
            await task
        return ticks

    assert asyncio.run(run()) > 5


def test_cancelling_loses_nothing(
    model: voxfast.Model, clips: list[np.ndarray], expected: list[list[voxfast.Word]]
) -> None:
    """Neither words of a call that is cancelled, nor those behind a loop that is left."""

    async def run() -> None:
        async with model.session() as session:
            words = []
            for chunk in chunks(clips[2], 16000):
                task = asyncio.create_task(session.feed(chunk))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                words += session.take()
            words += await session.process()
            task = asyncio.create_task(session.finish())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert words + await session.finish() == expected[2]
        async with model.session() as session:
            words = []
            async for word in session.words([clips[2]]):
                words.append(word)
                break
            words += session.take()
            words += await session.finish()
            assert words == expected[2]

    asyncio.run(run())


def test_calls_of_several_tasks_take_turns(
    model: voxfast.Model, clips: list[np.ndarray], expected: list[list[voxfast.Word]]
) -> None:
    async def run() -> None:
        async with model.session() as session:
            found = await asyncio.gather(*(session.feed(chunk) for chunk in chunks(clips[3])))
            words = [word for some in found for word in some]
            assert words + await session.finish() == expected[3]

    asyncio.run(run())


def test_errors_reach_the_caller_and_the_session_lives(
    model: voxfast.Model, clips: list[np.ndarray], expected: list[list[voxfast.Word]]
) -> None:
    async def run() -> None:
        async with model.session() as session:
            with pytest.raises(InvalidAudioError):
                await session.feed([np.nan])
            words = await session.feed(clips[4])
            assert words + await session.finish() == expected[4]

    asyncio.run(run())


def test_a_model_that_is_closed_and_a_loop_that_is_gone(clips: list[np.ndarray]) -> None:
    under_way = []

    async def start() -> None:
        session = await model.session().__aenter__()
        session.insert(np.tile(clips[0], 5))
        under_way.append(asyncio.create_task(session.process()))
        await asyncio.sleep(0)  # the loop ends meanwhile

    async def after() -> None:
        async with session as opened:
            opened.insert(clips[0])
            await opened.process()

    with voxfast.load() as model:
        asyncio.run(start())
        session = model.session()
        assert [*session.feed(clips[0]), *session.finish()]  # the owner thread lives
        session = model.session()
    with pytest.raises(VoxfastError, match="closed"):
        asyncio.run(after())

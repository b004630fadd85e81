"""A small sample of what tools/fuzz_server.py does: mutated frames, through every door."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from fuzzing.server import MESSAGE_KB, TARGETS, Tally, attack
from live_clients import Address, Clip, load_clips
from serving import Running, serving

import voxfast
from voxfast.serve.hub import Hub, Limits
from voxfast.serve.server import Settings
from voxfast.serve.tcp import serve_wyoming

FRAMES = 300
FIRST = 10**9  # numbers that tools/fuzz_server.py does not reach: the suite adds to its runs


@pytest.fixture(scope="module")
def clips(numbers: voxfast.Model) -> list[Clip]:
    return load_clips(numbers, most=2)


@pytest.fixture(scope="module")
def server(numbers: voxfast.Model) -> Iterator[tuple[Running, Address]]:
    ports: list[int] = []

    @contextlib.asynccontextmanager
    async def wyoming(hub: Hub) -> AsyncIterator[None]:
        async with serve_wyoming(hub, "127.0.0.1", 0) as port:
            ports.append(port)
            yield

    limits = Limits(sessions=100, message_bytes=MESSAGE_KB << 10, requests_per_minute=0)
    with serving(numbers, limits, Settings(port=0), [wyoming]) as running:
        yield running, Address(running.server.port, ports[0])


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_frames(name: str, server: tuple[Running, Address], clips: list[Clip]) -> None:
    running, address = server
    tally = Tally()
    asyncio.run(attack(name, address, clips, FRAMES, FIRST, tally))
    assert tally.faults == []
    assert tally.frames >= FRAMES
    assert tally.answers > 10
    assert tally.refusals.total() > 10
    assert tally.clips > 0
    assert tally.wrong == 0
    assert b"internal_error" not in running.hub.metrics.text()

"""The bridge: commands of the smallest dialect are carried out in order, and nothing is held."""

import asyncio
from collections.abc import Iterable

import numpy as np
import pytest
from evaluation import EvalItem

import voxfast
from voxfast.serve.bridge import _Inbox, converse
from voxfast.serve.dialect import (
    Action,
    Audio,
    Clear,
    Cleared,
    Close,
    Commit,
    Committed,
    Event,
    Failed,
    Finish,
    Finished,
    Problem,
    Send,
    Start,
)
from voxfast.serve.hub import Hub, Limits
from voxfast.serve.live import LiveSession


class Plain:
    """Binary frames are audio at 16 kHz; ``commit``, ``clear`` and ``finish`` are commands."""

    def __init__(self, options: Start = Start()) -> None:  # noqa: B008
        self._options = options

    def open(self) -> Iterable[Action]:
        return [self._options, Send("hello")]

    def receive(self, frame: str | bytes) -> Iterable[Action]:
        if isinstance(frame, bytes):
            return [Audio(frame)]
        if frame == "break":
            raise RuntimeError("a bug")
        return [{"commit": Commit(), "clear": Clear(), "finish": Finish()}[frame]]

    def event(self, event: Event) -> Iterable[Action]:
        match event:
            case voxfast.Word(text=text):
                return [Send(text)]
            case Committed():
                return [Send("|")]
            case Cleared():
                return [Send("0")]
            case Finished():
                return [Send("."), Close()]
            case Failed(problem):
                return [Send(f"!{problem.code}")]
        return []


class Client:
    """A connection that sends what it was given, and keeps what it gets."""

    def __init__(self, *frames: str | bytes, leaves: bool = False, reads: bool = True) -> None:
        self._frames, self._leaves, self._reads = [*frames], leaves, reads
        self.got: list[str | bytes] = []
        self.closed: tuple[int, str] | None = None
        self.read = 0

    async def receive(self) -> str | bytes | None:
        await asyncio.sleep(0)
        if self._frames:
            self.read += 1
            return self._frames.pop(0)
        if not self._leaves:
            await asyncio.Event().wait()
        return None

    async def send(self, frame: str | bytes) -> None:
        if not self._reads:
            await asyncio.Event().wait()
        self.got.append(frame)

    async def close(self, code: int, reason: str) -> None:
        self.closed = code, reason


@pytest.fixture(scope="module")
def clip(eval_items: list[EvalItem]) -> np.ndarray:
    return (eval_items[1].audio * 32767).astype("<i2")


def run(client: Client, hub: Hub, dialect: Plain | None = None) -> str:
    """Serve the client; what it got."""

    async def one() -> None:
        with hub.seat("test", "r") as seat:
            await asyncio.wait_for(converse(dialect or Plain(), client, hub, seat), 60)

    asyncio.run(one())
    assert hub.sessions == 0
    return "".join(map(str, client.got))


def text(numbers: voxfast.Model, clip: np.ndarray) -> str:
    return voxfast.transcribe(clip, model=numbers).text


def test_the_words_of_any_split_are_those_of_a_plain_session(
    numbers: voxfast.Model, clip: np.ndarray
) -> None:
    data = clip.tobytes()
    for size in (len(data), 6401, 333):  # odd: a sample comes in two halves
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        client = Client(*pieces, "finish")
        assert run(client, Hub(numbers)) == f"hello {text(numbers, clip)}."
        assert client.closed == (1000, "")


def test_commit_and_clear(numbers: voxfast.Model, clip: np.ndarray) -> None:
    data = clip.tobytes()
    client = Client(data, "commit", data, "clear", data, "finish")
    hello, committed, cleared = run(client, Hub(numbers)).replace("hello ", "hello|").split("|")
    said = text(numbers, clip)
    assert (hello, committed) == ("hello", said)
    # What was said and then cleared is written as far as it was certain; the rest is said anew.
    dropped, kept = cleared.split("0")
    assert said.startswith(dropped.strip())
    assert kept == f" {said}."


def test_times_go_on_after_a_clear_and_a_change_of_options(
    numbers: voxfast.Model, clip: np.ndarray
) -> None:
    class Timed(Plain):
        def receive(self, frame: str | bytes) -> Iterable[Action]:
            return [Start(endpoint_ms=500)] if frame == "change" else super().receive(frame)

        def event(self, event: Event) -> Iterable[Action]:
            if isinstance(event, voxfast.Word):
                return [Send(f"{event.start:.3f} ")]
            return super().event(event)

    words = voxfast.transcribe(clip, model=numbers).words
    for command in ("clear", "change"):
        client = Client(clip.tobytes(), command, clip.tobytes(), "finish")
        run(client, Hub(numbers), Timed())
        times = [float(frame) for frame in client.got if str(frame)[-1] == " "]
        later = len(clip) / 16_000
        assert times[-len(words) :] == pytest.approx([w.start + later for w in words], abs=0.09)


def test_a_client_that_leaves_frees_its_seat(numbers: voxfast.Model, clip: np.ndarray) -> None:
    client = Client(clip.tobytes(), leaves=True)
    run(client, Hub(numbers))
    assert client.closed is None


def test_a_client_that_does_not_read_is_cut_off(numbers: voxfast.Model, clip: np.ndarray) -> None:
    hub = Hub(numbers, Limits(unread_bytes=20, send_seconds=0.2))
    client = Client(clip.tobytes(), "commit", reads=False)
    run(client, hub)
    assert client.closed == (1008, "the client reads too slowly")
    assert b'code="slow_reader"' in hub.metrics.text()


def test_audio_ahead_is_not_read(numbers: voxfast.Model, clip: np.ndarray) -> None:
    most = 0.0

    class Watching(Client):
        async def receive(self) -> str | bytes | None:
            nonlocal most
            frame = await super().receive()
            if isinstance(frame, bytes):
                waiting = self.read * 0.5 - float(seats[0].audio_seconds)
                most = max(most, waiting)
            return frame

    hub = Hub(numbers, Limits(ahead_seconds=1.0))
    seats: list = []
    pieces = [clip[:8000].tobytes()] * 20
    client = Watching(*pieces, "finish")

    async def one() -> None:
        with hub.seat("test", "r") as seat:
            seats.append(seat)
            await converse(Plain(), client, hub, seat)

    asyncio.run(one())
    assert seats[0].audio_seconds == 10
    assert most <= 3.0  # 1 s that waits, a piece that is heard, and the one that is read


@pytest.mark.parametrize(
    ("frames", "limits", "code", "closed"),
    [
        ([b"12" * 20_000], Limits(message_bytes=1000), "message_too_large", 1009),
        ([b"12" * 40_000], Limits(audio_seconds=1.0), "audio_too_long", 1009),
        ([], Limits(idle_seconds=0.05), "idle_timeout", 1008),
        (["break"], Limits(), "internal_error", 1011),
    ],
)
def test_limits(
    numbers: voxfast.Model, frames: list[bytes], limits: Limits, code: str, closed: int
) -> None:
    client = Client(*frames)
    assert run(client, Hub(numbers, limits)).endswith(f"!{code}")
    assert client.closed is not None
    assert client.closed[0] == closed


def test_a_client_that_waits_for_its_words_is_not_idle(
    numbers: voxfast.Model, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = LiveSession.events

    async def slowly(session: LiveSession, **options: bool) -> object:
        await asyncio.sleep(0.3)
        return await events(session, **options)

    monkeypatch.setattr(LiveSession, "events", slowly)
    client = Client(clip.tobytes(), "finish")
    hello, said = run(client, Hub(numbers, Limits(idle_seconds=0.1))).split(" ", 1)
    assert (hello, said) == ("hello", f"{text(numbers, clip)}.")


def test_options_that_the_model_does_not_take(numbers: voxfast.Model) -> None:
    client = Client("finish")
    assert run(client, Hub(numbers), Plain(Start(delay_ms=7))) == "hello!invalid_value."
    client = Client(b"12")
    assert run(client, Hub(numbers), Plain(Start(sample_rate=5))).endswith("!no_session")
    for language in ("en", "en-US", "English"):  # Voxtral finds it itself
        assert run(Client("finish"), Hub(numbers), Plain(Start(language=language))) == "hello."
    for language in ("de", "German", "xx", ""):
        said = run(Client("finish"), Hub(numbers), Plain(Start(language=language)))
        assert said == ("hello!invalid_value." if language else "hello.")


def test_a_session_that_begins_as_the_server_ends(numbers: voxfast.Model) -> None:
    hub = Hub(numbers, Limits(drain_seconds=5))

    async def one() -> bool:
        with hub.seat("test", "r") as seat:
            drained = asyncio.create_task(hub.drain())
            await asyncio.sleep(0)  # the seat has no bridge yet
            await asyncio.wait_for(converse(Plain(), Client(), hub, seat), 3)
        return await drained

    assert asyncio.run(one())


def test_how_much_audio_waits_depends_on_its_form() -> None:
    inbox = _Inbox()
    for sample_format, channels, width in (("mulaw", 1, 1), ("s24le", 2, 6), ("f32le", 1, 4)):
        inbox.put(Start(16_000, sample_format, channels))  # type: ignore[arg-type]
        before = inbox.seconds
        inbox.put(Audio(bytes(8_000 * width)))
        assert inbox.seconds - before == 0.5


def test_draining_writes_the_last_words(numbers: voxfast.Model, clip: np.ndarray) -> None:
    hub, client = Hub(numbers), Client(clip.tobytes())

    async def one() -> bool:
        with hub.seat("test", "r") as seat:
            talk = asyncio.create_task(converse(Plain(), client, hub, seat))
            while seat.audio_seconds == 0:
                await asyncio.sleep(0.01)
            drained = asyncio.create_task(hub.drain())
            await talk
            with pytest.raises(Problem, match="ending"), hub.seat("test", "s"):
                pass
        return await drained

    assert asyncio.run(one())
    assert "".join(map(str, client.got)) == f"hello {text(numbers, clip)}."
    assert client.closed == (1000, "")


def test_seats_are_limited(numbers: voxfast.Model) -> None:
    hub = Hub(numbers, Limits(sessions=1))
    with hub.seat("test", "r"):
        with pytest.raises(Problem, match="sessions are taken") as refused, hub.seat("test", "s"):
            pass
        assert refused.value.status == 429
    assert b'voxfast_sessions_started_total{door="test"} 1.0' in hub.metrics.text()

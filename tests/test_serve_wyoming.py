"""The Wyoming protocol alone: frames in any split, the order of events, hostile lengths."""

import json
from collections.abc import Iterable

import pytest
from fakes import FakeModel
from hypothesis import given
from hypothesis import strategies as st

from voxfast.cli import main
from voxfast.errors import InvalidOptionError
from voxfast.serve.dialect import (
    Action,
    Audio,
    Close,
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
)
from voxfast.serve.tcp import parse_address
from voxfast.serve.wyoming import Frame, FrameReader, WyomingDialect, frame_bytes
from voxfast.timed import Word

SERVICE = Service("voxtral-numbers", "knows 71 words", languages=("en",), message_bytes=1000)
FORM = {"rate": 16000, "width": 2, "channels": 1}


def wire(kind: str, data: dict | None = None, payload: bytes = b"") -> bytes:
    """An event as the real client writes it."""
    more = json.dumps(data).encode() if data else b""
    header = {"type": kind, "version": "1.10.2"}
    header |= {"data_length": len(more)} if more else {}
    header |= {"payload_length": len(payload)} if payload else {}
    return json.dumps(header).encode() + b"\n" + more + payload


def dialect() -> WyomingDialect:
    made = WyomingDialect(Handshake("r1"), SERVICE)
    assert [*made.open()] == []
    return made


def sent(actions: Iterable[Action]) -> list[Frame]:
    data = b"".join(action.frame for action in actions if isinstance(action, Send))
    return [*FrameReader(1 << 20).step(data)]


# -- Frames


def test_frames() -> None:
    inline = b'{"type": "transcribe", "data": {"language": "en", "name": "a"}, "data_length": 13}\n'
    data = inline + b'{"name": "b"}' + wire("audio-chunk", FORM, b"\n12\n") + wire("ping")
    expected = [
        Frame("transcribe", {"language": "en", "name": "b"}),
        Frame("audio-chunk", FORM, b"\n12\n"),
        Frame("ping", {}),
    ]
    for size in range(1, len(data) + 1):
        reader = FrameReader(1000)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert [frame for piece in pieces for frame in reader.step(piece)] == expected


def test_what_is_sent_is_read() -> None:
    text = {"text": 'été "1"\n', "language": None}
    assert [*FrameReader(0).step(frame_bytes("transcript", text))] == [Frame("transcript", text)]
    lone = frame_bytes("pong", {"text": "\ud800"})  # no lone surrogate is sent as it is
    assert sent([Send(lone)])[0].type == "pong"


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"\n", "invalid_event", "JSON object"),
        (b"[]\n", "invalid_event", "JSON object"),
        (b"[" * 60_000 + b"\n", "invalid_event", "JSON object"),
        (b"\xff\xfe\n", "invalid_event", "JSON object"),
        (b'{"type": 1}\n', "invalid_event", "type"),
        (b'{"type": "x", "data": []}\n', "invalid_event", "data"),
        (b'{"type": "x", "data_length": 2}\n[]', "invalid_event", "JSON object"),
        (b'{"type": "x", "payload_length": -1}\n', "invalid_event", "-1"),
        (b'{"type": "x", "payload_length": 1.5}\n', "invalid_event", "1.5"),
        (b'{"type": "x", "payload_length": true}\n', "invalid_event", "True"),
        (b'{"type": "x", "payload_length": "7"}\n', "invalid_event", "'7'"),
        (b'{"type": "x", "payload_length": 1e999}\n', "invalid_event", "inf"),
        (b'{"type": "x", "payload_length": 1001}\n', "message_too_large", "1000 at most"),
        (b'{"type": "x", "data_length": 99999999}\n', "message_too_large", "at most"),
        (b'{"type": "x", "data_length": %s}\n' % (b"9" * 4000), "message_too_large", "at most"),
        (b" " * 70_000, "message_too_large", "header"),
        (b" " * 70_000 + b"\n", "message_too_large", "header"),
    ],
)
def test_what_is_no_event_ends_the_connection(data: bytes, code: str, says: str) -> None:
    for size in (1 << 20, 1 if len(data) < 1000 else 4096):
        made, actions = dialect(), []
        for at in range(0, len(data), size):
            actions += made.receive(data[at : at + size])
        assert isinstance(actions[-1], Close)
        (error,) = sent(actions)
        assert (error.type, error.data["code"]) == ("error", code)
        assert says in error.data["text"]
        assert [*made.receive(wire("describe"))] == []


# -- Events


def test_describe_and_ping() -> None:
    made = dialect()
    info, pong, _ = sent(
        [*made.receive(wire("describe") + wire("ping", {"text": "hi"}) + wire("ping", {"text": 1}))]
    )
    (program,) = info.data["asr"]
    (model,) = program["models"]
    assert (info.type, program["supports_transcript_streaming"]) == ("info", True)
    assert (model["name"], model["languages"], model["installed"]) == (
        "voxtral-numbers",
        ["en"],
        True,
    )
    assert (pong.type, pong.data) == ("pong", {"text": "hi"})
    assert [*made.receive(wire("select-program", {"name": "x"}) + wire("run-satellite"))] == []


def test_a_request() -> None:
    made = dialect()
    asked = {"language": "en", "transcript_names": ["Ada"], "transcript_terms": ["voxfast"]}
    start, *rest = made.receive(
        wire("transcribe", asked)
        + wire("audio-start", FORM)
        + wire("audio-chunk", {**FORM, "timestamp": 0}, b"1234")
        + wire("audio-stop", {"timestamp": 1})
    )
    assert start == Start(16000, "s16le", 1, language="en", vocabulary=("Ada", "voxfast"))
    assert rest == [Audio(b"1234"), Finish()]
    words = [Word(" one", 0, 1, 1.0), Word(",", 1, 1, 1.0), Word(" two ", 1, 2, 1.0)]
    events = [Started(), *words, Processed(2.0), Finished(2.0, "English")]
    got = sent([action for event in events for action in made.event(event)])
    assert [frame.type for frame in got] == [
        "transcript-start",
        "transcript-chunk",
        "transcript-chunk",
        "transcript-chunk",
        "transcript",
        "transcript-stop",
    ]
    assert "".join(frame.data["text"] for frame in got[1:4]).rstrip() == got[4].data["text"]
    assert got[4].data == {"text": "one, two", "language": "en"}
    # The next request of the same connection.
    again, _ = made.receive(wire("transcribe") + wire("audio-start", FORM) + wire("audio-stop"))
    assert again == Start(16000, "s16le", 1)
    got = sent([action for event in [Started(), Finished(0.0)] for action in made.event(event)])
    assert [frame.data for frame in got] == [{}, {"text": ""}, {}]


def test_a_client_that_has_said_all_may_end_its_half() -> None:
    start, chunk, stop = wire("audio-start", FORM), wire("audio-chunk", FORM, b"12"), b""
    made = dialect()
    assert [*made.receive(start + chunk)][1:] == [Audio(b"12")]
    assert [*made.receive(stop)] == [Finish()]
    actions = [*made.event(Started()), *made.event(Finished(1.0))]
    assert [frame.type for frame in sent(actions)][-2:] == ["transcript", "transcript-stop"]
    assert actions[-1] == Close()
    made = dialect()
    *_, finish = made.receive(start + chunk + wire("audio-stop"))
    assert [finish, *made.receive(stop)] == [Finish()]
    assert [*made.event(Finished(1.0))][-1] == Close()
    assert [*dialect().receive(stop)] == [Close()]
    for cut in (start[:9], start[:-1], wire("audio-chunk", FORM, b"12")[:-1]):
        made = dialect()
        assert [*made.receive(cut)] == []
        assert [frame.data["code"] for frame in sent(made.receive(stop))] == ["invalid_event"]


def test_audio_start_may_be_left_out() -> None:
    form = {"rate": 48000, "width": 4, "channels": 2}
    assert [*dialect().receive(wire("audio-chunk", form, b"12345678"))] == [
        Start(48000, "s32le", 2),
        Audio(b"12345678"),
    ]
    assert [*dialect().receive(wire("audio-stop"))] == [Start(), Finish()]


@pytest.mark.parametrize(
    "frames",
    [
        wire("audio-start", FORM) + wire("audio-start", FORM),
        wire("audio-start", FORM) + wire("transcribe"),
        wire("audio-start", FORM) + wire("audio-chunk", {**FORM, "rate": 8000}, b"12"),
        wire("audio-start", {"rate": 16000, "channels": 1}),
        wire("audio-start", {**FORM, "width": 5}),
        wire("audio-start", {**FORM, "rate": "16000"}),
        wire("audio-start", {**FORM, "rate": 10**12}),
        wire("audio-start", {**FORM, "channels": True}),
        wire("audio-start", {**FORM, "channels": -1}),
        wire("audio-chunk"),
        wire("transcribe", {"language": 1}),
        wire("transcribe", {"name": "whisper"}),
        wire("transcribe", {"transcript_terms": "one"}),
        wire("transcribe", {"transcript_names": [1]}),
    ],
)
def test_what_is_refused(frames: bytes) -> None:
    actions = [*dialect().receive(frames + wire("describe"))]
    assert isinstance(actions[-1], Close)
    assert [frame.type for frame in sent(actions)] == ["error"]


def test_failures_are_told_once() -> None:
    made = dialect()
    failed = Failed(Problem("no such language", "invalid_value"), is_final=False)
    error, close = made.event(failed)
    assert sent([error])[0].data == {"text": "no such language", "code": "invalid_value"}
    assert isinstance(close, Close)
    assert [*made.event(failed)] == []


# -- Whatever comes

DATA = st.dictionaries(
    st.sampled_from(["rate", "width", "channels", "language", "name", "text", "transcript_names"]),
    st.sampled_from([1, 2, 8000, 16000, -1, None, "en", ["a"], True, 1.5, {}]),
)
KINDS = st.sampled_from(
    ["transcribe", "audio-start", "audio-chunk", "audio-stop", "describe", "ping", "x"]
)
EVENTS = st.builds(wire, KINDS, DATA | st.just(FORM), st.binary(max_size=20))
ODD = st.binary(max_size=30) | st.just(b'{"type": "audio-chunk", "payload_length": 900}\n')


@given(st.lists(EVENTS | ODD, max_size=10), st.integers(1, 200))
def test_any_bytes_give_the_same_in_any_split(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    whole = [*dialect().receive(data)]
    made, split = dialect(), []
    for at in range(0, len(data) or 1, size):
        split += made.receive(data[at : at + size])
    assert split == whole
    closes = [at for at, action in enumerate(whole) if isinstance(action, Close)]
    assert closes in ([], [len(whole) - 1])


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_one_changed_byte(noise: bytes, at: int, value: int) -> None:
    data = bytearray(
        wire("transcribe", {"language": "en"})
        + wire("audio-start", FORM)
        + wire("audio-chunk", FORM, noise)
        + wire("audio-stop")
    )
    data[at % len(data)] = value
    for action in dialect().receive(bytes(data)):
        assert isinstance(action, Start | Audio | Finish | Send | Close)


# -- Addresses


def test_addresses() -> None:
    assert parse_address("10300") == ("127.0.0.1", 10300)
    assert parse_address("0.0.0.0:10300") == ("0.0.0.0", 10300)
    assert parse_address("[::1]:1") == ("::1", 1)
    assert parse_address("home.local:0") == ("home.local", 0)
    for wrong in ("", ":10300", "x", "1:", "70000", "-1", "٣", "localhost"):
        with pytest.raises(InvalidOptionError, match="HOST:PORT"):
            parse_address(wrong)


def test_an_address_that_cannot_be_is_told_before_a_model_is_loaded(
    model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--wyoming", "nowhere"]) == 2
    assert "HOST:PORT" in capsys.readouterr().err
    assert model.loads == []

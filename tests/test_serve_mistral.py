"""Mistral's realtime dialect without a server."""

import base64
from typing import Any

import pytest
from dialects import SERVICE, Talk, hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from voxfast.serve.dialect import (
    Audio,
    Close,
    Commit,
    Failed,
    Finish,
    Finished,
    Handshake,
    LanguageFound,
    Problem,
    Start,
)
from voxfast.serve.mistral_realtime import MistralRealtime

APPEND = {"type": "input_audio.append", "audio": base64.b64encode(b"\1\2").decode()}
FLUSH = {"type": "input_audio.flush"}
END = {"type": "input_audio.end"}


def update(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": session}


FULL = update(
    audio_format={"encoding": "pcm_mulaw", "sample_rate": 8000},
    target_streaming_delay_ms=500,
    language="en",
    context_bias=["door"],
    turn_detection={"min_silence_ms": 700},
)


def talk() -> Talk:
    return Talk(MistralRealtime(Handshake("request-1"), SERVICE))


def test_a_session() -> None:
    client = talk()
    assert client.frames[0]["session"]["request_id"] == "request-1"
    assert client.frames[0]["session"]["audio_format"] == {
        "encoding": "pcm_s16le",
        "sample_rate": 16000,
    }
    frames = client.send(APPEND, APPEND, FLUSH, END)
    assert [frame["type"] for frame in frames] == [
        "transcription.text.delta",
        "transcription.text.delta",
        "transcription.segment",
        "transcription.done",
    ]
    done = frames[-1]
    assert done["text"] == "w1 w2"
    assert done["segments"][0]["end"] == 2.0
    assert done["words"][0]["start"] == 0.5
    assert client.commands == [Start(), Audio(b"\1\2"), Audio(b"\1\2"), Commit(), Finish()]
    assert client.closed is not None
    assert client.closed.code == 1000


def test_options_are_answered_with_what_is_in_effect() -> None:
    client = talk()
    (updated,) = client.send(FULL)
    assert client.commands == [
        Start(
            sample_rate=8000,
            sample_format="mulaw",
            delay_ms=480,
            language="en",
            vocabulary=("door",),
            endpoint_ms=700,
        )
    ]
    session = updated["session"]
    assert session["target_streaming_delay_ms"] == 480
    assert session["audio_format"]["encoding"] == "pcm_mulaw"
    frames = client.send(APPEND, APPEND)
    assert [frame["type"] for frame in frames if "turn" in frame["type"]] == [
        "turn.start",
        "turn.end",
    ]


def test_the_language_is_told() -> None:
    client = talk()
    client.send(APPEND)
    assert client.tell(LanguageFound("English"))[0]["audio_language"] == "English"
    assert client.send(END)[-1]["language"] == "English"


@pytest.mark.parametrize(
    "event",
    [
        update(audio_format={"encoding": "mp3", "sample_rate": 8000}),
        update(audio_format={"encoding": "pcm_s16le", "sample_rate": "8000"}),
        update(audio_format=1),
        update(target_streaming_delay_ms=-1),
        update(diarize=True),
        update(speaker_references={"a": "b"}),
        update(context_bias="door"),
        update(turn_detection={"min_silence_ms": 0}),
        {"type": "input_audio.append", "audio": base64.b64encode(bytes(262_145)).decode()},
        {"type": "input_audio.append"},
        {"type": "other"},
        {},
        "nonsense",
        b"\0",
    ],
)
def test_refusals_change_nothing(event: Any) -> None:
    client = talk()
    (refused,) = client.send(event)
    assert refused["type"] == "error"
    assert isinstance(refused["error"]["message"], str)
    assert isinstance(refused["error"]["code"], int)
    assert client.commands == []
    assert client.send(APPEND, END)[-1]["text"] == "w1"


def test_options_that_the_model_does_not_take_leave_those_before() -> None:
    client = talk()
    client.refuses = lambda options: bool(options.vocabulary)
    (refused,) = client.send(FULL)
    assert refused["type"] == "error"
    assert client.send(APPEND, END)[-1]["text"] == "w1"
    assert client.commands[1] == Start()


def test_after_the_end_there_is_no_audio() -> None:
    client = talk()
    client.holds = True
    client.send(APPEND, END)
    (refused,) = client.send(APPEND)
    assert "ended" in refused["error"]["message"]


def test_an_end_that_the_client_did_not_ask_for_is_told() -> None:
    ended, cut = talk(), talk()
    ended.send(APPEND, END)
    assert ended.closed == Close()
    cut.send(APPEND)
    (done,) = cut.tell(Finished(1.0))
    assert done["text"] == "w1"
    assert cut.closed == Close(1001, "the server is ending")


def test_a_problem_of_the_server_is_an_error() -> None:
    (refused,) = talk().tell(Failed(Problem("too many", "x", 429)))
    assert refused["error"]["code"] == 429


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(Problem, match="no model 'other'"):
        MistralRealtime(Handshake("r", {"model": ("other",)}), SERVICE)
    MistralRealtime(Handshake("r", {"model": ("voxtral-mini-transcribe-realtime-2602",)}), SERVICE)


@settings(max_examples=150, deadline=None)
@given(
    frames=hostile([update(), FULL, APPEND, APPEND, FLUSH, END]),
    refuses=st.booleans(),
    holds=st.booleans(),
)
def test_hostile_clients(frames: list[str | bytes], refuses: bool, holds: bool) -> None:
    client = talk()
    client.refuses = lambda options: refuses and options.language is not None
    client.holds = holds
    client.send(*frames)
    client.release()
    finished = any(isinstance(command, Finish) for command in client.commands)
    assert len(client.of("transcription.done")) == finished
    for done in client.of("transcription.done"):
        deltas = "".join(frame["text"] for frame in client.of("transcription.text.delta"))
        assert deltas == done["text"]

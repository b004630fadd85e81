"""vLLM's realtime dialect without a server, and how it is told from OpenAI's."""

import base64
from typing import Any

import pytest
from dialects import SERVICE, Talk, hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from voxfast.serve.dialect import Audio, Finish, Handshake, Start
from voxfast.serve.realtime import Realtime
from voxfast.serve.vllm_realtime import VllmRealtime

UPDATE = {"type": "session.update", "model": "voxtral-numbers"}
APPEND = {"type": "input_audio_buffer.append", "audio": base64.b64encode(b"\1\2").decode()}
COMMIT = {"type": "input_audio_buffer.commit"}
FINAL = {"type": "input_audio_buffer.commit", "final": True}


def talk() -> Talk:
    return Talk(VllmRealtime(Handshake("r"), SERVICE))


def test_a_session() -> None:
    client = talk()
    assert client.frames[0]["type"] == "session.created"
    assert client.frames[0]["id"].startswith("sess_")
    assert client.send(UPDATE) == []
    frames = client.send(COMMIT, APPEND, APPEND, FINAL)
    assert [frame["type"] for frame in frames] == [
        "transcription.delta",
        "transcription.delta",
        "transcription.done",
    ]
    assert "".join(frame["delta"] for frame in frames[:2]) == frames[2]["text"] == "w1 w2"
    assert frames[2]["words"][0]["confidence"] == 0.5
    assert client.commands == [Start(), Audio(b"\1\2"), Audio(b"\1\2"), Finish()]
    assert client.send(COMMIT, APPEND, FINAL)[-1]["text"] == "w3"  # the connection stays


def test_language_and_prompt_are_passed_on() -> None:
    client = talk()
    client.send({**UPDATE, "language": "ja", "prompt": "names"}, COMMIT)
    assert client.commands == [Start(language="ja", prompt="names")]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([APPEND], "model_not_validated"),
        ([COMMIT], "model_not_validated"),
        ([{**UPDATE, "model": "other"}], "model_not_found"),
        ([UPDATE, {**APPEND, "audio": "?"}], "invalid_audio"),
        ([UPDATE, {**COMMIT, "final": "yes"}], "invalid_value"),
        ([{"type": "other"}], "unknown_event"),
        ([{}], "unknown_event"),
        (["nonsense"], "invalid_json"),
        ([b"\0"], "invalid_json"),
    ],
)
def test_refusals(frames: list[Any], code: str) -> None:
    refused = talk().send(*frames)[-1]
    assert refused["type"] == "error"
    assert isinstance(refused["error"], str)
    assert refused["code"] == code


def test_options_that_the_model_does_not_take() -> None:
    client = talk()
    client.refuses = lambda options: options.prompt is not None
    refused = client.send({**UPDATE, "prompt": "p"}, COMMIT)
    assert refused[-1]["code"] == "invalid_value"
    assert client.send(APPEND)[-1]["code"] == "model_not_validated"
    assert client.send(UPDATE, APPEND, FINAL)[-1]["text"] == "w1"


@pytest.mark.parametrize(
    ("query", "first", "is_flat"),
    [
        ({}, UPDATE, True),
        ({}, COMMIT, True),
        ({}, {"type": "session.update", "session": {"type": "transcription"}}, False),
        ({}, {"type": "transcription_session.update", "session": {}}, False),
        ({}, APPEND, False),
        ({"intent": ("transcription",)}, COMMIT, False),
        ({"intent": ("transcription",)}, UPDATE, True),
    ],
)
def test_the_first_event_tells_the_dialect(
    query: dict[str, tuple[str, ...]], first: dict[str, Any], is_flat: bool
) -> None:
    client = Talk(Realtime(Handshake("r", query), SERVICE))
    created = client.frames[0]
    assert created["type"] == "session.created"
    assert isinstance(created["id"], str)
    assert isinstance(created["created"], int)
    client.send("nonsense", first)  # what is no event decides nothing
    refused = client.send({"type": "other"})[-1]
    assert isinstance(refused["error"], str) == is_flat


@settings(max_examples=150, deadline=None)
@given(frames=hostile([UPDATE, APPEND, APPEND, COMMIT, FINAL]), refuses=st.booleans())
def test_hostile_clients(frames: list[str | bytes], refuses: bool) -> None:
    client = Talk(Realtime(Handshake("r"), SERVICE))
    client.refuses = lambda options: refuses and options.language is not None
    client.send(*frames)
    finished = sum(isinstance(command, Finish) for command in client.commands)
    assert len(client.of("transcription.done")) == finished
    deltas = "".join(frame["delta"] for frame in client.of("transcription.delta"))
    done = "".join(frame["text"] for frame in client.of("transcription.done"))
    assert deltas.startswith(done)

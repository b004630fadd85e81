"""OpenAI's realtime dialect without a server: sessions, items, turns, and hostile clients."""

import base64
from typing import Any

import pytest
from dialects import SERVICE, Talk, hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from voxfast.serve.dialect import Audio, Commit, Failed, Handshake, Problem, Start
from voxfast.serve.openai_realtime import OpenAIRealtime
from voxfast.serve.realtime import Realtime
from voxfast.timed import Word
from voxfast.vad import SpeechEnded, SpeechStarted

TRANSCRIPTION = "conversation.item.input_audio_transcription"
APPEND = {"type": "input_audio_buffer.append", "audio": base64.b64encode(b"\1\2").decode()}
COMMIT = {"type": "input_audio_buffer.commit"}
CLEAR = {"type": "input_audio_buffer.clear"}


def update(**given: Any) -> dict[str, Any]:
    """A session.update of the present interface."""
    session = {"type": "transcription", "audio": {"input": given}}
    return {"type": "session.update", "event_id": "mine", "session": session}


def beta(**session: Any) -> dict[str, Any]:
    return {"type": "transcription_session.update", "session": session}


MANUAL = update(turn_detection=None)
FULL = update(
    format={"type": "audio/pcm", "rate": 16000},
    transcription={
        "model": "whisper-1",
        "language": "en",
        "prompt": "p",
        "keywords": ["door"],
        "delay": "low",
    },
    turn_detection={"type": "server_vad", "silence_duration_ms": 300, "threshold": 0.4},
)


def talk(**query: str) -> Talk:
    return Talk(
        OpenAIRealtime(Handshake("r", {name: (value,) for name, value in query.items()}), SERVICE)
    )


def types(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"].removeprefix("conversation.item.") for frame in frames]


def test_options_are_answered_with_what_is_in_effect() -> None:
    client = talk()
    created = client.frames[0]
    assert created["type"] == "session.created"
    assert created["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
    (updated,) = client.send(FULL)
    assert client.commands == [
        Start(
            sample_rate=16000,
            language="en",
            prompt="p",
            vocabulary=("door",),
            endpoint_ms=300,
            delay_ms=240,
        )
    ]
    given = updated["session"]["audio"]["input"]
    assert given["format"] == {"type": "audio/pcm", "rate": 16000}
    # The name of the model that answers, and the threshold that holds, whatever was asked for.
    assert given["transcription"]["model"] == "voxtral-numbers"
    assert given["turn_detection"]["threshold"] == 0.5
    # What is absent stays; null is the default.
    client.send(update(transcription={"language": None}))
    assert client.commands[-1] == Start(
        sample_rate=16000, prompt="p", vocabulary=("door",), endpoint_ms=300, delay_ms=240
    )


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ({"type": "audio/pcm"}, (24000, "s16le")),
        ({"type": "audio/pcm", "rate": 48000}, (48000, "s16le")),
        ({"type": "audio/pcmu"}, (8000, "mulaw")),
        ({"type": "audio/pcma"}, (8000, "alaw")),
    ],
)
def test_forms_of_audio(format_: dict[str, Any], expected: tuple[int, str]) -> None:
    client = talk()
    client.send(update(format=format_))
    options = client.commands[0]
    assert isinstance(options, Start)
    assert (options.sample_rate, options.sample_format) == expected


def test_a_commit_closes_an_item() -> None:
    client = talk()
    client.send(MANUAL)
    frames = client.send(APPEND, APPEND, COMMIT)
    assert types(frames) == [
        "added",
        "input_audio_transcription.delta",
        "input_audio_transcription.delta",
        "input_audio_buffer.committed",
        "done",
        "input_audio_transcription.completed",
    ]
    completed = frames[-1]
    assert completed["transcript"] == "w1 w2"
    assert completed["usage"] == {"type": "duration", "seconds": 2.0}
    assert completed["words"][1] == {"word": "w2", "start": 1.5, "end": 2.0, "confidence": 0.5}
    first = frames[3]["item_id"]
    assert {f.get("item_id", first) for f in frames} == {first}
    again = client.send(APPEND, COMMIT)
    assert again[-1]["transcript"] == "w3"
    assert again[-1]["usage"]["seconds"] == 1.0
    assert next(f for f in again if "committed" in f["type"])["previous_item_id"] == first


def test_words_that_come_late_belong_to_the_item_that_was_committed_first() -> None:
    client = talk()
    client.send(MANUAL)
    client.holds = True
    (first, second) = client.send(APPEND, COMMIT, APPEND, COMMIT)  # answered at once
    assert client.release()
    done = client.of(f"{TRANSCRIPTION}.completed")
    assert [(d["item_id"], d["transcript"]) for d in done] == [
        (first["item_id"], "w1"),
        (second["item_id"], "w2"),
    ]
    assert second["previous_item_id"] == first["item_id"]


def test_turns_by_voice_detection() -> None:
    client = talk()
    frames = client.send(APPEND, APPEND)  # without any options: those of the service
    assert types(frames) == [
        "input_audio_buffer.speech_started",
        "added",
        "input_audio_transcription.delta",
        "input_audio_transcription.delta",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "done",
        "input_audio_transcription.completed",
    ]
    assert frames[0]["audio_start_ms"] == 500
    assert frames[4]["audio_end_ms"] == 2000
    assert len({f["item_id"] for f in frames if "item_id" in f}) == 1
    (again,) = [f for f in client.send(APPEND) if f["type"].endswith("speech_started")]
    assert again["item_id"] != frames[0]["item_id"]


def test_a_turn_that_ends_before_its_commit_is_carried_out_ends_with_the_commit() -> None:
    client = talk()
    client.send(APPEND)
    client.holds = True
    client.send(COMMIT)
    ended = client.tell(SpeechEnded(1.2))
    assert types(ended) == ["input_audio_buffer.speech_stopped"]
    assert types(client.release())[-1] == "input_audio_transcription.completed"
    assert len(client.of(f"{TRANSCRIPTION}.completed")) == 1


def test_speech_that_starts_before_a_commit_is_carried_out_ends_no_item() -> None:
    client = talk()
    client.send(APPEND)
    client.holds = True
    client.send(COMMIT)
    started = client.tell(SpeechStarted(2.0))
    assert types(started) == ["input_audio_buffer.speech_started"]
    client.release()
    assert len(client.of(f"{TRANSCRIPTION}.completed")) == 1


def test_words_outside_of_speech_are_an_item_of_their_own() -> None:
    client = talk()
    client.send(update())
    client.tell(Word(" so", 0.1, 0.3))
    frames = client.tell(SpeechStarted(1.0))
    assert types(frames)[-2:] == [
        "input_audio_transcription.completed",
        "input_audio_buffer.speech_started",
    ]
    assert frames[-2]["item_id"] != frames[-1]["item_id"]


def test_clear_forgets_the_open_item() -> None:
    client = talk()
    client.send(MANUAL, APPEND)
    assert types(client.send(CLEAR)) == ["input_audio_buffer.cleared"]
    refused = client.send({**COMMIT, "event_id": "e1"})[0]
    assert refused["error"]["code"] == "input_audio_buffer_commit_empty"
    assert refused["error"]["event_id"] == "e1"
    assert client.send(APPEND, COMMIT)[-1]["transcript"] == "w2"


def test_logprobs_where_they_are_asked_for() -> None:
    client = talk()
    client.send(MANUAL, APPEND)
    assert "logprobs" not in client.of(f"{TRANSCRIPTION}.delta")[0]
    include = ["item.input_audio_transcription.logprobs"]
    client.send({"type": "session.update", "session": {"include": include}}, APPEND, COMMIT)
    assert client.of(f"{TRANSCRIPTION}.delta")[1]["logprobs"][0]["token"] == " w2"
    assert len(client.of(f"{TRANSCRIPTION}.completed")[0]["logprobs"]) == 2


def test_the_beta() -> None:
    dialect = OpenAIRealtime(Handshake("r", {}, {"openai-beta": "realtime=v1"}), SERVICE)
    client = Talk(dialect)
    (updated,) = client.send(
        beta(
            input_audio_format="g711_ulaw",
            input_audio_transcription={"model": "gpt-4o-transcribe"},
            turn_detection=None,
        )
    )
    assert updated["type"] == "transcription_session.updated"
    assert updated["session"]["input_audio_format"] == "g711_ulaw"
    assert client.commands == [Start(sample_rate=8000, sample_format="mulaw")]
    frames = types(client.send(APPEND, COMMIT))
    assert frames[0] == "created"
    assert "done" not in frames


@pytest.mark.parametrize(
    ("event", "param"),
    [
        (update(format={"type": "audio/mp3"}), "session.audio.input.format.type"),
        (update(format={"type": "audio/pcm", "rate": 7}), "session.audio.input.format.rate"),
        (update(transcription={"model": "other"}), "model"),
        (update(transcription={"delay": "soon"}), "session.audio.input.transcription.delay"),
        (update(transcription=[]), "session.audio.input.transcription"),
        (update(turn_detection={"type": "x"}), "session.audio.input.turn_detection.type"),
        (
            update(turn_detection={"type": "server_vad", "silence_duration_ms": 1}),
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
        ({"type": "session.update", "session": {"type": "realtime"}}, "session.type"),
        ({"type": "session.update", "session": 1}, "session"),
        (beta(input_audio_format="mp3"), "session.input_audio_format"),
        ({"type": "response.create"}, "type"),
        ({}, "type"),
        ({"type": "input_audio_buffer.append", "audio": "?"}, "audio"),
        ({"type": "input_audio_buffer.append"}, "audio"),
    ],
)
def test_refusals_change_nothing(event: dict[str, Any], param: str) -> None:
    client = talk()
    (refused,) = client.send(event)
    assert refused["type"] == "error"
    assert refused["error"]["param"] == param
    assert refused["error"]["type"] in ("invalid_request_error", "not_found_error")
    assert client.commands == []
    assert client.send(MANUAL, APPEND, COMMIT)[-1]["transcript"] == "w1"


@pytest.mark.parametrize("frame", ["", "[]", "nonsense", b"\0\1", "[" * 100_000, '{"type": NaN}'])
def test_frames_that_are_no_events(frame: str | bytes) -> None:
    (refused,) = talk().send(frame)
    assert refused["error"]["code"] == "invalid_json"


def test_options_that_the_model_does_not_take_leave_those_before() -> None:
    client = talk()
    client.refuses = lambda options: options.prompt is not None
    assert types(client.send(FULL)) == ["error"]
    assert types(client.send(APPEND))[0] == "input_audio_buffer.speech_started"
    (refused,) = client.send(FULL)
    assert refused["type"] == "error"
    assert client.send(MANUAL)[0]["session"]["audio"]["input"]["format"]["rate"] == 24000


def test_a_problem_of_the_server_is_an_error() -> None:
    client = talk()
    (refused,) = client.tell(Failed(Problem("idle", "idle_timeout", 408)))
    assert refused["error"]["code"] == "idle_timeout"


def test_an_unknown_model_in_the_url_is_refused() -> None:
    with pytest.raises(Problem, match="no model 'other'") as refused:
        Realtime(Handshake("r", {"model": ("other",)}), SERVICE)
    assert refused.value.status == 404
    Realtime(Handshake("r", {"model": ("gpt-4o-transcribe",)}), SERVICE)


VALID = [update(), MANUAL, FULL, beta(input_audio_format="pcm16"), APPEND, APPEND, COMMIT, CLEAR]


@settings(max_examples=200, deadline=None)
@given(
    frames=hostile(VALID),
    refuses=st.booleans(),
    holds=st.booleans(),
)
def test_hostile_clients(frames: list[str | bytes], refuses: bool, holds: bool) -> None:
    client = talk()
    client.refuses = lambda options: refuses and options.language is not None
    client.holds = holds
    for frame in frames:
        client.send(frame)
        if isinstance(frame, str) and len(frame) % 3 == 0:
            client.release()
    client.release()
    check(client)


def check(client: Talk) -> None:
    """Every item is committed once, completed once, and its deltas are its transcript."""
    committed = [frame["item_id"] for frame in client.of("input_audio_buffer.committed")]
    completed = client.of(f"{TRANSCRIPTION}.completed")
    names = [frame["item_id"] for frame in completed]
    assert len({*committed}) == len(committed)
    assert names == committed[: len(names)]
    commits = sum(isinstance(command, Commit) for command in client.commands)
    assert len(completed) >= commits - (client.closed is not None)
    if any("clear" in frame["type"] for frame in client.frames):
        return
    for frame in completed:
        deltas = [
            f["delta"]
            for f in client.of(f"{TRANSCRIPTION}.delta")
            if f["item_id"] == frame["item_id"]
        ]
        assert "".join(deltas) == frame["transcript"]


def test_audio_reaches_the_session_as_it_is() -> None:
    client = talk()
    client.send(MANUAL, APPEND)
    assert client.commands[-1] == Audio(b"\1\2")

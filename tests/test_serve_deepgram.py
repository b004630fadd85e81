"""Deepgram's dialect alone: what the query asks for, results and their times, hostile frames."""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxfast.serve.deepgram import DeepgramDialect
from voxfast.serve.deepgram_query import deepgram_error, listening
from voxfast.serve.dialect import (
    Action,
    Audio,
    Close,
    Commit,
    Committed,
    Event,
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
    Tentative,
)
from voxfast.timed import Segment, Word
from voxfast.vad import SpeechEnded, SpeechStarted

SERVICE = Service("voxtral-numbers", delays_ms=(240, 480))
PCM = {"encoding": "linear16", "sample_rate": "16000"}
ONE, TWO = Word(" “One,”", 0.1, 0.3, 0.9), Word(" two", 0.4, 0.7, 0.8)


def shake(**query: str | tuple[str, ...]) -> Handshake:
    items = {**PCM, **query}.items()
    return Handshake("r1", {n: (v,) if isinstance(v, str) else v for n, v in items if v != ()})


def dialect(**query: str | tuple[str, ...]) -> DeepgramDialect:
    made = DeepgramDialect(shake(**query), SERVICE)
    assert [type(action) for action in made.open()] == [Start]
    assert messages(made.event(Started())) == []
    return made


def messages(actions: Iterable[Action]) -> list[dict]:
    return [json.loads(action.frame) for action in actions if isinstance(action, Send)]


def told(made: DeepgramDialect, *events: Event) -> list[dict]:
    return [message for event in events for message in messages(made.event(event))]


def text(result: dict) -> str:
    return result["channel"]["alternatives"][0]["transcript"]


# -- The query


def test_the_query_of_the_real_client() -> None:
    asked = listening(
        shake(
            channels="2",
            endpointing="450",
            interim_results="true",
            keyterm=("customer service", "voxfast"),
            keywords=("nought:1.5", "naught"),
            language="en-US",
            model="nova-3",
            smart_format="true",
            utterance_end_ms="1000",
            vad_events="true",
            delay_ms="240",
        ),
        SERVICE,
    )
    assert asked.start == Start(
        sample_rate=16000,
        sample_format="s16le",
        channels=2,
        language="en-US",
        vocabulary=("customer service", "voxfast", "nought", "naught"),
        endpoint_ms=450,
        delay_ms=240,
    )
    assert (asked.interim, asked.tells_end, asked.tells_start) == (True, True, True)
    assert asked.utterance_end == 1.0


@pytest.mark.parametrize(
    ("query", "endpoint_ms", "tells_end"),
    [
        ({}, 300, True),
        ({"endpointing": "true"}, 300, True),
        ({"endpointing": "10"}, 100, True),  # shorter pauses are inside of words
        ({"endpointing": "0"}, 100, True),
        ({"endpointing": "false"}, None, False),
        ({"endpointing": "false", "vad_events": "true"}, 1500, False),
        (
            {"endpointing": "False", "utterance_end_ms": "2000", "interim_results": "true"},
            2000,
            False,
        ),
    ],
)
def test_endpointing(query: dict, endpoint_ms: float | None, tells_end: bool) -> None:
    asked = listening(shake(**query), SERVICE)
    assert (asked.start.endpoint_ms, asked.tells_end) == (endpoint_ms, tells_end)


@pytest.mark.parametrize(
    ("query", "rate", "form"),
    [
        ({"encoding": "mulaw", "sample_rate": ()}, 8000, "mulaw"),
        ({"encoding": "alaw", "sample_rate": "16000"}, 16000, "alaw"),
        ({"encoding": "linear32", "sample_rate": "48000"}, 48000, "s32le"),
    ],
)
def test_encodings(query: dict, rate: int, form: str) -> None:
    start = listening(shake(**query), SERVICE).start
    assert (start.sample_rate, start.sample_format) == (rate, form)


@pytest.mark.parametrize(
    ("query", "param", "says"),
    [
        ({"encoding": "g729"}, "encoding", "linear16"),
        ({"encoding": ()}, "encoding", "container"),
        ({"sample_rate": ()}, "sample_rate", "needs a sample_rate"),
        ({"sample_rate": "1e4"}, "sample_rate", "1000 to"),
        ({"sample_rate": "١٦٠٠٠"}, "sample_rate", "1000 to"),
        ({"sample_rate": "9" * 5000}, "sample_rate", "1000 to"),
        ({"channels": "0"}, "channels", "1 to 8"),
        ({"multichannel": "true"}, "multichannel", "does not"),
        ({"diarize": "true"}, "diarize", "does not"),
        ({"redact": ("pci", "ssn")}, "redact", "does not"),
        ({"callback": "http://example.org"}, "callback", "does not"),
        ({"interim_results": "yes"}, "interim_results", "true or false"),
        ({"endpointing": "-1"}, "endpointing", "0 to"),
        ({"utterance_end_ms": "1000"}, "utterance_end_ms", "interim_results"),
        ({"utterance_end_ms": "10", "interim_results": "true"}, "utterance_end_ms", "1000"),
        ({"keywords": "um:-3"}, "keywords", "suppressed"),
        ({"keywords": ""}, "keywords", "letters"),
        ({"model": "flux-general-en"}, "model", "voxtral-numbers"),
        ({"delay_ms": "soon"}, "delay_ms", "0 to"),
    ],
)
def test_what_is_refused(query: dict, param: str, says: str) -> None:
    with pytest.raises(Problem, match=says) as refused:
        DeepgramDialect(shake(**query), SERVICE)
    assert refused.value.param == param
    body = deepgram_error(refused.value, "r1")
    assert body == {
        "err_code": refused.value.code.upper(),
        "err_msg": refused.value.message,
        "request_id": "r1",
    }


def test_what_changes_nothing_is_accepted() -> None:
    listening(shake(diarize="false", profanity_filter="true", tag=("a", "b"), new="x"), SERVICE)


# -- Results


def test_a_turn() -> None:
    made = dialect(interim_results="true", vad_events="true")
    got = told(
        made,
        SpeechStarted(0.05),
        ONE,
        Tentative(" tw"),
        Processed(0.6),
        Processed(0.7),  # nothing is new
        TWO,
        Segment((ONE, TWO)),
        SpeechEnded(0.8),
        Tentative(""),
        Processed(1.1),
    )
    assert [message["type"] for message in got] == ["SpeechStarted", "Results", "Results"]
    started, interim, final = got
    assert (started["timestamp"], started["channel"]) == (0.05, [0])
    assert (interim["is_final"], interim["speech_final"], text(interim)) == (
        False,
        False,
        "“One,” tw",
    )
    assert (interim["start"], interim["duration"]) == (0.0, 0.6)
    assert (final["is_final"], final["speech_final"], text(final)) == (True, True, "“One,” two")
    assert (final["start"], final["duration"], final["channel_index"]) == (0.0, 0.8, [0, 1])
    (alternative,) = final["channel"]["alternatives"]
    assert alternative["confidence"] == 0.85
    assert alternative["words"][0] == {
        "word": "one",
        "start": 0.1,
        "end": 0.3,
        "confidence": 0.9,
        "punctuated_word": "“One,”",
        "text": " “One,”",
    }
    assert final["metadata"]["request_id"] == "r1"
    assert final["metadata"]["model_info"]["name"] == "voxtral-numbers"


def test_interim_results_are_replaceable_and_only_sent_if_asked_for() -> None:
    made = dialect(interim_results="true")
    (interim,) = [*made.event(Processed(1.0))]
    assert isinstance(interim, Send)
    assert interim.may_skip
    assert [*dialect().event(Processed(1.0))] == []


def test_a_sentence_ends_a_result_and_no_turn() -> None:
    made = dialect()
    got = told(made, ONE, Segment((ONE,)), TWO, Processed(1.0), Finished(1.2))
    assert [(m["type"], m.get("speech_final")) for m in got] == [
        ("Results", False),
        ("Results", True),
        ("Metadata", None),
    ]
    assert [text(m) for m in got[:2]] == ["“One,”", "two"]
    assert (got[0]["start"], got[0]["duration"]) == (0.0, 0.3)
    assert (got[1]["start"], got[1]["duration"]) == (0.3, 0.9)


def test_results_of_long_speech_end_after_five_seconds() -> None:
    words = [Word(f" w{i}", i * 0.5, i * 0.5 + 0.4, 0.9) for i in range(30)]
    got = told(dialect(endpointing="false"), *words, Finished(20.0))
    results = [message for message in got if message["type"] == "Results"]
    assert len(results) == 3
    assert " ".join(map(text, results)) == " ".join(word.text.strip() for word in words)
    assert not any(result["speech_final"] for result in results)
    for before, after in itertools.pairwise(results):
        assert before["duration"] <= 5.5
        assert after["start"] == pytest.approx(before["start"] + before["duration"])


def test_finalize_answers_though_there_is_nothing() -> None:
    made = dialect()
    assert [*made.receive('{"type": "Finalize"}')] == [Commit()]
    first, second = told(made, ONE, Segment((ONE,)), Processed(0.9), Committed(1.0), Committed(2.0))
    assert (first["from_finalize"], first["is_final"], text(first)) == (True, True, "“One,”")
    assert (second["from_finalize"], text(second), second["start"]) == (True, "", 1.0)
    assert [*made.receive('{"type": "Finalize", "channel": 0}')] == [Commit()]
    (error,) = messages(made.receive('{"type": "Finalize", "channel": 1}'))
    assert error["type"] == "Error"


@pytest.mark.parametrize(("speaks", "late"), [(False, 0.0), (True, 1.0)])
def test_utterance_end_comes_once_after_the_last_word(speaks: bool, late: float) -> None:
    made = dialect(interim_results="true", utterance_end_ms="1000", endpointing="false")
    got = told(made, *([SpeechStarted(0.1)] if speaks else []), TWO, Processed(1.6 + late))
    assert "UtteranceEnd" not in [message["type"] for message in got]
    got = told(made, Processed(1.75 + late), Processed(3.0 + late))
    kinds = [(message["type"], message.get("is_final")) for message in got]
    assert kinds[:2] == [("Results", True), ("UtteranceEnd", None)]
    assert (got[1]["last_word_end"], got[1]["channel"]) == (0.7, [0, 1])
    assert kinds.count(("UtteranceEnd", None)) == 1


def test_text_that_may_still_change_delays_utterance_end() -> None:
    made = dialect(interim_results="true", utterance_end_ms="1000")
    got = told(made, TWO, Tentative(" th"), Processed(5.0))
    assert [message["type"] for message in got] == ["Results"]


def test_metadata_is_last() -> None:
    made = dialect()
    assert [*made.receive(b"12"), *made.receive(b"345")] == [Audio(b"12"), Audio(b"345")]
    assert [*made.receive('{"type": "CloseStream"}')] == [Finish()]
    assert [*made.receive(b"678"), *made.receive("x")] == []  # too late
    *frames, last = made.event(Finished(2.5))
    (metadata,) = messages(frames)
    assert last == Close(1000)
    assert metadata["type"] == "Metadata"
    assert metadata["sha256"] == hashlib.sha256(b"12345").hexdigest()
    assert (metadata["duration"], metadata["channels"], metadata["request_id"]) == (2.5, 1, "r1")


def test_white_space_is_no_word_and_not_lost() -> None:
    made = dialect()
    words = [Word(" ", 0.0, 0.1, 1.0), Word("一", 0.1, 0.2, 0.5), Word("二", 0.2, 0.3, None)]
    (result,) = told(made, *words, Committed(1.0))
    (alternative,) = result["channel"]["alternatives"]
    assert alternative["transcript"] == "一二"
    assert [word["text"] for word in alternative["words"]] == [" 一", "二"]


# -- Messages


def test_configure() -> None:
    made = dialect(keyterm="one")
    assert [*made.receive(b"ab")] == [Audio(b"ab")]
    (start,) = made.receive('{"type": "Configure", "keyterms": ["two", "three"]}')
    assert isinstance(start, Start)
    assert start.vocabulary == ("two", "three")
    (busy,) = messages(made.receive('{"type": "Configure", "keyterms": []}'))
    assert busy["code"] == "CONFIGURE_ALREADY_PENDING"
    (done,) = told(made, Started())
    assert (done["type"], done["keyterms"]) == ("ConfigureSuccess", ["two", "three"])
    assert told(made, Started()) == []
    (start,) = made.receive('{"type": "Configure", "keyterms": ["x"]}')
    assert isinstance(start, Start)
    problem = Problem("no vocabulary", "invalid_value")
    (error,) = told(made, Failed(problem, False, Audio(b"12")))  # of something else
    assert error["type"] == "Error"
    (failure,) = told(made, Failed(problem, False, start))
    assert (failure["type"], failure["code"], failure["description"]) == (
        "ConfigureFailure",
        "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
        "no vocabulary",
    )
    for wrong in ('"keyterms": [1]', '"keyterms": "a"', '"features": {"numerals": true}'):
        (failure,) = messages(made.receive(f'{{"type": "Configure", {wrong}}}'))
        assert failure["type"] == "ConfigureFailure"


def test_configure_before_the_session_is_open() -> None:
    made = DeepgramDialect(shake(), SERVICE)
    made.open()
    (start,) = made.receive('{"type": "Configure", "keyterms": ["two"]}')
    assert told(made, Started()) == []
    problem = Problem("no vocabulary", "invalid_value")
    (failure,) = told(made, Failed(problem, False, start))
    assert failure["type"] == "ConfigureFailure"


def test_errors() -> None:
    for frame in ("", "{", "[1]", '"KeepAlive"', '{"type": ["x"]}', "[" * 100_000, "NaN"):
        (error,) = messages(dialect().receive(frame))
        assert error["type"] == "Error"
        assert error["variant"]
        assert error["description"]
    made = dialect()
    assert [*made.receive('{"type": "KeepAlive"}'), *made.receive(b"")] == []
    (error,) = told(made, Failed(Problem("too much", "audio_too_long", 413)))
    assert (error["variant"], error["description"]) == ("AUDIO_TOO_LONG", "too much")
    (close,) = made.event(Failed(Problem("nothing came", "idle_timeout", 408)))
    assert isinstance(close, Close)
    assert close.code == 1011
    assert close.reason.startswith("NET-0001")
    assert len(close.reason.encode()) <= 120


@pytest.mark.parametrize("code", ["audio_too_long", "idle_timeout"])
def test_the_words_until_an_end_by_a_problem_are_sent(code: str) -> None:
    made = dialect(endpointing="false")
    assert told(made, ONE, TWO) == []
    problem = Problem("no more", code)
    found = told(made, Failed(problem))
    assert text(found[0]) == "“One,” two"
    assert found[0]["is_final"]
    assert [message["type"] for message in found[1:]] == ["Error"] * (code != "idle_timeout")


def test_options_that_the_model_does_not_take_close_the_connection() -> None:
    made = DeepgramDialect(shake(keyterm="x"), SERVICE)
    made.open()
    error, close = made.event(Failed(Problem("no vocabulary", "invalid_value"), is_final=False))
    assert isinstance(error, Send)
    assert json.loads(error.frame)["description"] == "no vocabulary"
    assert close == Close(1008, "no vocabulary")


# -- Whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KINDS = st.sampled_from(["KeepAlive", "Finalize", "CloseStream", "Configure", "Results", 1, None])
FRAMES = st.one_of(
    st.binary(max_size=50),
    st.text(max_size=50),
    JSON.map(json.dumps),
    st.fixed_dictionaries(
        {"type": KINDS}, optional={"channel": JSON, "keyterms": JSON, "features": JSON}
    ).map(json.dumps),
)
TIMES = st.floats(0, 100)
WORDS = st.builds(Word, st.text(max_size=6), TIMES, TIMES, st.none() | st.floats(0, 1))
EVENTS = st.one_of(
    WORDS,
    st.builds(Segment, st.tuples(WORDS)),
    st.builds(SpeechStarted, TIMES),
    st.builds(SpeechEnded, TIMES),
    st.builds(Tentative, st.text(max_size=5)),
    st.builds(Processed, TIMES),
    st.builds(Committed, TIMES),
    st.builds(Finished, TIMES),
    st.just(Started()),
    st.builds(Failed, st.just(Problem("no")), st.booleans()),
)
ANSWERS = {"Results", "SpeechStarted", "Error", "Metadata", "ConfigureSuccess", "ConfigureFailure"}
FLAG = st.sampled_from(["true", "false"])


@given(
    st.fixed_dictionaries(
        {"interim_results": FLAG, "vad_events": FLAG, "endpointing": FLAG | st.just("300")}
    ),
    st.lists(FRAMES | EVENTS, max_size=30),
)
def test_whatever_comes_is_answered_in_form_and_no_word_is_lost(query: dict, steps: list) -> None:
    made = DeepgramDialect(shake(**query), SERVICE)
    given_words, final = [], []
    for step in [*steps, Finished(100.0)]:
        is_frame = isinstance(step, str | bytes)
        actions = [*(made.receive(step) if is_frame else made.event(step))]
        if isinstance(step, Word) and step.text.strip():
            given_words.append(step.text.strip())
        for message in messages(actions):
            assert message["type"] in ANSWERS
            if message["type"] == "Results":
                assert message["duration"] >= 0
                (alternative,) = message["channel"]["alternatives"]
                if message["is_final"]:
                    final += [word["punctuated_word"] for word in alternative["words"]]
    assert final == given_words


@given(st.dictionaries(st.sampled_from([*PCM, "endpointing", "keywords", "channels"]), st.text()))
def test_any_query_is_taken_or_refused(query: dict) -> None:
    with contextlib.suppress(Problem):
        start = listening(shake(**query), SERVICE).start
        assert 1000 <= start.sample_rate <= 192_000
        assert 1 <= start.channels <= 8

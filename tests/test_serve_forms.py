"""OpenAI's HTTP interface without a server: fields, and the forms of a transcript."""

import json
import math

import pytest

from voxfast.formats import to_srt, to_vtt
from voxfast.serve import forms
from voxfast.serve.dialect import Problem
from voxfast.serve.forms import Wanted, read_fields, to_body
from voxfast.serve.pieces import Pieces
from voxfast.timed import Transcript, Word

WORDS = (Word(" open", 0.1, 0.5, 0.5), Word(" door", 0.6, 1.0, None), Word(" now", 3.0, 3.2, 0.25))
TRANSCRIPT = Transcript(WORDS, 4.0, "m", "English")


def test_fields() -> None:
    wanted = read_fields(
        [
            ("model", "whisper-1"),
            ("response_format", "verbose_json"),
            ("timestamp_granularities[]", "word"),
            ("language", "en"),
            ("prompt", "names"),
            ("keywords[]", "door"),
            ("keywords[]", "window"),
            ("stream", "true"),
            ("temperature", "0"),
            ("delay_ms", "480"),
            ("chunking_strategy[type]", "server_vad"),
            ("chunking_strategy[silence_duration_ms]", "300"),
            ("unknown", "x"),
        ]
    )
    assert wanted == Wanted(
        model="whisper-1",
        format="verbose_json",
        stream=True,
        language="en",
        prompt="names",
        vocabulary=("door", "window"),
        delay_ms=480,
        endpoint_ms=300,
        words=True,
        segments=False,
    )
    assert read_fields([]) == Wanted()
    assert read_fields([("languages[]", "en"), ("languages[]", "de")]).language is None
    assert read_fields([("include[]", "logprobs")]).logprobs
    assert read_fields([("chunking_strategy", "auto")]).endpoint_ms is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("response_format", "diarized_json")], "response_format"),
        ([("known_speaker_names[]", "a")], "known_speaker_names"),
        ([("timestamp_granularities[]", "word")], "timestamp_granularities"),
        (
            [("response_format", "verbose_json"), ("timestamp_granularities[]", "x")],
            "timestamp_granularities",
        ),
        ([("include[]", "x")], "include"),
        ([("include[]", "logprobs"), ("response_format", "text")], "include"),
        ([("stream", "maybe")], "stream"),
        ([("delay_ms", "-1")], "delay_ms"),
        ([("delay_ms", "99999")], "delay_ms"),
        ([("delay_ms", "9" * 5000)], "delay_ms"),
        ([("language", "x" * 300)], "language"),
        ([("keywords[]", "x")] * 1001, "keywords"),
        ([("chunking_strategy", "other")], "chunking_strategy"),
    ],
)
def test_fields_that_cannot_be(fields: list[tuple[str, str]], param: str) -> None:
    with pytest.raises(Problem) as refused:
        read_fields(fields)
    assert refused.value.param == param
    assert refused.value.status == 400


def test_whole_answers() -> None:
    text, media = to_body(Wanted(), TRANSCRIPT)
    assert media == "application/json"
    assert json.loads(text) == {
        "text": "open door now",
        "usage": {"type": "duration", "seconds": 4.0},
    }
    assert to_body(Wanted(format="text"), TRANSCRIPT)[0] == "open door now\n"
    assert to_body(Wanted(format="srt"), TRANSCRIPT)[0] == to_srt(TRANSCRIPT)
    assert to_body(Wanted(format="vtt"), TRANSCRIPT)[0] == to_vtt(TRANSCRIPT)


def test_verbose_answers() -> None:
    text, _ = to_body(Wanted(format="verbose_json", words=True), TRANSCRIPT)
    document = json.loads(text)
    assert document["language"] == "English"
    assert document["duration"] == 4.0
    assert [segment["text"] for segment in document["segments"]] == ["open door", "now"]
    assert document["segments"][1]["avg_logprob"] == pytest.approx(math.log(0.25), abs=1e-5)
    assert document["words"][0] == {"word": "open", "start": 0.1, "end": 0.5, "confidence": 0.5}
    assert document["words"][1]["confidence"] is None
    text, _ = to_body(Wanted(format="verbose_json", segments=False), TRANSCRIPT)
    assert not {"segments", "words"} & json.loads(text).keys()


def test_logprobs() -> None:
    document = json.loads(to_body(Wanted(logprobs=True), TRANSCRIPT)[0])
    assert [each["token"] for each in document["logprobs"]] == [" open", " now"]
    assert document["logprobs"][0]["logprob"] == pytest.approx(math.log(0.5), abs=1e-5)
    assert bytes(document["logprobs"][0]["bytes"]) == b" open"
    assert math.isfinite(forms.logarithm(0.0))


def test_odd_text_is_valid_json() -> None:
    odd = Transcript((Word(' \ud800 "x"\n', 0, 1, 1.0),), 1.0)
    assert json.loads(to_body(Wanted(format="json"), odd)[0].encode())["text"].endswith('"x"')
    assert forms.server_sent({"delta": "a\n\nb"}).count(b"\n\n") == 1


def test_pieces_joined_are_the_transcript() -> None:
    for texts in ([" a", " b"], [" ", " a", "b"], ["", " ", "  a"], [" "], []):
        pieces = Pieces()
        said = [pieces.add(Word(text, 0.0, 1.0)) for text in texts]
        assert "".join(said) == pieces.text == "".join(texts).strip()
        assert [word.text for word in pieces.words] == texts

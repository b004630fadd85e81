"""A recording joined behind another is heard, or an error says that it is not."""

import io

import numpy as np
import pytest
import soundfile
from encoded import CONTAINERS, Pipe, chirp, encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from test_audio import drain

from voxfast import _joined, audio

FIRST = [*CONTAINERS, "vorbis", "wav"]
# Each begins in another way; MP3 without an index with a frame, as its audio goes on.
SECOND = ["wav", "m4a", "mp3", "mp3-no-index", "flac", "opus", "webm", "aiff", "wavpack", "tta"]
SECONDS = 1.5


def recording(name: str) -> bytes:
    if name != "wav":
        return encoded(name, SECONDS)
    file = io.BytesIO()
    soundfile.write(file, chirp(SECONDS, 44100, 2), 44100, format="WAV")
    return file.getvalue()


def is_heard_or_told(got: np.ndarray, failure: object) -> bool:
    return failure is not None or len(got) >= 1.9 * SECONDS * audio.SAMPLE_RATE


@pytest.mark.parametrize("first", FIRST)
def test_a_second_recording_is_heard_or_told(first, tmp_path):
    path = tmp_path / "joined"
    for second in {first, *SECOND}:
        data = recording(first) + recording(second)
        path.write_bytes(data)
        for blocks in (audio.stream_file(path), audio.stream_pcm(Pipe(data))):
            got, failure = drain(blocks)
            assert len(got) >= 0.9 * SECONDS * audio.SAMPLE_RATE
            assert is_heard_or_told(got, failure), second


def test_the_error_tells_where_to_cut(tmp_path):
    first, second = recording("m4a"), recording("flac")
    (tmp_path / "joined").write_bytes(first + second)
    _, failure = drain(audio.stream_file(tmp_path / "joined"))
    assert f"from byte {len(first)} on" in str(failure)


@pytest.mark.parametrize("first", FIRST)
def test_tags_and_padding_behind_are_no_recording(first, tmp_path):
    path = tmp_path / "tagged"
    id3 = b"ID3\x03\0\0\0\0\x02\x00" + b"TIT2" + bytes(252)
    for tail in (b"TAG" + bytes(125), bytes(4096), b"APETAGEX\xd0\x07\0\0" + bytes(20), id3):
        path.write_bytes(recording(first) + tail)
        for blocks in (audio.stream_file(path), audio.stream_pcm(Pipe(path.read_bytes()))):
            _, failure = drain(blocks)
            assert "another recording" not in str(failure)


def test_a_tag_behind_wav_is_no_audio(tmp_path):
    tag = b"ID3\x03\0\0\0\0\x02\x00" + b"TIT2" + bytes(252)
    (tmp_path / "tagged.wav").write_bytes(recording("wav") + tag)
    assert len(audio.load_audio(tmp_path / "tagged.wav")) == SECONDS * audio.SAMPLE_RATE


def test_a_beginning_behind_thousands_is_told():
    """What is remembered of a pipe is bounded; that something follows is not forgotten."""
    watcher = _joined.Watcher(io.BytesIO(b"TTA1\x01\0" * 3000 + bytes(100)).read)
    while watcher.some(4096):
        pass
    assert watcher.second("wv", 0, range(17_000, 17_500)) is not None
    assert watcher.second("wv", 0, range(18_000, 18_050)) is None


@settings(deadline=None)  # the first of a kind is encoded on the way
@given(
    noise=st.binary(max_size=200),
    kind=st.sampled_from(["m4a", "flac", "opus", "webm", "wma", "wavpack", "mp3", "caf", "au"]),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=5),
)
def test_a_beginning_is_found_however_it_is_split(noise, kind, sizes):
    whole_file = encoded(kind)
    begin = whole_file.index(b"\xff\xfb") if kind == "mp3" else 0  # behind its tag
    data = noise + whole_file[begin : begin + 300]
    scanner, whole = _joined.Scanner(), _joined.Scanner()
    found, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += scanner.step(data[at : at + size])
        at, turn = at + size, turn + 1
    assert sorted(found) == sorted(whole.step(data))
    assert len(noise) in [place for place, _ in found]

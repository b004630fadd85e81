"""Pipes: what comes in is decoded as it comes, and what is no audio is refused by name."""

import gzip
import io
import lzma
import os
import struct
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from encoded import CONTAINERS, Pipe, chirp, encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from test_audio import drain, quick, tone

from voxfast import _pcm, audio
from voxfast.errors import AudioFileError, InvalidAudioError


def wav_bytes(samples: np.ndarray, rate: int, **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=options.pop("format", "WAV"), **options)
    return file.getvalue()


def with_data_size(wav: bytes, size: int) -> bytes:
    at = wav.index(b"data") + 4
    return wav[:at] + struct.pack("<I", size) + wav[at + 4 :]


sizes = st.lists(st.integers(1, 5000), min_size=1, max_size=5)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@given(
    sizes=sizes,
    rate=st.sampled_from([8000, 16000, 44100]),
    channels=st.integers(1, 3),
    placeholder=st.sampled_from([None, 0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000]),
)
@settings(parent=quick, max_examples=8)
def test_wav_on_a_pipe_is_the_file(tmp_path, subtype, sizes, rate, channels, placeholder):
    data = wav_bytes(tone(0.1, rate, channels), rate, subtype=subtype)
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    if placeholder is not None:
        data = with_data_size(data, placeholder)
        # After samples of unknown length nothing can follow.
        data = data[: data.index(b"data") + 8 + round(0.1 * rate) * channels * _width(subtype)]
    got, failure = drain(audio.stream_pcm(Pipe(data, sizes)))
    assert failure is None
    np.testing.assert_array_equal(got, audio.load_audio(path))


def _width(subtype: str) -> int:
    return {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}[subtype]


def test_wav_on_a_pipe_is_live():
    data = with_data_size(wav_bytes(tone(1.0, 16000), 16000), 0xFFFFFFFF)
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb", buffering=0) as writer:
        blocks = audio.stream_pcm(reader)
        writer.write(data[: 44 + 640])
        assert len(next(blocks)) == 320
        writer.write(data[44 + 640 : 44 + 1280])
        assert len(next(blocks)) == 320


def test_wav_with_other_chunks_and_rf64():
    samples = tone(0.2, 16000)
    plain = wav_bytes(samples, 16000)
    expected, _ = drain(audio.stream_pcm(io.BytesIO(plain)))
    odd = plain[:12] + b"LIST" + struct.pack("<I", 5) + b"12345\0" + plain[12:] + b"id3 junk"
    got, failure = drain(audio.stream_pcm(io.BytesIO(odd)))
    np.testing.assert_array_equal(got, expected)
    assert failure is None
    got, failure = drain(audio.stream_pcm(io.BytesIO(wav_bytes(samples, 16000, format="RF64"))))
    np.testing.assert_array_equal(got, expected)
    assert failure is None


def test_raw_pcm():
    samples = (tone(0.5, 16000)[:, 0] * 32767).astype("<i2")
    got, failure = drain(audio.stream_pcm(Pipe(samples.tobytes(), [3, 1000, 7])))
    assert failure is None
    np.testing.assert_array_equal(got, samples.astype(np.float32) / 32768)
    floats = tone(0.5, 8000)[:, 0]
    got, failure = drain(
        audio.stream_pcm(Pipe(floats.tobytes(), [13]), raw_rate=8000, raw_format="f32le")
    )
    assert failure is None
    np.testing.assert_array_equal(got, audio.resample(floats, 8000))


def test_stream_that_ends_within_a_sample():
    got, failure = drain(audio.stream_pcm(io.BytesIO(bytes(2001))))
    assert len(got) == 1000
    assert "1 of 2 bytes" in str(failure)


def test_wav_stream_that_ends_early():
    data = wav_bytes(tone(1.0, 16000), 16000)
    got, failure = drain(audio.stream_pcm(io.BytesIO(data[: len(data) // 2])))
    assert len(got) == pytest.approx(8000, abs=20)
    assert "0.50 s of 1.00 s" in str(failure)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no audio"),
        (b"fLaC" + bytes(100), "begins as flac"),
        (b"OggS" + bytes(100), "begins as ogg"),
        (b"RIFF1234AVI " + bytes(100), "begins as avi"),
        (wav_bytes(tone(0.1, 8000), 8000)[:30], "ends inside its WAV header"),
        (b"RIFF\0\0\0\0WAVEdata\x04\0\0\0abcd", "no format"),
    ],
    ids=["empty", "flac", "ogg", "avi", "short", "formless"],
)
def test_pipes_that_cannot_be_read(data, message):
    with pytest.raises(AudioFileError, match=message):
        list(audio.stream_pcm(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(24, 0, "rate of 0 Hz"), (24, 4_000_000_000, "rate of"), (22, 0, "0 channels")],
)
def test_wav_header_with_impossible_values(offset, value, message):
    data = bytearray(wav_bytes(tone(0.1, 16000), 16000))
    data[offset : offset + 2 + 2 * (offset == 24)] = value.to_bytes(
        2 + 2 * (offset == 24), "little"
    )
    with pytest.raises(AudioFileError, match=message):
        list(audio.stream_pcm(io.BytesIO(bytes(data))))


def test_options_of_pipes():
    faults = {"raw_format": "s17", "raw_rate": 0, "raw_channels": 0, "block_seconds": 0.0}
    for name, value in (*faults.items(), ("channel", 0), ("channel", "left")):
        with pytest.raises(InvalidAudioError):
            list(audio.stream_pcm(io.BytesIO(bytes(100)), **{name: value}))


@given(
    data=st.binary(max_size=300),
    flips=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=6),
    sizes=sizes,
)
@settings(parent=quick, max_examples=80)
def test_damaged_headers_on_a_pipe(data, flips, sizes):
    """Whatever comes, it is audio or one of our errors."""
    wav = bytearray(wav_bytes(tone(0.01, 16000, 2), 16000, format="WAVEX") + data)
    for at, value in flips:
        wav[at] = value
    got, _ = drain(audio.stream_pcm(Pipe(bytes(wav), sizes)))
    assert np.isfinite(got).all()


@given(data=st.binary(max_size=300), sizes=sizes, kind=st.sampled_from(_pcm.SAMPLE_FORMATS))
@settings(parent=quick, max_examples=50)
def test_garbage_on_a_pipe(data, sizes, kind):
    got, _ = drain(audio.stream_pcm(Pipe(data, sizes), raw_format=kind))
    assert np.isfinite(got).all()


# Containers, and what is none


@pytest.mark.parametrize("name", [*CONTAINERS, "vorbis"])
def test_every_container_on_a_pipe_is_the_file(name, tmp_path):
    data = encoded(name)
    path = tmp_path / "file"
    path.write_bytes(data)
    expected = audio.load_audio(path)
    for sizes in ([1000], [len(data)]):
        got, failure = drain(audio.stream_pcm(Pipe(data, sizes), block_seconds=0.5))
        assert failure is None
        np.testing.assert_array_equal(got, expected)


LIVE = {
    # Bytes of a recording of 1.5 s by which there has to be audio, beyond a container's own
    # blocks: a page of Ogg, the frames that FFmpeg compares to be sure of FLAC.
    **dict.fromkeys(("mp3", "mp3-id3v2.3", "mp3-no-index", "adts", "wav-mp3"), 8_000),
    **dict.fromkeys(("aiff", "caf", "au"), 40_000),
    **dict.fromkeys(("webm", "webm-live", "mkv", "m4a-index-first", "mp4-fragments"), 8_000),
    "opus": 12_000,
}


@pytest.mark.parametrize("name", LIVE)
def test_audio_comes_while_the_pipe_is_open(name):
    data = encoded(name)
    assert LIVE[name] < len(data) * 0.6
    pipe = Pipe(data, [256])
    first = next(audio.stream_pcm(pipe))
    assert len(first)
    assert pipe.given <= LIVE[name]


def id3(version: int, size: int) -> bytes:
    """An ID3v2 tag whose content is padding."""
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, 0]) + length + bytes(size)


APE = b"APETAGEX" + struct.pack("<IIIIQ", 2000, 32, 0, 0x80000000, 0)


TAGS = {
    "none": b"",
    "2.2": id3(2, 100),
    "2.3": id3(3, 100),
    "2.4": id3(4, 1000),
    "cover": id3(3, 300_000),
    "zeros": bytes(500),
}


@pytest.mark.parametrize(
    ("name", "before"),
    [("mp3-no-index", APE), *((n, tag) for n in ("mp3-no-index", "adts") for tag in TAGS.values())],
    ids=["mp3-ape", *(f"{name}-{tag}" for name in ("mp3", "adts") for tag in TAGS)],
)
def test_tags_before_frames(name, before):
    plain, failure = drain(audio.stream_pcm(Pipe(encoded(name))))
    assert failure is None
    got, failure = drain(audio.stream_pcm(Pipe(before + encoded(name))))
    assert failure is None
    assert abs(len(got) - len(plain)) <= 600


def archive(kind: str) -> bytes:
    """A WAV file in an archive."""
    wav, file = wav_bytes(tone(0.1, 16000), 16000), io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as zipped:
            zipped.writestr("a.wav", wav)
    elif kind == "tar":
        with tarfile.open(fileobj=file, mode="w") as tarred:
            entry = tarfile.TarInfo("folder/a.wav")
            entry.size = len(wav)
            tarred.addfile(entry, io.BytesIO(wav))
    return file.getvalue()


FOREIGN = [
    (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>", "is an HTML page"),
    (b"\n<HTML lang=en>", "is an HTML page"),
    (b'<?xml version="1.0"?><rss/>', "is XML or HTML"),
    (b'{"error": "not found"}', "is JSON"),
    (b"[1, 2, 3]", "is JSON"),
    (b"hello\n", "is text"),
    ("über 30 Wörter".encode(), "is text"),
    (b"#EXTM3U\n#EXT-X-VERSION:3\nhttp://127.0.0.1/a.ts\n", "is a playlist"),
    (b"ffconcat version 1.0\nfile /etc/passwd\n", "is a playlist"),
    (b"[playlist]\nFile1=http://127.0.0.1/\n", "is a playlist"),
    (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n", "is a session description"),
    (b"#!/bin/sh\necho\n", "is a script"),
    (archive("zip"), "is a zip archive.*unpack"),
    (archive("tar"), "is a tar archive.*unpack"),
    (gzip.compress(bytes(9999)), "is a gzip file.*unpack"),
    (lzma.compress(bytes(9999)), "is an xz file.*unpack"),
    (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF document"),
    (b"\x89PNG\r\n\x1a\n" + bytes(40), "is a PNG image"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(40), "is a JPEG image"),
    (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(40), "is a WebP image"),
    (Path(sys.executable).resolve().read_bytes()[:4096], "is an executable"),
]


@pytest.mark.parametrize(("data", "message"), FOREIGN, ids=[message for _, message in FOREIGN])
def test_what_is_no_audio_is_refused_by_name(tmp_path, caplog, data, message):
    with pytest.raises(AudioFileError, match=message):
        list(audio.stream_pcm(Pipe(data)))
    path = tmp_path / "a.mp3"
    path.write_bytes(data)
    with pytest.raises(AudioFileError, match=message):
        audio.load_audio(path)
    assert not caplog.text
    # What was said to be raw is raw.
    got, _ = drain(audio.stream_pcm(Pipe(data), raw_format="u8"))
    assert len(got) == len(data)


def test_an_index_at_the_end_needs_a_place_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(AudioFileError, match=r"kept whole.*TMPDIR"):
        list(audio.stream_pcm(Pipe(encoded("m4a"))))
    assert drain(audio.stream_pcm(Pipe(encoded("m4a-index-first"))))[1] is None


def test_a_file_on_stdin_is_read_as_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    path = tmp_path / "a.m4a"
    path.write_bytes(encoded("m4a"))
    with path.open("rb") as file:
        got, failure = drain(audio.stream_pcm(file))
    assert failure is None
    np.testing.assert_array_equal(got, audio.load_audio(path))


# Raw PCM


@pytest.mark.parametrize("kind", _pcm.SAMPLE_FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
def test_raw_formats(kind, channels):
    subtypes = {"u8": "PCM_U8", "s8": "PCM_S8", "mulaw": "ULAW", "alaw": "ALAW"}
    name = {"s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT", "f64": "DOUBLE"}
    subtype = subtypes.get(kind) or name[kind[:3]]
    file = io.BytesIO()
    endian = {"le": "LITTLE", "be": "BIG"}.get(kind[3:], "FILE") if kind not in subtypes else "FILE"
    samples = tone(0.2, 16000, channels)
    options = {"format": "RAW", "subtype": subtype}
    soundfile.write(file, samples, 16000, endian=endian, **options)
    data = file.getvalue()
    decoded, _ = soundfile.read(
        io.BytesIO(data), samplerate=16000, channels=channels, endian=endian,
        dtype="float32", always_2d=True, **options,
    )  # fmt: skip
    got, failure = drain(
        audio.stream_pcm(Pipe(data, [7, 1001]), raw_format=kind, raw_channels=channels)
    )
    assert failure is None
    np.testing.assert_allclose(got, decoded.mean(axis=1), atol=1e-7)


def test_every_code_of_the_logarithmic_formats():
    data = bytes(range(256))
    for kind, subtype in (("mulaw", "ULAW"), ("alaw", "ALAW")):
        expected, _ = soundfile.read(
            io.BytesIO(data), samplerate=8000, channels=1, dtype="float32", format="RAW",
            subtype=subtype, endian="FILE",
        )  # fmt: skip
        got = _pcm.decode(data, _pcm.Encoding(8000, 1, kind))
        np.testing.assert_array_equal(got[:, 0], expected)


def test_raw_pcm_that_was_not_asked_for_is_reported(caplog):
    samples = (tone(0.5, 16000)[:, 0] * 32767).astype("<i2")
    got, failure = drain(audio.stream_pcm(Pipe(samples.tobytes())))
    assert failure is None
    np.testing.assert_array_equal(got, samples.astype(np.float32) / 32768)
    assert "raw PCM, s16le, 16000 Hz, mono" in caplog.text
    caplog.clear()
    drain(audio.stream_pcm(Pipe(samples.tobytes()), raw_rate=16000))
    assert not caplog.text


def test_an_option_for_raw_pcm_decides():
    wav = wav_bytes(tone(0.5, 8000), 8000)
    got, failure = drain(audio.stream_pcm(Pipe(wav), raw_rate=16000))
    assert failure is None
    assert len(got) == len(wav) // 2


def test_a_header_in_raw_pcm_is_told(caplog):
    drain(audio.stream_pcm(Pipe(encoded("aiff")), raw_rate=16000))
    assert "begins like a file (aiff), and is taken as raw PCM" in caplog.text
    caplog.clear()
    drain(audio.stream_pcm(Pipe(tone(0.1, 16000).tobytes()), raw_format="f32le"))
    assert not caplog.text


def test_raw_pcm_is_live():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb", buffering=0) as writer:
        blocks = audio.stream_pcm(reader)
        writer.write(bytes(range(1, 33)))
        assert len(next(blocks)) == 16
        writer.write(bytes(10))
        assert len(next(blocks)) == 5


# WAV whose header says too little


def wav_in_parts(*parts: tuple[int, int], promised: int | None = None) -> tuple[bytes, np.ndarray]:
    """WAV files of (rate, channels), one behind the other, and their samples at 16 kHz."""
    data, samples = b"", []
    for rate, channels in parts:
        part = tone(0.5, rate, channels)
        data += wav_bytes(part, rate, subtype="FLOAT")
        samples.append(audio.resample(part.mean(axis=1), rate))
    return data, np.concatenate(samples)


@pytest.mark.parametrize("size", [2, 2000, 8191])
def test_wav_with_more_audio_than_its_header_says(tmp_path, size):
    samples = tone(1.0, 16000)
    data = wav_bytes(samples, 16000)
    path = tmp_path / "a.wav"
    path.write_bytes(with_data_size(data, size))
    expected = np.frombuffer(data[44:], "<i2").astype(np.float32) / 32768
    for blocks in (audio.stream_file(path), audio.stream_pcm(Pipe(path.read_bytes()))):
        got, failure = drain(blocks)
        assert failure is None
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("parts", [[(16000, 1), (16000, 1)], [(16000, 2), (44100, 1), (8000, 3)]])
def test_wav_files_one_behind_the_other(parts):
    data, expected = wav_in_parts(*parts)
    got, failure = drain(audio.stream_pcm(Pipe(data)))
    assert failure is None
    np.testing.assert_allclose(got, expected, atol=1e-7)


@pytest.mark.parametrize(
    "trailer",
    [b"LIST\x04\0\0\0INFO", b"id3 \x03\0\0\0abc\0bext\x02\0\0\0ab", b"XYZ1\x02\0\0\0ab", b"abc"],
)
def test_chunks_behind_the_samples_are_no_audio(trailer):
    data = wav_bytes(tone(0.5, 16000), 16000)
    plain, _ = drain(audio.stream_pcm(Pipe(data)))
    got, failure = drain(audio.stream_pcm(Pipe(data + trailer)))
    assert failure is None
    np.testing.assert_array_equal(got, plain)


# Streams that do not wait


class Hesitant(Pipe):
    """Has nothing to give every other time, and says so as non-blocking streams do."""

    def __init__(self, data: bytes, *, raises: bool) -> None:
        super().__init__(data, [1000])
        self._raises, self._turns = raises, 0

    def read(self, wanted: int = -1) -> bytes | None:
        self._turns += 1
        if self._turns % 2:
            return super().read(wanted)
        if self._raises:
            raise BlockingIOError
        return None


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("name", ["wav-adpcm", "m4a", "webm"])
def test_streams_that_say_nothing_now(name, raises):
    expected, _ = drain(audio.stream_pcm(Pipe(encoded(name, 0.3))))
    got, failure = drain(audio.stream_pcm(Hesitant(encoded(name, 0.3), raises=raises)))
    assert failure is None
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("name", ["wav", "opus"])
def test_a_non_blocking_pipe_is_waited_for(name, buffering):
    data = wav_bytes(chirp(0.5, 16000), 16000) if name == "wav" else encoded(name)
    expected, _ = drain(audio.stream_pcm(Pipe(data)))
    read, write = os.pipe()
    os.set_blocking(read, False)

    def produce() -> None:
        with os.fdopen(write, "wb", buffering=0) as writer:
            for at in range(0, len(data), 5000):
                time.sleep(0.01)
                writer.write(data[at : at + 5000])

    producer = threading.Thread(target=produce)
    producer.start()
    with os.fdopen(read, "rb", buffering=buffering) as reader:
        got, failure = drain(audio.stream_pcm(reader))
    producer.join()
    assert failure is None
    np.testing.assert_array_equal(got, expected)


class Interrupting(Pipe):
    """Ctrl-C comes while FFmpeg reads."""

    def read(self, wanted: int = -1) -> bytes:
        if self.given > 12_000:
            raise KeyboardInterrupt
        return super().read(wanted)


def test_an_interrupt_passes_through_the_decoder():
    blocks = audio.stream_pcm(Interrupting(encoded("webm"), [1000]))
    assert len(next(blocks))
    with pytest.raises(KeyboardInterrupt):
        list(blocks)


@pytest.mark.parametrize("value", [0, 1, -1, 327, -1025, -20000])
def test_raw_pcm_that_does_not_change_is_no_container(value):
    data = np.full(8000, value, "<i2").tobytes()
    got, failure = drain(audio.stream_pcm(Pipe(data)))
    assert failure is None
    np.testing.assert_array_equal(got, np.full(8000, value / 32768, np.float32))

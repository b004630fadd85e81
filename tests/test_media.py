"""What FFmpeg decodes: exact lengths and times, everything that is there, nothing but the input."""

import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from encoded import CONTAINERS, Pipe, chirp, encode, encoded, lag, mix_video
from test_audio import drain

from voxfast import audio
from voxfast.errors import AudioFileError

ALL = [*CONTAINERS, "vorbis"]


@pytest.fixture
def read(tmp_path):
    """Reads bytes as a file and as a pipe, which have to agree; [N] and the error's text."""

    def read(data: bytes, *, exact: bool = True) -> tuple[np.ndarray, str]:
        path = tmp_path / "file"
        path.write_bytes(data)
        got, failure = drain(audio.stream_file(path))
        piped, pipe_failure = drain(audio.stream_pcm(Pipe(data), name=str(path)))
        if exact:
            np.testing.assert_array_equal(got, piped)
        assert (failure is None) == (pipe_failure is None), (failure, pipe_failure)
        return got, str(failure or "")

    return read


# Milliseconds by which the audio is late, and longer than it was. Where a container tells the
# encoder's delay and padding, both are cut. ADTS, MPEG-TS, AVI, FLV, AC-3, and MP3 without an
# index or within WAV do not tell; nor do fragments of MP4. FFmpeg's WMA encoder has half the delay
# that its decoder cuts.
SHIFTS = {
    **dict.fromkeys(("mp4-fragments", "adts", "mpegts"), 23.2),
    **dict.fromkeys(("mp3-no-index", "wav-mp3", "avi", "flv"), 25.1),
    "mp2": 10.9,
    "ac3": 5.8,
    "wma": -46.4,
    "wav-adpcm": 0,
}


@pytest.mark.parametrize("name", ALL)
def test_times_are_those_of_the_recording(name, read):
    got, failure = read(encoded(name))
    assert not failure
    true = audio.resample(chirp(1.5, 48000)[:, 0], 48000)
    assert 1000 * lag(got, true) == pytest.approx(SHIFTS.get(name, 0), abs=0.2)
    assert abs(len(got) - len(true)) <= (750 if name in SHIFTS else 2)
    if name not in SHIFTS:
        begin = 800
        np.testing.assert_allclose(got[begin:-800], true[begin : len(got) - 800], atol=0.05)


SAYS_ITS_LENGTH = [
    *("m4a-index-first", "mp4-fragments", "webm", "mkv", "mkv-flac", "opus", "vorbis", "mp3"),
    *("flac", "wma", "caf", "aiff", "aifc", "au", "w64", "wav-mp3", "wav-adpcm", "avi", "wavpack"),
    *("tta",),
]


@pytest.mark.parametrize("name", SAYS_ITS_LENGTH)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_what_is_cut_off_says_so(name, share, read):
    data = encoded(name, 4.0)
    if name == "vorbis":
        share = 0.9  # Half of it are headers.
    got, failure = read(data[: int(len(data) * share)])
    assert re.search("cut off|damaged", failure)
    assert 0.4 * share * 4 < len(got) / 16000 < 1.05 * share * 4
    whole, _ = read(data)
    usable = len(got) - 6000
    np.testing.assert_allclose(got[:usable], whole[:usable], atol=1e-6)


@pytest.mark.parametrize("name", ["m4a", "mov", "alac", "mp4-opus"])
def test_without_its_index_nothing_can_be_read(name, read):
    got, failure = read(encoded(name)[:-300])
    assert "index is missing" in failure
    assert not len(got)


@pytest.mark.parametrize("name", ["flac", "m4a", "mp3", "opus", "adts", "wavpack"])
def test_what_comes_behind_damage_is_read(name, read):
    data = encoded(name, 4.0)
    middle = len(data) // 2
    got, failure = read(data[:middle] + bytes(2000) + data[middle + 2000 :])
    assert "damaged at" in failure
    said = re.search(r"damaged at ([0-9.]+) s", failure)
    assert said
    assert 1.2 < float(said[1]) < 2.6
    # The rest of the chirp is there, at its end.
    true = audio.resample(chirp(4.0, 48000)[:, 0], 48000)[-12000:]
    assert np.abs(got[-12000:] - true).mean() < np.abs(true).mean() or lag(got, true) > 1


def mp3(seconds: float = 1.0, rate: int = 44100, channels: int = 2, *, index: bool = True) -> bytes:
    options = {} if index else {"write_xing": "0", "id3v2_version": "0"}
    return encode("libmp3lame", "mp3", chirp(seconds, rate, channels), rate, options)


def ogg(rate: int, channels: int, subtype: str = "VORBIS") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, chirp(1.0, rate, channels), rate, format="OGG", subtype=subtype)
    return file.getvalue()


ID3V1 = b"TAG" + b"x" * 125
JOINED = {
    "mp3": (mp3(), mp3(2.0)),
    "mp3-short-first": (mp3(0.5), mp3(2.0)),
    "mp3-no-index": (mp3(index=False), mp3(index=False)),
    "mp3-tags-between": (mp3() + ID3V1, mp3()),
    "mp3-ape-between": (mp3(index=False) + b"APETAGEX" + bytes(24), mp3(index=False)),
    "mp3-mono-stereo": (mp3(channels=1), mp3()),
    "mp3-stereo-mono": (mp3(), mp3(channels=1)),
    "mp3-other-rate": (mp3(), mp3(rate=48000), mp3(rate=22050)),
    "opus": (ogg(48000, 2, "OPUS"), ogg(48000, 2, "OPUS")),
    "opus-mono-stereo": (ogg(48000, 1, "OPUS"), ogg(48000, 2, "OPUS")),
    "vorbis": (ogg(44100, 2), ogg(44100, 2)),
    "vorbis-other-rate": (ogg(16000, 1), ogg(44100, 2), ogg(8000, 1)),
    "vorbis-opus": (ogg(44100, 2), ogg(48000, 1, "OPUS"), ogg(44100, 1)),
    "adts": (encoded("adts"), encoded("adts")),
    "flac": (encoded("flac"), encoded("flac")),
    "webm": (encoded("webm"), encoded("webm")),
}


@pytest.mark.parametrize("name", JOINED)
def test_recordings_one_behind_the_other(name, read):
    parts = [read(part)[0] for part in JOINED[name]]
    got, failure = read(b"".join(JOINED[name]))
    assert not failure
    # Of a joined MP3, the silent frame that holds the index, and the decoder's delay.
    most = 0.07 * (len(parts) - 1) if name.startswith("mp3") else 0.02
    assert -0.04 < len(got) / 16000 - sum(map(len, parts)) / 16000 < most
    at = 0
    for part in parts:
        assert abs(lag(got[at : at + len(part)], part)) < most + 0.04
        at += len(part)


def test_links_of_an_ogg_chain_are_exact(read):
    data = [ogg(44100, 2), ogg(16000, 1), ogg(48000, 2, "OPUS")]
    got, _ = read(b"".join(data))
    np.testing.assert_array_equal(got, np.concatenate([read(part)[0] for part in data]))
    assert len(got) == pytest.approx(3 * 16000, abs=320)


def test_a_damaged_link_does_not_keep_from_the_next(read):
    whole = ogg(16000, 1)
    got, failure = read(whole[: len(whole) * 3 // 4] + whole)
    assert "cut off" in failure or "damaged" in failure
    assert len(got) >= len(read(whole)[0])


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("junk", [bytes(4096), ID3V1, b"junk" * 500], ids=["zeros", "tag", "junk"])
def test_junk_behind_mp3_is_no_error(index, junk, read):
    plain, _ = read(mp3(index=index))
    got, failure = read(mp3(index=index) + junk)
    assert not failure
    np.testing.assert_array_equal(got[:15000], plain[:15000])
    assert abs(len(got) - len(plain)) < 500


@pytest.mark.parametrize("junk", [bytes(4096), b"junk" * 500], ids=["zeros", "junk"])
def test_junk_inside_mp3_loses_no_audio(junk, read):
    data = mp3(2.0)
    middle = len(data) // 2
    # Of a damaged file, FFmpeg may cut the padding at another place than of a pipe.
    got, _ = read(data[:middle] + junk + data[middle:], exact=False)
    assert len(got) / 16000 == pytest.approx(2.0, abs=0.1)
    got, failure = read(data[:middle] + junk + data[middle + len(junk) :], exact=False)
    assert "damaged at" in failure
    assert len(got) > 16000


@pytest.mark.parametrize("size", [1000, 44100 * 2])
def test_aiff_with_more_audio_than_its_header_says(size, read):
    data = bytearray(encoded("aiff"))
    at = data.index(b"SSND") + 4
    data[at : at + 4] = size.to_bytes(4, "big")
    _, failure = read(bytes(data))
    assert "of 1.50 s" in failure


# Tracks


@pytest.mark.parametrize("muxer", ["mp4", "matroska", "mov", "mpegts"])
def test_the_default_audio_track_of_a_video(muxer, read, caplog):
    first, second = chirp(1.5, 48000), chirp(1.5, 48000, begin=2500)
    got, failure = read(mix_video(muxer, [first, second]))
    assert not failure
    assert caplog.text.count("has 2 audio tracks; track 1 is read") == 2  # file and pipe
    true = audio.resample(first[:, 0], 48000)
    assert abs(lag(got, true)) < 0.03
    assert (
        np.corrcoef(np.abs(np.fft.rfft(got, 32768)), np.abs(np.fft.rfft(true, 32768)))[0, 1] > 0.8
    )


@pytest.mark.parametrize("muxer", ["mp4", "matroska"])
def test_times_of_a_video_are_those_of_its_clock(muxer, read):
    true = audio.resample(chirp(1.0, 48000)[:, 0], 48000)
    got, failure = read(mix_video(muxer, [chirp(1.0, 48000)], delay=0.5))
    assert not failure
    assert lag(got, true) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("muxer", ["mp4", "matroska"])
def test_a_video_without_sound(muxer, read):
    assert "has no audio track, only video" in read(mix_video(muxer, []))[1]


@pytest.mark.parametrize("tag", [b"drms", b"enca"])
def test_encrypted_files_are_refused(tag, read):
    assert "DRM" in read(encoded("m4a").replace(b"mp4a", tag))[1]


@pytest.mark.parametrize(
    ("codec", "muxer", "channels"), [("aac", "ipod", 6), ("aac", "ipod", 8), ("libopus", "ogg", 8)]
)
def test_many_channels(codec, muxer, channels, tmp_path):
    path = tmp_path / "file"
    samples = chirp(1.0, 48000, channels) * np.linspace(0.2, 1, channels, dtype=np.float32)
    path.write_bytes(encode(codec, muxer, samples, 48000))
    got = audio.load_audio(path, channel="each")
    assert got.shape == (pytest.approx(16000, abs=16), channels)
    levels = np.sort(np.abs(got[2000:-2000]).mean(axis=0))
    assert levels[-1] > 2 * levels[0] > 0


def test_tags_in_any_encoding(read):
    data = encode(
        "libmp3lame", "mp3", chirp(1.0, 44100, 2), 44100, {"id3v2_version": "3"}, {"title": "xyzzy"}
    )
    assert data.count("xyzzy".encode("utf-16-le")) or data.count(b"xyzzy")
    damaged = data.replace(b"xyzzy", b"\xff\xfe\xd8\x00\xd8").replace(
        b"x\0y\0z\0", b"\0\xd8\0\xd8\0\xd8"
    )
    assert not read(damaged)[1]


# Nothing but the input


SECRETS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    "xspf": "<?xml version='1.0'?><MPD><BaseURL>{}</BaseURL></MPD>",
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("before", ["", " " * 600, "\0" * 16])
def test_playlists_open_nothing(name, before, tmp_path, monkeypatch):
    secret = tmp_path / "secret.ts"
    secret.write_bytes(encoded("mpegts"))
    path = tmp_path / f"list.{name}"
    path.write_text(before + SECRETS[name].format(secret))
    with pytest.raises(AudioFileError):
        audio.load_audio(path)
    opened: list[object] = []
    sys.addaudithook(lambda event, args: opened.append(args) if event == "open" else None)
    got, _ = drain(audio.stream_pcm(Pipe(path.read_bytes())))
    assert len(got) < 1600  # of the text itself, at most
    assert not any(str(secret) in str(args) for args in opened)


def test_no_demuxer_that_opens_files_is_allowed(tmp_path):
    from voxfast import _media

    allowed = set(_media._DEMUXERS.split(","))
    assert not allowed & {
        "hls",
        "concat",
        "dash",
        "sdp",
        "rtsp",
        "image2",
        "lavfi",
        "imf",
        "vobsub",
    }
    secret = tmp_path / "secret.wav"
    secret.write_bytes(encoded("wav-adpcm"))
    # The reference of a MOV track to another file is not followed.
    data = encoded("mov")
    at = data.index(b"url \0\0\0\x01")
    path = tmp_path / "a.mov"
    name = b"file://" + os.fsencode(secret)
    entry = (12 + len(name)).to_bytes(4, "big") + b"url \0\0\0\0" + name
    path.write_bytes(data[: at - 4] + entry + data[at + 8 :])
    with pytest.raises(AudioFileError):
        audio.load_audio(path)


def test_decoders_keep_quiet(tmp_path):
    names = []
    for name in ("mp3", "flac", "m4a", "opus", "webm"):
        data = encoded(name)
        middle = len(data) // 2
        path = tmp_path / name
        path.write_bytes(data[:middle] + b"junk" * 300 + data[middle + 1200 :])
        names.append(str(path))
    script = (
        "import sys\nfrom voxfast import audio\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n        audio.load_audio(name)\n"
        "    except audio.AudioFileError:\n        pass\n"
    )
    result = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, check=True)
    assert result.stdout == b""
    assert result.stderr == b""


# Hostile


@pytest.mark.parametrize("name", ["m4a", "webm", "opus", "mp3", "wma", "caf", "wavpack", "mpegts"])
def test_truncated_anywhere(name):
    data = encoded(name, 0.3)
    for size in [*range(0, 200, 3), *range(200, len(data), len(data) // 40)]:
        got, _ = drain(audio.stream_pcm(Pipe(data[:size])))
        assert np.isfinite(got).all()


def test_an_endless_pipe_without_audio_ends():
    class Endless(Pipe):
        def read(self, wanted: int = -1) -> bytes:
            self.given += wanted
            assert self.given < 1 << 26
            return super().read(wanted) or bytes(wanted)

    for begin in (
        b"fLaC",
        b"\x1aE\xdf\xa3",
        b"ID3\x03\0\0\0\0\0\0",
        b"FORM\0\0\0\0AIFFCOMM\0\0\0\x12",
    ):
        with pytest.raises(AudioFileError):
            next(audio.stream_pcm(Endless(begin)))

"""Small recordings in every container, encoded on the spot, and pipes to read them from."""

import io
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile

__all__ = ["CONTAINERS", "Pipe", "chirp", "encode", "encoded", "lag", "mix_video"]

# name: (codec, muxer, options of the muxer, sample rate)
CONTAINERS: dict[str, tuple[str, str, dict[str, str], int]] = {
    "m4a": ("aac", "ipod", {}, 44100),
    "m4a-index-first": ("aac", "ipod", {"movflags": "faststart"}, 44100),
    "mp4-fragments": (
        "aac",
        "mp4",
        {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "300000"},
        44100,
    ),
    "mov": ("aac", "mov", {}, 44100),
    "mp4-opus": ("libopus", "mp4", {}, 48000),
    "alac": ("alac", "ipod", {}, 44100),
    "adts": ("aac", "adts", {}, 44100),
    "webm": ("libopus", "webm", {}, 48000),
    "webm-live": ("libopus", "webm", {"live": "1"}, 48000),
    "mkv": ("libopus", "matroska", {}, 48000),
    "mkv-flac": ("flac", "matroska", {}, 44100),
    "opus": ("libopus", "ogg", {"page_duration": "200000"}, 48000),
    "mp3": ("libmp3lame", "mp3", {}, 44100),
    "mp3-id3v2.3": ("libmp3lame", "mp3", {"id3v2_version": "3", "write_id3v1": "1"}, 44100),
    "mp3-no-index": ("libmp3lame", "mp3", {"write_xing": "0", "id3v2_version": "0"}, 44100),
    "mp2": ("mp2", "mp2", {}, 44100),
    "ac3": ("ac3", "ac3", {}, 44100),
    "flac": ("flac", "flac", {}, 44100),
    "wma": ("wmav2", "asf", {}, 44100),
    "caf": ("pcm_s16be", "caf", {}, 44100),
    "aiff": ("pcm_s16be", "aiff", {}, 44100),
    "aifc": ("pcm_mulaw", "aiff", {}, 44100),
    "au": ("pcm_s16be", "au", {}, 44100),
    "w64": ("pcm_s16le", "w64", {}, 44100),
    "wav-mp3": ("libmp3lame", "wav", {}, 44100),
    "wav-adpcm": ("adpcm_ms", "wav", {}, 44100),
    "mpegts": ("aac", "mpegts", {}, 44100),
    "avi": ("libmp3lame", "avi", {}, 44100),
    "wavpack": ("wavpack", "wv", {}, 44100),
    "tta": ("tta", "tta", {}, 44100),
    "caf-alac": ("alac", "caf", {}, 44100),
    "voc": ("pcm_s16le", "voc", {}, 44100),
    "flv": ("libmp3lame", "flv", {}, 44100),
}
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def chirp(seconds: float, rate: int, channels: int = 1, begin: float = 300) -> np.ndarray:
    """A rising tone whose loudness changes, the same in all channels: [N, channels] float32."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.4 * np.sin(2 * np.pi * (begin * time + 300 * time**2))
    wave *= 0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * time)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def _add(container, stream, samples: np.ndarray, rate: int, layout: str) -> None:
    for begin in range(0, len(samples), 1024):
        part = np.ascontiguousarray(samples[begin : begin + 1024].reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(part, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def encode(
    codec: str,
    muxer: str,
    samples: np.ndarray,
    rate: int,
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """[N, channels] of float32 in a container."""
    layout = _LAYOUTS[samples.shape[1]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"  # by name: an index is moved to the front so only
        with av.open(str(path), "w", format=muxer, container_options=options or {}) as container:
            container.metadata.update(metadata or {})
            stream = container.add_stream(codec, rate=rate, layout=layout)
            if codec != "mp2":
                stream.bit_rate = 128_000
            _add(container, stream, samples, rate, layout)
        return path.read_bytes()


@cache
def encoded(name: str, seconds: float = 1.5, channels: int = 2) -> bytes:
    """A chirp in one of :data:`CONTAINERS`, or in Ogg Vorbis, which libsndfile encodes."""
    if name == "vorbis":
        file = io.BytesIO()
        soundfile.write(file, chirp(seconds, 44100, channels), 44100, format="OGG")
        return file.getvalue()
    codec, muxer, options, rate = CONTAINERS[name]
    return encode(codec, muxer, chirp(seconds, rate, channels), rate, options)


def mix_video(
    muxer: str, tracks: list[np.ndarray], *, delay: float = 0.0, frames: int = 20
) -> bytes:
    """A video, 10 pictures a second, with audio tracks of [N, 1] at 48 kHz that begin later."""
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        streams = [container.add_stream("aac", rate=48000, layout="mono") for _ in tracks]
        for i in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24")
            picture.pts = i
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for stream, samples in zip(streams, tracks, strict=True):
            for begin in range(0, len(samples), 1024):
                part = np.ascontiguousarray(samples[begin : begin + 1024].reshape(1, -1))
                frame = av.AudioFrame.from_ndarray(part, format="flt", layout="mono")
                frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
                frame.pts = begin + round(delay * 48000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return file.getvalue()


def lag(got: np.ndarray, true: np.ndarray) -> float:
    """Seconds by which ``got`` is later than ``true``, both at 16 kHz."""
    size = 1 << (len(got) + len(true)).bit_length()
    spectrum = np.fft.rfft(got, size) * np.conj(np.fft.rfft(true, size))
    at = int(np.argmax(np.fft.irfft(spectrum)))
    return (at if at < size // 2 else at - size) / 16000


class Pipe(io.RawIOBase):
    """Gives its data in pieces, as a pipe does: never more at once than was written."""

    def __init__(self, data: bytes, sizes: list[int] | None = None) -> None:
        self._data, self._sizes, self._turn, self.given = data, sizes or [4096], 0, 0

    def readable(self) -> bool:
        return True

    def read(self, wanted: int = -1) -> bytes:
        size = min(self._sizes[self._turn % len(self._sizes)], wanted)
        self._turn += 1
        data, self._data = self._data[:size], self._data[size:]
        self.given += len(data)
        return data

"""Decodes one audio track with FFmpeg, and finds out whether all of it came."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from voxfast import _promises
from voxfast._joined import unread
from voxfast._pcm import Block, Frames, check_encoding, truncated
from voxfast.errors import AudioFileError

if TYPE_CHECKING:
    from av import AudioFrame
    from av.container import InputContainer

    Packet = Any  # generic in some versions only

_log = logging.getLogger(__name__)
# Decoders that find damage by checksums, if they are asked to.
_CHECKED = ("flac", "tta", "wavpack")
_ENCRYPTED = ("drms", "drmi", "enca", "encv", "aavd")
# Containers whose clock counts samples: a gap in it is a loss, where elsewhere it is a pause.
_COUNTED = ("aac", "aiff", "au", "caf", "flac", "mp3", "ogg", "tta", "wav", "wv")
# Containers whose own word on a track's length FFmpeg passes on, and the seconds by which it may
# differ from what is decoded: the encoder's delay and padding.
_SLACK = {
    "flac": 0, "aiff": 0, "au": 0, "wv": 0, "tta": 0,
    "mp3": 0.1, "mov": 0.1, "avi": 0.1, "matroska": 0.1, "asf": 0.5,
}  # fmt: skip
_PADDING = 0.1  # seconds: the longest frame of an encoder that fills up its last one
_SHORTEST_GAP, _MOST_GAPS = 0.1, 600.0
_MOST_EXCESS = 2 * 8192  # samples of Vorbis: two packets of the longest kind
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICS")  # of MP3 files, between joined ones, too
_MOST_FAULTS = 10_000  # in a row: a file that holds nothing else is given up
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}


class Input(Protocol):
    """The bytes that a container is read from."""

    def check(self) -> None:
        """Raise what reading raised, an interrupt for one."""

    def begin(self) -> None:
        """Take note that the beginning is not needed any more."""

    def at(self, offset: int, size: int) -> bytes:
        """Bytes near the beginning; of a file any, of a pipe none after :meth:`begin`."""

    def second(self, kind: str, first: int, last: range) -> int | None:
        """At the end: where another recording begins; see :mod:`voxfast._joined`."""

    def end(self) -> int | None:
        """Samples of the track by the last page of Ogg, once that was read."""

    def is_complete(self, size: int | None) -> bool:
        """At the end: whether all bytes have come, ``size`` of them if that is known."""


class Decoder:
    """The audio track that players would choose, decoded packet by packet.

    A packet that cannot be decoded is passed over, and reported at the end. Pauses that the
    container's clock knows of are filled with zeros, so that times remain those of the file.

    Raises:
        AudioFileError: if there is no audio track, or none that can be decoded.
    """

    def __init__(self, container: "InputContainer", source: Input, name: str) -> None:
        import av

        self._container, self._source, self._name = container, source, name
        self._kind = container.format.name.split(",")[0]
        stream: Any = container.streams.best("audio")
        if stream is None:
            kinds = ", ".join(sorted({other.type for other in container.streams}))
            raise AudioFileError(f"{name} has no audio track{kinds and f', only {kinds}'}")
        self._stream = stream
        self._require_decoder()
        for other in container.streams:
            if other is not stream:
                other.discard = av.stream.Discard.all
        if stream.codec_context.name in _CHECKED:
            stream.codec_context.options = {"err_detect": "crccheck+explode"}
        self._promised_bytes = _promises.promised_bytes(source.at(0, 4096))
        self._packets = self._demux()
        self._first = next(self._packets, None)
        self._mp3_samples: int | None = None
        if self._kind == "mp3" and self._first is not None and self._first.pos:
            start = max(0, self._first.pos - _promises.MOST_MP3_FRAME)
            index = source.at(start, self._first.pos - start)
            self._mp3_samples = _promises.mp3_samples(index)
        source.begin()

        self._last = range(0)  # bytes of the last good packet
        self._rate = 0
        self._samples = 0  # at this rate
        self._seconds = 0.0  # of the audio before, at other rates
        self._held: list[Block] = []
        self._is_trimmed = True
        self._next_time: float | None = None
        if container.start_time is not None and container.streams.video:
            self._next_time = container.start_time / 1e6
        self._gaps = 0.0
        self._new_faults = self._faults = 0
        self._fault_time = 0.0
        self._is_cut = False

    def seconds(self) -> float | None:
        """Seconds of audio that the container promises; None if it does not."""
        rate = self._stream.codec_context.sample_rate or 48_000
        promised = self._promised(rate)
        if promised is not None:
            return promised / rate
        # Of the others, some are guesses.
        is_said = self._kind in ("asf", "caf", "matroska", "mpeg", "mpegts", "ogg", "w64", "wav")
        duration = self._container.duration
        return duration / 1e6 if is_said and duration and duration > 0 else None

    def blocks(self) -> Iterator[Block]:
        """All audio.

        Raises:
            AudioFileError: after the last good block if the track is cut off, damaged or
                encrypted.
        """
        tracks = list(self._container.streams.audio)
        if len(tracks) > 1:
            _log.warning(
                "%s has %d audio tracks; track %d is read, and no other",
                self._name,
                len(tracks),
                tracks.index(self._stream) + 1,
            )
        packet, packets = self._first, self._packets
        while packet is not None:
            for frame in self._decode(packet):
                yield from self._take(frame)
            if self._new_faults > _MOST_FAULTS:
                break
            packet = next(packets, None)
        if sum(len(frames) for _, frames in self._held) > _PADDING * self._rate:
            yield from self._held
        self._source.check()
        self._settle()

    def _require_decoder(self) -> None:
        """Raise AudioFileError if the track cannot be decoded."""
        context = self._stream.codec_context
        tag = ""
        with suppress(Exception):  # Not every tag is text.
            tag = context.codec_tag
        keys = [*self._container.metadata, *self._stream.metadata]
        if tag in _ENCRYPTED or any(key.startswith("ASF_Protection") for key in keys):
            raise self._encrypted()
        if context is None:
            raise AudioFileError(
                f"{self._name}: the codec of its audio is not known here; to convert it: "
                f"ffmpeg -i INPUT -ar 16000 -ac 1 OUTPUT.wav"
            )

    def _encrypted(self) -> AudioFileError:
        return AudioFileError(f"{self._name} is encrypted or protected (DRM); it cannot be read")

    def _demux(self) -> Iterator["Packet"]:
        """Packets of the track; where one cannot be read, the next is tried."""
        import av

        tries = 0
        while tries < 3:
            try:
                for packet in self._container.demux(self._stream):
                    tries = 0
                    yield packet
                return
            except (av.FFmpegError, OSError, OverflowError, ValueError) as error:
                self._source.check()
                if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
                    raise AudioFileError(f"{self._name} cannot be read: {error}") from error
                tries += 1

    def _decode(self, packet: "Packet") -> "list[AudioFrame]":
        """The frames of a packet; none, and a fault is noted, if it is damaged."""
        import av

        if packet.size:
            self._is_cut = packet.is_corrupt
            if packet.has_sidedata("encryption_info"):
                raise self._encrypted()
        try:
            frames = [*packet.decode()]
            if packet.pos is not None and packet.pos >= self._last.start and frames:
                self._last = range(packet.pos, packet.pos + packet.size)
            return frames
        except (av.FFmpegError, ValueError):
            is_tag = self._kind == "mp3" and bytes(packet).startswith(_TAGS)
            self._new_faults += not is_tag
            return []

    def _take(self, frame: "AudioFrame") -> Iterator[Block]:
        """What a frame adds; audio beyond the promised length is held back, it may be padding."""
        samples, rate = self._before_end(frame), frame.sample_rate
        check_encoding(rate, samples.shape[1], self._name)
        if not len(samples):
            return
        self._note_faults(self._new_faults)
        self._new_faults = 0
        yield from self._gap_before(frame, samples.shape[1])
        if rate != self._rate:
            self._is_trimmed = not self._rate
            self._seconds, self._samples, self._rate = self._done(), 0, rate
        limit = self._promised(rate) if self._is_trimmed else None
        if self._held or (limit is not None and self._samples + len(samples) > limit):
            room = max(0, (limit or 0) - self._samples)
            self._held.append((rate, samples[room:]))
            samples = samples[:room]
            if limit is None or sum(len(held) for _, held in self._held) > _PADDING * rate:
                # There is more than was promised.
                self._is_trimmed = False
        if len(samples):
            self._samples += len(samples)
            yield rate, samples
        if not self._is_trimmed and self._held:
            self._samples += sum(len(held) for _, held in self._held)
            yield from self._held
            self._held = []

    def _before_end(self, frame: "AudioFrame") -> Frames:
        """A frame's samples up to the end of the track.

        FFmpeg cuts the last packet of Vorbis, but not the one before it, where that is needed.
        """
        samples, end = as_array(frame), self._source.end()
        if end is None or self._stream.codec_context.name != "vorbis":
            return samples
        excess = self._samples + frame.samples - end
        return samples[:-excess] if 0 < excess <= _MOST_EXCESS else samples

    def _note_faults(self, count: int) -> None:
        """Take note of losses before the next frame."""
        if count and not self._faults:
            self._fault_time = self._done()
        self._faults += count

    def _gap_before(self, frame: "AudioFrame", channels: int) -> Iterator[Block]:
        """Zeros for the time between the last frame and this one, by the container's clock."""
        rate, expected = frame.sample_rate, self._next_time
        time = expected
        if frame.time is not None:
            time = frame.time
        self._next_time = None if time is None else time + frame.samples / rate
        gap = 0.0 if time is None or expected is None else time - expected
        if not _SHORTEST_GAP < gap <= _MOST_GAPS - self._gaps:
            return
        if self._kind in _COUNTED:
            self._note_faults(1)
        self._gaps += gap
        missing = round(gap * rate)
        while missing:
            size = min(missing, rate)
            yield rate, np.zeros((size, channels), np.float32)
            missing -= size

    def _done(self) -> float:
        """Seconds of audio that were decoded."""
        return self._seconds + (self._samples / self._rate if self._rate else 0.0)

    def _promised(self, rate: int) -> int | None:
        """Samples at ``rate`` that the container says it has; None: it does not say."""
        if self._kind == "mp3":
            return self._mp3_samples
        if self._kind == "flac":
            return _promises.flac_samples(self._stream.codec_context.extradata)
        if self._kind not in _SLACK:
            return None
        if self._kind in ("matroska", "asf"):
            # The whole file's, not the track's.
            duration = self._container.duration
            is_one = len(self._container.streams) == 1
            return round(duration * rate / 1e6) if is_one and duration and duration > 0 else None
        duration = self._stream.duration
        if duration is None or duration <= 0:
            return None
        samples: int = round(duration * self._stream.time_base * rate)
        return samples

    def _settle(self) -> None:
        """Raise AudioFileError if audio is missing."""
        done = self._done()
        first = 0 if self._first is None else self._first.pos or 0
        if self._kind == "au" and self._promised_bytes:
            # FFmpeg takes all that follows for its samples.
            self._last = range(self._promised_bytes - 1, self._promised_bytes)
        second = self._source.second(self._kind, first, self._last) if done else None
        if second is not None:
            raise unread(self._name, second)
        if not done and self._new_faults:
            raise AudioFileError(f"{self._name} is damaged: none of its audio can be decoded")
        promised = self._promised(self._rate) if self._rate else None
        seconds = None if promised is None else promised / self._rate
        is_short = seconds is not None and done + 0.01 < seconds
        if self._faults and (is_short or seconds is None):
            of_all = "" if seconds is None else f" of {seconds:.2f} s"
            raise AudioFileError(
                f"{self._name} is damaged at {self._fault_time:.2f} s: only {done:.2f} s{of_all} "
                f"of audio could be decoded"
            )
        reached = done if self._kind in _COUNTED else max(done + self._gaps, self._next_time or 0)
        if seconds is not None and reached + _SLACK[self._kind] + 0.5 / self._rate < seconds:
            raise truncated(self._name, done, seconds)
        is_cut = self._is_cut and self._kind != "mpegts"
        if is_cut or not self._source.is_complete(self._promised_bytes):
            raise truncated(self._name, done, seconds)


def as_array(frame: "AudioFrame") -> Frames:
    """A decoded frame as [N, channels] of float32; integers become -1 to 1."""
    channels, format_ = frame.layout.nb_channels, frame.format.name
    kind = format_.removesuffix("p")
    if kind not in _DTYPES or (frame.format.is_planar and channels > 7):
        # Of eight planes and more, PyAV reads beyond the last.
        import av

        (frame,) = av.AudioResampler(format="flt").resample(frame)
        kind = "flt"
    planes = frame.planes
    count = frame.samples * (1 if len(planes) > 1 else channels)
    data = [np.frombuffer(memoryview(plane), _DTYPES[kind], count) for plane in planes]
    samples = np.stack(data, axis=1) if len(data) > 1 else data[0].reshape(-1, channels)
    if kind == "u8":
        return (samples.astype(np.float32) - 128) / np.float32(128)
    if kind in ("s16", "s32"):
        return samples.astype(np.float32) / np.float32(2 ** (8 * samples.itemsize - 1))
    with np.errstate(all="ignore"):  # Beyond the range of float32 becomes inf.
        return samples.astype(np.float32)

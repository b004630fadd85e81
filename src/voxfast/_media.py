"""Everything that FFmpeg decodes, through PyAV: compressed audio, and video's audio track.

FFmpeg sees one input only, which is open already. Demuxers that open further files (playlists,
concatenations, image sequences), protocols, and decoders of anything but audio are not allowed.
PyAV keeps FFmpeg's own messages off the terminal.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxfast._decoder import Decoder
from voxfast._joined import Watcher, second_recording
from voxfast._ogg import OggLinks
from voxfast._pcm import Block
from voxfast._sniff import index_is_last
from voxfast._streams import ByteReader, PipeFile, SeekableFile
from voxfast.errors import AudioFileError

if TYPE_CHECKING:
    import io

    from av.container import InputContainer

_DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,nistsphere,"
    "ogg,tta,voc,w64,wav,wv"
)
_DECODERS = (
    "aac,aac_fixed,aac_latm,ac3,ac3_fixed,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,"
    "adpcm_yamaha,alac,amrnb,amrwb,ape,dca,eac3,flac,g722,g723_1,g726,g726le,gsm,gsm_ms,"
    "libopencore_amrnb,libopencore_amrwb,libopus,libspeex,libvorbis,mp1,mp1float,mp2,mp2float,"
    "mp3,mp3float,nellymoser,opus,speex,truespeech,tta,vorbis,wavpack,wmalossless,wmapro,wmav1,"
    "wmav2,wmavoice,pcm_alaw,pcm_mulaw,pcm_bluray,pcm_dvd,pcm_f32be,pcm_f32le,pcm_f64be,"
    "pcm_f64le,pcm_s16be,pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,pcm_s24le,"
    "pcm_s24le_planar,pcm_s32be,pcm_s32le,pcm_s32le_planar,pcm_s64be,pcm_s64le,pcm_s8,"
    "pcm_s8_planar,pcm_u16be,pcm_u16le,pcm_u24be,pcm_u24le,pcm_u32be,pcm_u32le,pcm_u8,pcm_vidc"
)
_OPTIONS = {
    "format_whitelist": _DEMUXERS,
    "codec_whitelist": _DECODERS,
    "protocol_whitelist": "none",
}
# Containers whose beginning tells all. Without this, FFmpeg waits for up to 5 MB of a pipe, and
# of joined files takes the rate of the last.
_EARLY = ("aac", "aiff", "amr", "au", "caf", "mp3", "tta", "voc", "w64", "wav")
# Containers that may have to be sought in, so that a pipe is held if it does not do without.
_SOUGHT = ("ape", "caf", "wv")
_SLACK = 16  # bytes by which a container may be shorter than it says: padding


class UnknownContainerError(AudioFileError):
    """A file that begins like nothing that is known here."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open recording.

    Attributes:
        seconds: gives the seconds of audio that it promises; None if it does not say.
        blocks: its audio; raises AudioFileError after the last good block if it is cut off or
            damaged.
    """

    seconds: Callable[[], float | None]
    blocks: Iterator[Block]


@contextmanager
def open_file(file: "io.FileIO", demuxer: str | None, name: str) -> Iterator[Source]:
    """Decode a regular file.

    Args:
        file: at any position.
        demuxer: FFmpeg's name of the container; None: to be found out.

    Raises:
        AudioFileError: if it is no audio, has no audio track, or is encrypted.
    """
    file.seek(0)
    if demuxer == "ogg":
        yield Source(lambda: _ogg_seconds(file, name), _ogg_blocks(ByteReader(file, name), name))
        return
    with _opened(SeekableFile(file), demuxer, name) as container:
        decoder = Decoder(container, _FileInput(file), name)
        yield Source(decoder.seconds, decoder.blocks())


@contextmanager
def open_pipe(reader: ByteReader, demuxer: str, name: str) -> Iterator[Source]:
    """Decode a pipe as it comes; held in a temporary file first if it cannot be.

    Raises:
        AudioFileError: as :func:`open_file`, or if the temporary file cannot be written.
    """
    if demuxer == "ogg":
        yield Source(lambda: None, _ogg_blocks(reader, name))
        return
    reader.keep()
    if demuxer == "mov" and index_is_last(reader):
        with reader.to_file() as whole, open_file(whole, demuxer, name) as source:
            yield source
        return
    watcher = Watcher(reader.some)
    file = PipeFile(watcher.some)
    with ExitStack() as stack:
        stack.callback(reader.forget)
        try:
            container = stack.enter_context(_opened(file, demuxer, name))
        except AudioFileError:
            file.check()
            if demuxer not in _SOUGHT:
                raise
            whole = stack.enter_context(reader.to_file())
            yield stack.enter_context(open_file(whole, demuxer, name))
            return
        decoder = Decoder(container, _PipeInput(file, reader, watcher), name)
        yield Source(lambda: None, decoder.blocks())


@contextmanager
def _opened(
    file: PipeFile | SeekableFile, demuxer: str | None, name: str
) -> Iterator["InputContainer"]:
    """FFmpeg's container of an input."""
    import av

    options = _OPTIONS | ({"probesize": "4096"} if demuxer in _EARLY else {})
    # Tags may be in any encoding. From version 19 on, PyAV sees to that.
    is_strict = int(av.__version__.partition(".")[0]) < 19
    tags: dict[str, Any] = {"metadata_errors": "replace"} if is_strict else {}
    try:
        container = av.open(file, "r", format=demuxer, container_options=options, **tags)
    except (av.FFmpegError, OSError, OverflowError, ValueError) as error:
        known = f"{name} is not audio that can be read (WAV, FLAC, Ogg, MP3, M4A, WebM, ...)"
        if demuxer is None:
            raise UnknownContainerError(known) from error
        if demuxer == "mov":
            reason = "its index is missing; the recording was cut off or never finished"
        else:
            reason = f"it begins as {demuxer}, and what follows is damaged or cut off"
        raise AudioFileError(f"{known}: {reason}") from error
    try:
        yield container
    finally:
        container.close()


def _ogg_seconds(file: "io.FileIO", name: str) -> float | None:
    """Seconds of an Ogg file, by the position of its last page."""
    file.seek(0)
    with _opened(SeekableFile(file), "ogg", name) as container:
        return Decoder(container, _FileInput(file), name).seconds()


def _ogg_blocks(reader: ByteReader, name: str) -> Iterator[Block]:
    """The audio of all links of an Ogg chain; a damaged one does not keep from the next."""
    links = OggLinks(reader)
    failure: AudioFileError | None = None
    while links.begin():
        file = PipeFile(links.some)
        try:
            with _opened(file, "ogg", name) as container:
                yield from Decoder(container, _OggInput(file, links), name).blocks()
        except AudioFileError as error:
            file.check()
            failure = failure or error
    if failure is not None:
        raise failure


class _FileInput:
    """A regular file, beside FFmpeg; see :class:`voxfast._decoder.Input`."""

    def __init__(self, file: "io.FileIO") -> None:
        self._descriptor = file.fileno()

    def check(self) -> None:
        pass  # What goes wrong with a file, FFmpeg reports.

    def begin(self) -> None:
        pass

    def at(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def second(self, kind: str, first: int, last: range) -> int | None:
        return second_recording(kind, first, last, self.at)

    def end(self) -> int | None:
        return None

    def is_complete(self, size: int | None) -> bool:
        return size is None or os.fstat(self._descriptor).st_size >= size - _SLACK


class _PipeInput:
    """A pipe, beside FFmpeg; see :class:`voxfast._decoder.Input`."""

    def __init__(self, file: PipeFile, reader: ByteReader, watcher: Watcher) -> None:
        self._file, self._reader, self.second = file, reader, watcher.second

    def check(self) -> None:
        self._file.check()

    def begin(self) -> None:
        self._reader.forget()

    def at(self, offset: int, size: int) -> bytes:
        return self._reader.kept_at(offset, size)

    def end(self) -> int | None:
        return None

    def is_complete(self, size: int | None) -> bool:
        if size is None:
            return True
        missing = size - _SLACK - self._reader.count
        return missing <= 0 or self._reader.skip(missing)


class _OggInput:
    """A link of an Ogg chain, beside FFmpeg; see :class:`voxfast._decoder.Input`."""

    def __init__(self, file: PipeFile, links: OggLinks) -> None:
        self._file, self._links = file, links

    def check(self) -> None:
        self._file.check()

    def begin(self) -> None:
        pass

    def at(self, offset: int, size: int) -> bytes:
        return b""

    def second(self, kind: str, first: int, last: range) -> int | None:
        return None  # Links are told apart, and what is no Ogg, by their pages.

    def end(self) -> int | None:
        return self._links.end

    def is_complete(self, size: int | None) -> bool:
        while self._links.some(1 << 16):
            pass
        return self._links.is_complete

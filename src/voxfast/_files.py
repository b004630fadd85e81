"""Audio files, opened and decoded block by block at their own rate.

Plain WAV is read here, as from a pipe; libsndfile decodes everything else.
"""

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from voxfast import _containers, _pcm
from voxfast._pcm import Frames
from voxfast.errors import AudioFileError

# Frames that are decoded at once, whatever block size is asked for: what comes out of a
# decoder then never depends on it.
_READ_FRAMES = 8192
_RAW_SUFFIXES = (".raw", ".pcm")


@dataclass(frozen=True, slots=True)
class Source:
    """An open audio file.

    Attributes:
        rate: samples per second.
        seconds: of audio that the file promises; None if it does not say.
        blocks: its frames, [N, channels] of float32; raises AudioFileError after the last
            good one if the file is cut off or damaged.
    """

    rate: int
    seconds: float | None
    blocks: Iterator[Frames]


@contextmanager
def open_source(path: str | os.PathLike[str], start: float = 0.0) -> Iterator[Source]:
    """Open an audio file at ``start`` seconds.

    Raises:
        AudioFileError: if it is missing, no regular file, empty, or not audio.
    """
    name = os.fspath(path)
    with _open(path) as file:
        header = _wav_header(file, name)
        if header is not None:
            yield _wav_source(file, header, start, name)
            return
        file.seek(0)
        try:
            # By descriptor, not by file object: an interrupt that lands in one of
            # soundfile's callbacks would be printed and forgotten.
            sound = soundfile.SoundFile(file.fileno(), closefd=False)
        except soundfile.SoundFileError as error:
            remedy = "to convert it: ffmpeg -i INPUT -ar 16000 -ac 1 OUTPUT.wav"
            if Path(path).suffix.lower() in _RAW_SUFFIXES:
                remedy = (
                    "raw samples are read from a pipe, at the rate and in the format that they "
                    "have: voxfast transcribe - --raw-rate 16000 --raw-format s16le < "
                    f"{shlex.quote(name)} (in Python: voxfast.audio.stream_pcm)"
                )
            raise AudioFileError(
                f"{name} is not audio that can be read (WAV, FLAC, Ogg, MP3, AIFF, ...): "
                f"{_reason(error)}; {remedy}"
            ) from error
        with sound:
            yield _sound_source(sound, file.fileno(), start, name)


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file; every other thing that a path can be is an AudioFileError."""
    name = os.fspath(path)
    try:
        # Looked at before it is opened: opening a named pipe waits for its writer.
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioFileError(f"{name} is a folder; give the audio files in it")
        if not stat.S_ISREG(status.st_mode):
            raise AudioFileError(f"{name} is not a regular file; see voxfast.audio.stream_pcm")
        if status.st_size == 0:
            raise AudioFileError(f"{name} is empty")
        # Unbuffered, so that Python and libsndfile agree about the descriptor's position.
        return Path(path).open("rb", buffering=0)
    except FileNotFoundError:
        raise AudioFileError(f"{name} does not exist") from None
    except AudioFileError:
        raise
    except (OSError, ValueError) as error:
        raise AudioFileError(f"{name!r} cannot be opened: {error}") from error


def _wav_header(file: BinaryIO, name: str) -> _pcm.WavHeader | None:
    """The header of a WAV file of plain PCM; None if libsndfile has to see to the file."""
    magic = file.read(4)
    file.seek(0)
    if magic not in (b"RIFF", b"RF64"):
        return None
    try:
        return _pcm.read_wav_header(_pcm.ByteReader(file), name)
    except _pcm.UnsupportedWavError:
        return None


def _wav_source(file: BinaryIO, header: _pcm.WavHeader, start: float, name: str) -> Source:
    """Plain WAV from ``start`` seconds on."""
    encoding = header.encoding
    present = os.fstat(file.fileno()).st_size - header.offset
    promised = present if header.data_bytes is None else header.data_bytes
    skipped = round(start * encoding.rate) * encoding.frame_bytes
    if skipped and skipped >= present:
        raise AudioFileError(f"{name} is over before {start:g} s")
    file.seek(header.offset + skipped)
    blocks = _pcm.read_frames(
        _pcm.ByteReader(file),
        encoding,
        limit=header.data_bytes,
        skipped=skipped,
        block_frames=_READ_FRAMES,
        name=name,
    )
    return Source(encoding.rate, promised / encoding.frame_bytes / encoding.rate, blocks)


def _sound_source(sound: soundfile.SoundFile, file: int, start: float, name: str) -> Source:
    """A file that libsndfile decodes, from ``start`` seconds on."""
    rate: int = sound.samplerate
    _pcm.check_encoding(rate, sound.channels, name)
    promised = _containers.promised_frames(sound, file)
    first = round(start * rate)
    if first:
        known = _containers.known_frames(sound)
        if known is not None and first >= known:
            raise AudioFileError(f"{name} is over before {start:g} s")
        try:
            sound.seek(first)
        except soundfile.SoundFileError as error:
            raise AudioFileError(
                f"{name} cannot be read from {start:g} s: {_reason(error)}"
            ) from error
    blocks = _decode(sound, file, promised, first, name)
    return Source(rate, None if promised is None else promised / rate, blocks)


def _decode(
    sound: soundfile.SoundFile, file: int, promised: int | None, first: int, name: str
) -> Iterator[Frames]:
    """Frames from the current position on, then an error if any are missing."""
    position, failure = first, ""
    while not failure:
        # Decoders fill what they can before they fail; no decoder makes NaN of nothing.
        block: Frames = np.full((_READ_FRAMES, sound.channels), np.nan, np.float32)
        try:
            block = sound.read(out=block)
        except soundfile.SoundFileError as error:
            failure = _reason(error)
            missing = np.isnan(block).any(axis=1)
            block = block[: int(np.argmax(missing))] if missing.any() else block
        if not len(block):
            break
        position += len(block)
        yield block
    rate = sound.samplerate
    at_end = os.lseek(file, 0, os.SEEK_CUR) >= os.fstat(file).st_size
    if failure and not at_end:
        raise AudioFileError(f"{name} is damaged at {position / rate:.2f} s: {failure}")
    # At the end of a FLAC stream of unknown length libsndfile reports lost sync.
    if failure and (sound.format != "FLAC" or promised is not None) and promised != position:
        raise _pcm.truncated(name, position / rate, promised and promised / rate)
    if promised is not None and position + _containers.tolerance(sound) < promised:
        if sound.format == "MP3" and not at_end:
            raise AudioFileError(
                f"{name}: only {position / rate:.2f} s of {promised / rate:.2f} s could be read, "
                f"for want of an index of its MP3 frames; to add one: "
                f"ffmpeg -i INPUT -c copy OUTPUT.mp3"
            )
        raise _pcm.truncated(name, position / rate, promised / rate)
    if sound.format == "OGG" and not _containers.ogg_is_complete(file):
        raise _pcm.truncated(name, position / rate, None)


def _reason(error: soundfile.SoundFileError) -> str:
    """libsndfile's own words for an error."""
    text = str(getattr(error, "error_string", error)).removeprefix("Error : ").strip(" .")
    return text or "unknown error"

"""What a recording is read with: plain WAV and raw PCM here, everything else by FFmpeg."""

import io
import logging
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from voxfast import _media, _pcm
from voxfast._addresses import RemoteFile, is_address, without_secrets
from voxfast._joined import BEGINNING, beginning
from voxfast._media import Source
from voxfast._pcm import Block, Encoding
from voxfast._sniff import demuxer_of
from voxfast._streams import ByteReader, as_regular_file
from voxfast.errors import AudioFileError

_log = logging.getLogger(__name__)
_BLOCK_SECONDS = 0.2  # of files, decoded at once
_SHORTEST_SECONDS = 0.01
_LONGEST_HEADER = 1 << 24  # bytes of WAV before its format
_RAW_SUFFIXES = (".raw", ".pcm")


@contextmanager
def open_path(path: str | os.PathLike[str], start: float = 0.0) -> Iterator[Source]:
    """Open an audio file, on disk or at an address, at ``start`` seconds.

    Raises:
        AudioFileError: if it is missing, no regular file, empty, or not audio.
    """
    name = os.fspath(path)
    if is_address(name):
        with _open_address(name) as source:
            yield Source(source.seconds, _from(source.blocks, start, without_secrets(name)))
        return
    with _open(path) as file:
        reader = ByteReader(file, name)
        demuxer = demuxer_of(reader, name)
        header = _wav_header(reader, name) if demuxer == "wav" else None
        if header is not None:
            yield _wav_file(file, header, start, name)
            return
        try:
            with _media.open_file(file, demuxer, name) as source:
                blocks = _at_least(source.blocks, _SHORTEST_SECONDS)
                yield Source(source.seconds, _from(blocks, start, name))
        except _media.UnknownContainerError as error:
            remedy = "to convert it: ffmpeg -i INPUT -ar 16000 -ac 1 OUTPUT.wav"
            if Path(path).suffix.lower() in _RAW_SUFFIXES:
                remedy = (
                    "raw samples are read from a pipe, at the rate and in the format that they "
                    "have: voxfast transcribe - --raw-rate 16000 --raw-format s16le < "
                    f"{shlex.quote(name)} (in Python: voxfast.audio.stream_pcm)"
                )
            raise AudioFileError(f"{error}; {remedy}") from error


@contextmanager
def open_stream(
    stream: BinaryIO, *, raw: Encoding | None, is_raw: bool, block_seconds: float, name: str
) -> Iterator[Source]:
    """Open a pipe, or another stream at its beginning.

    Args:
        raw: what its samples are if it is raw PCM; None: what is not recognised is no audio.
        is_raw: whether the caller knows that it is; else it is if nothing is recognised.

    Raises:
        AudioFileError: if it is known to be no audio, or not read from a pipe.
    """
    file = as_regular_file(stream)
    reader = ByteReader(file or stream, name)
    if is_raw and raw is not None:
        if kind := beginning(reader.peek(BEGINNING)):
            _log.warning(
                "%s begins like a file (%s), and is taken as raw PCM as was asked for; without the "
                "raw options it would be decoded",
                name,
                kind,
            )
        yield _raw(reader, raw, block_seconds, name)
        return
    demuxer = demuxer_of(reader, name)
    if demuxer is None:
        if raw is None:
            fault = "begins like no audio file that is known" if reader.peek(1) else "is empty"
            raise AudioFileError(f"{name} {fault}")
        if reader.peek(1):
            _log.warning(
                "%s does not begin like any audio file: taken as raw PCM, %s, %d Hz, %s "
                "(--raw-format, --raw-rate and --raw-channels say otherwise)",
                name,
                raw.sample_format,
                raw.rate,
                "mono" if raw.channels == 1 else f"{raw.channels} channels",
            )
        yield _raw(reader, raw, block_seconds, name)
        return
    if demuxer == "wav":
        reader.keep(_LONGEST_HEADER)
        header = _wav_header(reader, name)
        if header is not None:
            blocks = _pcm.read_wav(reader, header, block_seconds=block_seconds, name=name)
            yield Source(lambda: None, blocks)
            return
        reader.rewind()
    opened = (
        _media.open_pipe(reader, demuxer, name)
        if file is None
        else _media.open_file(file, demuxer, name)
    )
    with opened as source:
        blocks = _at_least(source.blocks, _SHORTEST_SECONDS)
        yield Source(lambda: None, _at_most(blocks, block_seconds))


@contextmanager
def _open_address(address: str) -> Iterator[Source]:
    """Open an object of a store, which is read from beginning to end."""
    name = without_secrets(address)
    with RemoteFile(address) as file:
        stream: Any = file
        with open_stream(
            stream, raw=None, is_raw=False, block_seconds=_BLOCK_SECONDS, name=name
        ) as source:
            yield source


def _open(path: str | os.PathLike[str]) -> io.FileIO:
    """Open a regular file; every other thing that a path can be is an AudioFileError."""
    name = os.fspath(path)
    if not name:  # pathlib takes it for the present folder
        raise AudioFileError("the name of the audio file is empty")
    try:
        # Looked at before it is opened: opening a named pipe waits for its writer.
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioFileError(f"{name} is a folder; give the audio files in it")
        if not stat.S_ISREG(status.st_mode):
            raise AudioFileError(f"{name} is not a regular file; see voxfast.audio.stream_pcm")
        if status.st_size == 0:
            raise AudioFileError(f"{name} is empty")
        return io.FileIO(path)
    except FileNotFoundError:
        raise AudioFileError(f"{name} does not exist") from None
    except AudioFileError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioFileError(f"{name!r} cannot be opened: {reason}") from error


def _wav_header(reader: ByteReader, name: str) -> _pcm.WavHeader | None:
    """The header of plain WAV; None if FFmpeg has to see to it."""
    try:
        return _pcm.read_wav_header(reader, name)
    except _pcm.CompressedWavError:
        return None


def _wav_file(file: io.FileIO, header: _pcm.WavHeader, start: float, name: str) -> Source:
    """A file of plain WAV, from ``start`` seconds on."""
    encoding = header.encoding
    present = os.fstat(file.fileno()).st_size - header.offset
    promised = present if header.data_bytes is None else header.data_bytes
    skipped = round(start * encoding.rate) * encoding.frame_bytes
    if skipped and skipped >= present:
        raise AudioFileError(f"{name} is over before {start:g} s")
    file.seek(header.offset + skipped)
    blocks = _pcm.read_wav(
        ByteReader(file, name), header, skipped=skipped, block_seconds=_BLOCK_SECONDS, name=name
    )
    return Source(lambda: promised / encoding.frame_bytes / encoding.rate, blocks)


def _raw(reader: ByteReader, encoding: Encoding, block_seconds: float, name: str) -> Source:
    """Raw PCM."""
    blocks = _pcm.read_frames(reader, encoding, limit=None, block_seconds=block_seconds, name=name)
    return Source(lambda: None, blocks)


def _from(blocks: Iterator[Block], start: float, name: str) -> Iterator[Block]:
    """Blocks from ``start`` seconds on. What is left out is decoded: seeking is not exact."""
    left, unit, is_over = start, 1, start > 0
    for rate, frames in blocks:
        left, unit = left * rate / unit, rate
        skipped = min(len(frames), round(left))
        left -= skipped
        if skipped < len(frames):
            is_over = False
            yield rate, frames[skipped:]
    if is_over:
        raise AudioFileError(f"{name} is over before {start:g} s")


def _at_least(blocks: Iterator[Block], seconds: float) -> Iterator[Block]:
    """The same in blocks of at least ``seconds``: some containers hold single samples."""
    held: list[Block] = []
    count = 0
    failure: AudioFileError | None = None
    try:
        for rate, frames in blocks:
            if held and (held[0][0], held[0][1].shape[1]) != (rate, frames.shape[1]):
                yield _joined(held)
                held, count = [], 0
            held.append((rate, frames))
            count += len(frames)
            if count >= seconds * rate:
                yield _joined(held)
                held, count = [], 0
    except AudioFileError as error:
        failure = error
    if held:
        yield _joined(held)
    if failure is not None:
        raise failure


def _joined(blocks: list[Block]) -> Block:
    """Blocks of one format as one."""
    if len(blocks) == 1:
        return blocks[0]
    return blocks[0][0], np.concatenate([frames for _, frames in blocks])


def _at_most(blocks: Iterator[Block], seconds: float) -> Iterator[Block]:
    """The same in blocks of at most ``seconds``."""
    for rate, frames in blocks:
        size = max(1, round(seconds * rate))
        for at in range(0, len(frames), size):
            yield rate, frames[at : at + size]

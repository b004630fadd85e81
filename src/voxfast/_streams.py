"""Byte streams as they come: pipes, non-blocking ones too, and what was read of them before."""

import io
import os
import select
import stat
import tempfile
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from voxfast.errors import AudioFileError

_CHUNK = 1 << 16
_IN_MEMORY = 1 << 20


class ByteReader:
    """Reads a byte stream, a file or a pipe, from its present position on, and counts.

    What was peeked at is read again. Between :meth:`keep` and :meth:`forget`, all that is
    read is kept, in memory or in a temporary file, so that it can be read from the start
    once more.

    Args:
        stream: anything with ``read``; a non-blocking one is waited for.
        name: what errors call the stream.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        # read1 returns what a pipe holds; read would wait until the whole amount is there.
        self._read: Callable[[int], bytes | None] = getattr(stream, "read1", stream.read)
        self._ahead = b""
        self._kept: _Kept | None = None
        self.count = 0

    def some(self, most: int) -> bytes:
        """1 to ``most`` bytes, as soon as there are any; nothing at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:most], self._ahead[most:]
        else:
            data = self._fetch(most)
        self.count += len(data)
        if self._kept is not None:
            self._kept.write(data)
        return data

    def exactly(self, wanted: int) -> bytes:
        """``wanted`` bytes; fewer only at the end of the stream."""
        parts: list[bytes] = []
        while wanted > 0 and (data := self.some(min(wanted, _CHUNK))):
            parts.append(data)
            wanted -= len(data)
        return b"".join(parts)

    def skip(self, wanted: int) -> bool:
        """Read past ``wanted`` bytes; False if the stream ends before."""
        while wanted > 0:
            data = self.some(min(wanted, _CHUNK))
            if not data:
                return False
            wanted -= len(data)
        return True

    def peek(self, wanted: int) -> bytes:
        """The next ``wanted`` bytes, which stay unread; fewer only at the end of the stream."""
        while len(self._ahead) < wanted and (data := self._fetch(_CHUNK)):
            self._ahead += data
        return self._ahead[:wanted]

    def arrived(self) -> bytes:
        """What is at hand without waiting, unread; something, unless the stream has ended."""
        self.peek(1)
        return self._ahead

    def keep(self, most: int | None = None) -> None:
        """Keep all that is read from now on.

        Args:
            most: how many bytes to keep in memory; more are an AudioFileError. None: any
                number, in a temporary file if they are many.
        """
        self._kept = _Kept(self._name, most)

    def forget(self) -> None:
        """Let go of what was kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def rewind(self) -> None:
        """Read again what was kept in memory."""
        assert self._kept is not None
        data = self._kept.head(self.count)
        self.forget()
        self._ahead = data + self._ahead
        self.count -= len(data)

    def kept_at(self, offset: int, size: int) -> bytes:
        """``size`` of the kept bytes from ``offset`` on."""
        return b"" if self._kept is None else self._kept.head(offset + size)[offset:]

    def to_file(self) -> io.FileIO:
        """A temporary file of what was kept and all that follows.

        Raises:
            AudioFileError: if it does not fit on the disk.
        """
        assert self._kept is not None
        while self.some(_CHUNK):
            pass
        file = self._kept.file()
        file.seek(0)
        self._kept = None
        return file

    def _fetch(self, most: int) -> bytes:
        """Bytes from the stream itself; nothing at the end."""
        is_ready = False
        while True:
            try:
                data = self._read(most)
            except BlockingIOError:
                data = None
            if data:
                return bytes(data)
            # Of a non-blocking stream, BufferedReader.read1 returns b"" at the end and when
            # nothing is there yet; after a wait it is the end.
            if data is not None and (is_ready or not self._is_non_blocking()):
                return b""
            self._wait()
            is_ready = True

    def _descriptor(self) -> int | None:
        try:
            return self._stream.fileno()
        except (AttributeError, OSError, ValueError):
            return None

    def _is_non_blocking(self) -> bool:
        descriptor = self._descriptor()
        return descriptor is not None and not os.get_blocking(descriptor)

    def _wait(self) -> None:
        """Wait until there is something to read, or the end."""
        descriptor = self._descriptor()
        if descriptor is None:
            time.sleep(0.01)
        else:
            select.select([descriptor], [], [])


class _Kept:
    """Bytes in the order they came, on disk once they are many."""

    def __init__(self, name: str, most: int | None) -> None:
        self._name, self._most = name, most
        self._data = bytearray()
        self._file: io.FileIO | None = None

    def write(self, data: bytes) -> None:
        """Add bytes."""
        if self._file is None:
            self._data += data
            if self._most is not None:
                if len(self._data) > self._most:
                    raise AudioFileError(
                        f"{self._name}: no audio within its first {self._most} bytes"
                    )
            elif len(self._data) > _IN_MEMORY:
                self.file()
        else:
            self._store(data)

    def head(self, size: int) -> bytes:
        """The first ``size`` bytes."""
        if self._file is None:
            return bytes(self._data[:size])
        return os.pread(self._file.fileno(), size, 0)

    def file(self) -> io.FileIO:
        """All of it as a file, positioned at its end."""
        if self._file is None:
            data, self._data = bytes(self._data), bytearray()
            try:
                # Unbuffered: a FileIO is read in C, where an interrupt cannot get lost.
                file: Any = tempfile.TemporaryFile(prefix="voxfast-", buffering=0)  # noqa: SIM115
            except OSError as error:
                raise self._full(error) from error
            self._file = file
            self._store(data)
        assert self._file is not None
        return self._file

    def close(self) -> None:
        """Remove the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def _store(self, data: bytes) -> None:
        assert self._file is not None
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> AudioFileError:
        try:
            place = tempfile.gettempdir()
        except OSError:
            place = "the temporary folder"
        return AudioFileError(
            f"{self._name} has to be kept whole before it can be decoded, and {place} does not "
            f"take it: {error.strerror or error}; give the file by name, or set TMPDIR to a "
            f"folder with space"
        )


def as_regular_file(stream: BinaryIO) -> io.FileIO | None:
    """A stream that is a regular file at its beginning (``< talk.m4a``), as one."""
    try:
        descriptor = stream.fileno()
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and stream.tell() == 0:
            os.lseek(descriptor, 0, os.SEEK_SET)
            return io.FileIO(descriptor, closefd=False)
    except (AttributeError, OSError, ValueError):
        pass
    return None


class SeekableFile:
    """A regular file as FFmpeg reads it.

    FileIO reads in C, where an interrupt cannot get lost. A damaged file can make FFmpeg seek
    to nowhere; PyAV would print the exception of that.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.read = file.read
        self.tell = file.tell

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sought in."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position; -1 if there is no such place."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError, ValueError):
            return -1


class PipeFile:
    """A pipe as FFmpeg reads it.

    Exceptions, Ctrl-C among them, cannot pass through FFmpeg: they end its input and wait
    for :meth:`check`.

    Args:
        some: gives 1 to as many bytes as it is asked for; nothing at the end.
    """

    def __init__(self, some: Callable[[int], bytes]) -> None:
        self._some = some
        self._failure: BaseException | None = None

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sought in."""
        return False

    def read(self, most: int) -> bytes:
        """1 to ``most`` bytes; nothing at the end, or if reading failed."""
        try:
            return b"" if self._failure is not None else self._some(most)
        except BaseException as error:
            self._failure = error
            return b""

    def check(self) -> None:
        """Raise what reading raised."""
        if self._failure is not None:
            raise self._failure

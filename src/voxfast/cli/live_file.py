"""Files that transcripts are written to while the words come.

Where the text is, in one rule:

* Nothing is there yet, or an empty file: the text goes into the file itself, from the first
  word on (``tail -f`` shows it), and whatever ends the run leaves it there.
* The file has a content: it stays as it is. The text goes to ``NAME.voxfast.part`` beside it,
  and takes the place of the file when the transcript is complete. Otherwise it stays there.
* A device, a named pipe or a descriptor is written to as it is.

A complete transcript takes the place of a file by being renamed, or, where that would break
the file (a hard link, a bind mount, another owner, extended attributes), by being copied into
it. Parts that earlier runs have left are then removed; they are told from those of other runs
by their lock, which ends with its process.
"""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from voxfast.cli.console import write_all

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
# Renaming onto a mount point, across file systems, or where only the file may be changed.
_COPIED_INSTEAD = (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.ETXTBSY)
_NO_PART_HERE = (errno.EACCES, errno.EPERM, errno.EROFS)
_LONGEST_NAME = 255


def descriptor_of(path: Path) -> int | None:
    """The open descriptor that a path names (``/dev/stdout``, ``/dev/fd/3``), also by links."""
    path = path.absolute()
    for _ in range(40):
        name = os.path.normpath(path)
        if name in _STREAMS:
            return _STREAMS[name]
        if match := _DESCRIPTOR.fullmatch(name):
            return int(match[1])
        try:
            path = path.parent / path.readlink()
        except (OSError, ValueError):
            break
    return None


def has_content(path: Path) -> bool:
    """Whether a path names a file that is not empty."""
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def check_writable(path: Path) -> None:
    """Raise the OSError that writing to a path will end in, as far as it can be told."""
    descriptor = descriptor_of(path)
    with errors_of(path):
        if descriptor is not None:
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(errno.EBADF, "the descriptor is not open for writing")
            return
        place = Path(os.path.realpath(path))
        try:
            is_folder = stat.S_ISDIR(place.stat().st_mode)
        except FileNotFoundError:
            if not place.parent.is_dir():
                raise FileNotFoundError(
                    errno.ENOENT, f"No such file, and no folder {path.parent}"
                ) from None
            if not os.access(place.parent, os.W_OK | os.X_OK):
                raise PermissionError(
                    errno.EACCES, f"the folder {path.parent} cannot be written to"
                ) from None
            return
        if is_folder:
            raise IsADirectoryError(errno.EISDIR, "is a folder; the transcript needs a file")
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is there and cannot be written to")


class LiveFile:
    """One file on its way; see the module for where its text is.

    Args:
        path: what the user named.
        live: False if what is written on the way is only a journal, which :meth:`rewrite`
            ends: it never becomes the file, and is not written to a device.

    Raises:
        OSError: with the user's path, from every method: if it cannot be written.
    """

    def __init__(self, path: Path, *, live: bool = True) -> None:
        self._path = path
        self._is_journal = not live
        self._part: Path | None = None
        self._size: int | None = None  # of the text; None: not a regular file
        self._created = False
        with errors_of(path):
            descriptor = descriptor_of(path)
            if descriptor is not None:
                self._fd = os.dup(descriptor)
                return
            self._place = Path(os.path.realpath(path))  # a link stays a link
            self._fd = self._open(live)

    def write(self, text: str) -> None:
        """Append text: whole records, none of which is ever seen in part after an error."""
        if self._is_journal and self._size is None:
            return
        data = text.encode()
        with errors_of(self._path):
            try:
                write_all(self._fd, data)
            except BaseException:
                if self._size is not None:
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._fd, self._size)
                raise
        if self._size is not None:
            self._size += len(data)

    def rewrite(self, text: str) -> None:
        """Put another text in the place of what was written, which survives errors."""
        if self._part is None:
            self._is_journal = False
            self.write(text)
            return
        with errors_of(self._path):
            mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
            fd, part = _create_part(self._place, mode)
            try:
                write_all(fd, text.encode())
            except BaseException:
                os.close(fd)
                part.unlink()
                raise
            self._part.unlink()
            os.close(self._fd)
            self._fd, self._part, self._size = fd, part, len(text.encode())
            self._is_journal = False

    def close(self, *, complete: bool, overwrite: bool = True) -> Path | None:
        """End the file; return where its text is, None if it is kept nowhere.

        A part becomes the file if it is complete, or if the file has no content; a journal
        never does.
        """
        with errors_of(self._path):
            try:
                if self._size is None:
                    return None
                with contextlib.suppress(OSError):  # not every file system can
                    os.fsync(self._fd)
                if self._part is None:
                    self._check_in_place()
                    return self._path
                is_free = (complete and overwrite) or not has_content(self._place)
                if self._is_journal or not is_free:
                    return self._keep(self._part)
                self._put_in_place(self._part)
            finally:
                os.close(self._fd)
                self._fd = -1
            self._part = None
            _remove_dead_parts(self._place)
            return self._path

    def discard(self) -> None:
        """Give up a file that nothing was written to; no effect after :meth:`close`."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            if self._part is not None:
                self._part.unlink()
            elif self._created and self._size == 0:
                self._place.unlink()
        os.close(self._fd)
        self._fd = -1

    def _open(self, live: bool) -> int:
        """The descriptor that text is written to."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        try:
            status = self._place.stat()
        except FileNotFoundError:
            self._size = 0
            if not live:
                fd, self._part = _create_part(self._place, None)
                return fd
            fd = os.open(self._place, flags | os.O_CREAT | os.O_EXCL, 0o666)
            self._created = True
            _lock(fd)
            return fd
        fd = os.open(self._place, flags)  # also to find out whether it may be written
        if not stat.S_ISREG(status.st_mode):
            return fd
        self._size = 0
        try:
            _lock(fd)
        except BaseException:
            os.close(fd)
            raise
        if live and not status.st_size:
            return fd
        os.close(fd)
        fd, self._part = _create_part(self._place, stat.S_IMODE(status.st_mode))
        with contextlib.suppress(OSError):  # only root may give files away
            if (status.st_uid, status.st_gid) != _owner(os.fstat(fd)):
                os.fchown(fd, status.st_uid, status.st_gid)
                os.fchmod(fd, stat.S_IMODE(status.st_mode))
        return fd

    def _keep(self, part: Path) -> Path | None:
        """Leave the part where it is, unless nothing is in it."""
        if self._size:
            return part
        part.unlink()
        return None

    def _check_in_place(self) -> None:
        """Raise if the file was removed or replaced while it was written."""
        try:
            same = os.path.samestat(self._place.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            same = False
        if not same:
            raise OSError(errno.ESTALE, "was removed or replaced while it was written")

    def _put_in_place(self, part: Path) -> None:
        """Let the part take the place of the file.

        Raises:
            OSError: with the name of the part, which has the text still.
        """
        try:
            self._replace(part)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}; the new text is in {part}") from error

    def _replace(self, part: Path) -> None:
        try:
            status = self._place.stat()
        except FileNotFoundError:
            part.replace(self._place)
            return
        plain = (
            status.st_nlink == 1
            and _owner(status) == _owner(part.stat())
            and not _has_attributes(self._place)
        )
        try:
            if plain:
                part.replace(self._place)
                return
        except OSError as error:
            if error.errno not in _COPIED_INSTEAD:
                raise
        _copy(part, self._place)
        part.unlink()


def _copy(part: Path, place: Path) -> None:
    """Copy a text into a file, which keeps everything but its content.

    What is beyond the old end is written first: if the disk is full, the old text is whole.
    """
    text = part.read_bytes()
    fd = os.open(place, os.O_WRONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        try:
            os.lseek(fd, size, os.SEEK_SET)
            write_all(fd, text[size:])
        except BaseException:
            os.ftruncate(fd, size)
            raise
        os.lseek(fd, 0, os.SEEK_SET)
        write_all(fd, text[:size])
        os.ftruncate(fd, len(text))
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def _create_part(place: Path, mode: int | None) -> tuple[int, Path]:
    """A new file beside another one, locked.

    If only that one may be written (``mode`` is its mode), in the temporary folder.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for number in itertools.count(1):
        part = place.with_name(_part_name(place, number))
        try:
            fd = os.open(part, flags, 0o666 if mode is None else mode)
        except FileExistsError:
            continue
        except OSError as error:
            if mode is None or error.errno not in _NO_PART_HERE:
                raise
            fd, name = tempfile.mkstemp(prefix="voxfast-", suffix=".part")
            part = Path(name)
        _lock(fd)
        if mode is not None:
            os.fchmod(fd, mode)  # the umask took some
        return fd, part
    raise AssertionError("there is always another number")


def _part_name(place: Path, number: int) -> str:
    """``NAME.voxfast.part``, ``NAME.voxfast-2.part`` …, within the length that names may have."""
    ending = f".voxfast{'' if number == 1 else f'-{number}'}.part"
    return _stem(place) + ending


def _stem(place: Path) -> str:
    """The name of a file, or a shorter one that is no other file's."""
    room = _name_max(place.parent) - len(".voxfast-999.part")
    name = os.fsencode(place.name)
    if len(name) <= room:
        return place.name
    digest = hashlib.sha256(name).hexdigest()[:8]
    return name[: room - 9].decode(errors="ignore") + "~" + digest


def _name_max(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        return _LONGEST_NAME


def _remove_dead_parts(place: Path) -> None:
    """Remove what earlier runs have left of this file; those that still run hold a lock."""
    pattern = re.compile(re.escape(_stem(place)) + r"\.voxfast(-\d+)?\.part")
    with contextlib.suppress(OSError):
        for part in place.parent.iterdir():
            if pattern.fullmatch(part.name):
                _remove_if_dead(part)


def _remove_if_dead(part: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(part, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if _lock(fd):
                part.unlink()
        finally:
            os.close(fd)


def _lock(fd: int) -> bool:
    """Lock an open file for as long as it is open; False if its file system has no locks.

    Raises:
        OSError: if it is locked already.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "is being written by another process") from None
    except OSError:
        return False
    return True


def _owner(status: os.stat_result) -> tuple[int, int]:
    return status.st_uid, status.st_gid


def _has_attributes(path: Path) -> bool:
    """Whether a file has extended attributes, such as an access control list, of its own."""
    try:
        return any(not name.startswith("security.") for name in os.listxattr(path))
    except (AttributeError, OSError):  # not on this system
        return False


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Give errors the name of the file that the user knows."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error

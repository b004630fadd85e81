"""Files that are written while the words come: where their text is, whatever happens."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from voxfast.cli import live_file
from voxfast.cli.live_file import LiveFile, check_writable, descriptor_of

PART = "talk.srt.voxfast.part"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "talk.srt"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_is_written_in_its_place(path):
    file = LiveFile(path)
    file.write("one\n")
    assert path.read_text() == "one\n"
    file.write("two\n")
    assert path.read_text() == "one\ntwo\n"
    assert file.close(complete=False) == path
    assert path.read_text() == "one\ntwo\n"


def test_an_empty_file_is_written_in_its_place(path):
    path.touch(mode=0o640)
    inode = path.stat().st_ino
    file = LiveFile(path)
    file.write("one\n")
    assert path.read_text() == "one\n"
    file.close(complete=True)
    assert (path.stat().st_ino, stat.S_IMODE(path.stat().st_mode)) == (inode, 0o640)


@pytest.mark.parametrize("complete", [True, False])
def test_a_file_with_a_content_stays_until_the_text_is_complete(path, complete):
    path.write_text("old\n")
    file = LiveFile(path)
    file.write("new\n")
    assert path.read_text() == "old\n"
    part = path.with_name(PART)
    assert part.read_text() == "new\n"
    place = file.close(complete=complete)
    if complete:
        assert (place, path.read_text(), names(path.parent)) == (path, "new\n", ["talk.srt"])
    else:
        assert (place, path.read_text(), part.read_text()) == (part, "old\n", "new\n")


def test_a_file_that_came_meanwhile_is_not_replaced(path):
    file = LiveFile(path, live=False)
    file.write("journal\n")
    file.rewrite("new\n")
    path.write_text("another's\n")
    assert file.close(complete=True, overwrite=False) == path.with_name("talk.srt.voxfast-2.part")
    assert path.read_text() == "another's\n"


def test_an_empty_part_is_not_kept(path):
    path.write_text("old\n")
    assert LiveFile(path).close(complete=False) is None
    assert names(path.parent) == ["talk.srt"]


@pytest.mark.parametrize("content", [None, "old\n"])
def test_discarding_leaves_things_as_they_were(path, content):
    if content:
        path.write_text(content)
    before = names(path.parent)
    file = LiveFile(path)
    file.discard()
    file.discard()
    assert names(path.parent) == before


def test_a_journal_survives_until_the_document_is_there(path, monkeypatch):
    file = LiveFile(path, live=False)
    file.write("journal\n")
    assert not path.exists()
    assert path.with_name(PART).read_text() == "journal\n"

    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(live_file, "write_all", full)
        with pytest.raises(OSError, match="No space"):
            file.rewrite("document\n")
    assert names(path.parent) == [PART]
    assert file.close(complete=False) == path.with_name(PART)
    assert path.with_name(PART).read_text() == "journal\n"


def test_the_document_takes_the_place_of_its_journal(path):
    file = LiveFile(path, live=False)
    file.write("journal\n")
    file.rewrite("document\n")
    file.close(complete=False)
    assert path.read_text() == "document\n"
    assert names(path.parent) == ["talk.srt"]


# What is respected


def replace(path: Path, text: str = "new\n") -> None:
    file = LiveFile(path)
    file.write(text)
    file.close(complete=True)


@pytest.mark.parametrize("text", ["new\n", "new, and longer than before\n"])
def test_hard_links(path, text):
    path.write_text("old text\n")
    other = path.with_name("other")
    other.hardlink_to(path)
    replace(path, text)
    assert other.read_text() == text
    assert path.samefile(other)
    assert names(path.parent) == ["other", "talk.srt"]


@pytest.mark.parametrize("content", [None, "", "old\n"])
def test_symbolic_links(path, content):
    target = path.with_name("target.srt")
    if content is not None:
        target.write_text(content)
    path.symlink_to("target.srt")
    replace(path)
    assert path.is_symlink()
    assert target.read_text() == "new\n"


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o640])
def test_modes(path, mode):
    path.write_text("old\n")
    path.chmod(mode)
    file = LiveFile(path)
    assert stat.S_IMODE(path.with_name(PART).stat().st_mode) == mode
    file.close(complete=True)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_new_files_have_the_mode_of_the_umask(path):
    before = os.umask(0o027)
    try:
        replace(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owners(path):
    path.write_text("old\n")
    os.chown(path, 12345, 23456)
    replace(path)
    assert path.read_text() == "new\n"
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no extended attributes here")
def test_extended_attributes(path):
    path.write_text("old\n")
    try:
        os.setxattr(path, "user.voxfast", b"kept")
    except OSError as error:
        pytest.skip(f"no extended attributes on this file system: {error}")
    replace(path)
    assert path.read_text() == "new\n"
    assert os.getxattr(path, "user.voxfast") == b"kept"


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])
def test_files_that_cannot_be_renamed_onto(path, monkeypatch, number):
    def refuse(self: Path, target: Path) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, "replace", refuse)
    path.write_text("a longer old text\n")
    replace(path)
    assert path.read_text() == "new\n"
    assert names(path.parent) == ["talk.srt"]


def test_a_bind_mount(path):
    source = path.with_name("source")
    source.write_text("old\n")
    path.touch()
    with mounted("--bind", str(source), str(path)):
        replace(path)
        assert path.read_text() == "new\n"
    assert source.read_text() == "new\n"


@contextlib.contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Something mounted; its last argument is where."""
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], check=True)


# Names


@pytest.mark.parametrize("name", ["a" * 251 + ".srt", "語" * 83 + "ab.srt", "é" * 127 + "x"])
@pytest.mark.parametrize("content", [None, "old\n"])
@pytest.mark.parametrize("live", [True, False])
def test_names_of_255_bytes(tmp_path, name, content, live):
    path = tmp_path / name
    assert len(os.fsencode(name)) == 255
    if content:
        path.write_text(content)
    file = LiveFile(path, live=live)
    file.write("on the way\n")
    assert all(len(os.fsencode(name)) <= 255 for name in names(tmp_path))
    file.rewrite("new\n") if not live else file.write("new\n")
    file.close(complete=True)
    assert path.read_text() == ("new\n" if not live else "on the way\nnew\n")
    assert names(tmp_path) == [name]


def test_long_names_have_parts_of_their_own(tmp_path):
    paths = [tmp_path / ("a" * 250 + end) for end in ("1.srt", "2.srt")]
    for path in paths:
        path.write_text("old\n")
    files = [LiveFile(path) for path in paths]
    assert len(names(tmp_path)) == 4
    for file in files:
        file.write("new\n")
        file.close(complete=True)
    assert names(tmp_path) == sorted(path.name for path in paths)


# Other runs

OPEN = """
import sys
from pathlib import Path
from voxfast.cli.live_file import LiveFile
file = LiveFile(Path(sys.argv[1]))
file.write("theirs\\n")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def another_run() -> Iterator[Callable[[Path], "subprocess.Popen[str]"]]:
    """Starts processes that write to a path until they are killed."""
    runs: list[subprocess.Popen[str]] = []

    def run(path: Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", OPEN, str(path)]
        runs.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert runs[-1].stdout
        assert runs[-1].stdout.readline() == "open\n"
        return runs[-1]

    yield run
    for process in runs:
        process.kill()
        process.communicate()


def test_parts_of_dead_runs_are_removed(path, another_run):
    path.write_text("old\n")
    for _ in range(2):
        run = another_run(path)
        run.kill()
        run.wait()
    alive = another_run(path)
    mine = [path.with_name(name) for name in ("talk.srt.part", "other.srt.voxfast.part", "x.part")]
    for other in mine:
        other.touch()
    assert len(list(path.parent.glob(f"{path.name}.voxfast*"))) == 3
    replace(path)
    left = list(path.parent.glob(f"{path.name}.voxfast*"))
    assert [part.read_text() for part in left] == ["theirs\n"]
    assert all(other.exists() for other in mine)
    assert path.read_text() == "new\n"
    alive.kill()


def test_two_runs_do_not_write_one_file(path, another_run):
    run = another_run(path)
    with pytest.raises(OSError, match="written by another process"):
        LiveFile(path)
    run.kill()
    run.wait()
    assert path.read_text() == "theirs\n"
    replace(path)
    assert path.read_text() == "new\n"


def test_a_file_that_was_removed_meanwhile_is_an_error(path):
    file = LiveFile(path)
    file.write("new\n")
    path.unlink()
    with pytest.raises(OSError, match=r"removed.*talk\.srt"):
        file.close(complete=True)


# Full disks


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A folder that takes 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)):
        yield folder


@pytest.mark.parametrize("content", [None, "old\n"])
def test_a_full_disk_leaves_whole_records(small_disk, content):
    path = small_disk / "talk.srt"
    if content:
        path.write_text(content)
    file = LiveFile(path)
    record = "x" * 1499 + "\n"

    def fill() -> None:
        for _ in range(100):
            file.write(record)

    with pytest.raises(OSError, match=r"No space.*talk\.srt"):
        fill()
    place = file.close(complete=False)
    text = place.read_text()
    assert len(text) > 20 * len(record)
    assert text == record * (len(text) // len(record))
    if content:
        assert path.read_text() == content


def test_a_disk_that_is_full_at_the_end_leaves_the_old_text(path, monkeypatch):
    path.write_text("old\n")
    path.with_name("other").hardlink_to(path)
    file = LiveFile(path)
    file.write("new, and longer\n")

    def full(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(live_file, "write_all", full)
    with pytest.raises(OSError, match=f"No space.*new text is in .*{PART}"):
        file.close(complete=True)
    assert path.read_text() == "old\n"
    assert path.with_name(PART).read_text() == "new, and longer\n"


# What cannot be written


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("no/such/file.txt", errno.ENOENT),
        ("file/in.txt", errno.ENOTDIR),
        ("folder", errno.EISDIR),
        ("a" * 256, errno.ENAMETOOLONG),
        ("loop", errno.ELOOP),
        ("/dev/fd/999", errno.EBADF),
    ],
)
def test_places_that_cannot_be(tmp_path, name, number):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        check_writable(tmp_path / name)
    assert caught.value.errno == number
    assert caught.value.filename == str(tmp_path / name)


@contextlib.contextmanager
def as_user(number: int) -> Iterator[None]:
    """Act as another user, if root runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(number, number, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder in which the user who runs the test can make no files, and two files in it."""
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, mode in ("read-only.txt", 0o444), ("mine.txt", 0o644):
            (folder / file).write_text("old\n")
            (folder / file).chmod(mode)
            os.chown(folder / file, user, -1)
        folder.chmod(0o555)
        with as_user(user):
            yield folder
        folder.chmod(0o755)


def test_what_may_not_be_written(locked):
    with pytest.raises(PermissionError, match="cannot be written to"):
        check_writable(locked / "read-only.txt")
    with pytest.raises(PermissionError, match=r"the folder .* cannot be written to"):
        check_writable(locked / "new.txt")
    for name in "read-only.txt", "new.txt":
        for live in (True, False):
            with pytest.raises(PermissionError):
                LiveFile(locked / name, live=live)


def test_a_file_may_be_written_where_nothing_fits_beside_it(locked):
    check_writable(locked / "mine.txt")
    file = LiveFile(locked / "mine.txt")
    file.write("new\n")
    place = file.close(complete=False)
    assert place is not None
    assert (place.read_text(), (locked / "mine.txt").read_text()) == ("new\n", "old\n")
    place.unlink()
    replace(locked / "mine.txt")
    assert (locked / "mine.txt").read_text() == "new\n"


# Descriptors


@pytest.mark.parametrize(
    ("name", "descriptor"),
    [
        ("/dev/stdout", 1),
        ("/dev/../dev/fd/7", 7),
        ("/proc/self/fd/12", 12),
        ("/dev/null", None),
        ("link", 1),
        ("file", None),
    ],
)
def test_descriptors(tmp_path, monkeypatch, name, descriptor):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near").symlink_to("/dev/stdout")
    (tmp_path / "link").symlink_to("near")
    assert descriptor_of(Path(name)) == descriptor


def test_a_descriptor_is_written_where_it_stands(path):
    with path.open("w") as log:
        log.write("log\n")
        log.flush()
        file = LiveFile(Path(f"/dev/fd/{log.fileno()}"))
        file.write("one\n")
        assert file.close(complete=True) is None
        log.write("more\n")
    assert path.read_text() == "log\none\nmore\n"
    with path.open() as log, pytest.raises(OSError, match="not open for writing"):
        check_writable(Path(f"/dev/fd/{log.fileno()}"))

"""Where transcripts go: to stdout or to files, while the words come."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from voxfast import formats
from voxfast.cli.console import UsageError, note, say
from voxfast.cli.live_file import LiveFile, check_writable, descriptor_of, has_content
from voxfast.formats import SUFFIXES
from voxfast.timed import Transcript, Word

# Several of these may follow one another on stdout and still be told apart.
_JOINABLE = ("text", "json", "jsonl")
_STDOUT = 1


def chosen_format(format_: str | None, output: str | None, inputs: Sequence[str] = ()) -> str:
    """The format that was asked for, by name or by the suffix of the output.

    Args:
        format_: a key of :data:`voxfast.formats.FORMATS`, or None.
        output: ``--output``; for several inputs a folder, whose suffix says nothing.

    Raises:
        UsageError: if the output is empty, or has a suffix that is no format's.
    """
    if output == "":
        raise UsageError("--output is empty; name a file or a folder, or - for stdout")
    if format_ or output is None:
        return format_ or "text"
    suffix = Path(output).suffix.removeprefix(".")
    for name, ending in SUFFIXES.items():
        if ending == suffix.lower():
            return name
    is_new_file = len(inputs) <= 1 and not _is_folder(output) and not Path(output).exists()
    # That it is an input will be said by plan().
    if suffix and output not in inputs and (is_new_file or Path(output).is_file()):
        raise UsageError(
            f"{output}: .{suffix} is the suffix of no format; use one of "
            f"{', '.join('.' + ending for ending in SUFFIXES.values())}, or say --format"
        )
    return "text"


def plan(
    inputs: Sequence[str], output: str | None, format_: str, *, overwrite: bool = True
) -> list[Path | None]:
    """The file that each input's transcript goes to; None: stdout.

    Raises:
        UsageError: if two transcripts would go to one file, or one onto its own input.
        OSError: if a file cannot be written, or, with ``overwrite`` false, if all are there.
    """
    several = len(inputs) > 1
    if output is None or output == "-" or descriptor_of(Path(output)) == _STDOUT:
        if several and format_ not in _JOINABLE:
            raise UsageError(f"several inputs as {format_} need --output FOLDER")
        return [None] * len(inputs)
    in_folder = several or _is_folder(output)
    paths = _in_folder(inputs, output, format_) if in_folder else [Path(output)]
    sources = {_identity(Path(name)) for name in inputs if name != "-"}
    taken: dict[object, str] = {}
    for name, path in zip(inputs, paths, strict=True):
        place = _identity(path)
        if place in sources:
            raise UsageError(f"the transcript of {name} would overwrite the input {path}")
        if place in taken:
            raise UsageError(f"{taken[place]} and {name} would both be transcribed to {path}")
        taken[place] = name
    for path in paths:
        check_writable(path)
    if not overwrite and all(map(has_content, paths)):
        _refuse(paths[0])
    return list(paths)


def channel_path(path: Path, channel: int) -> Path:
    """The file of one channel: ``talk.srt`` → ``talk.1.srt``."""
    return path.with_name(f"{path.stem}.{channel}{path.suffix}")


class Output:
    """One transcript on its way out, written while its words come.

    JSON is one document and cannot be: its words are kept as JSON Lines beside the file until
    the end. Outputs that share stdout write whole lines (text, jsonl) or whole documents.

    Args:
        format_: a key of :data:`voxfast.formats.FORMATS`.
        path: a file (see :mod:`voxfast.cli.live_file` for where its text is); None: stdout.
        source: the input's name, where the format holds it.
        name_lines: whether lines of JSON name their source.
        channel: number of the channel, from 1, if each has an output of its own: its file is
            :func:`channel_path`, and its format tells the channel.
        overwrite: whether the file may be there already.

    Raises:
        OSError: if the file cannot be written.
    """

    def __init__(
        self,
        format_: str,
        path: Path | None,
        source: str,
        *,
        name_lines: bool = False,
        channel: int | None = None,
        overwrite: bool = True,
    ) -> None:
        # In whatever encoding Python was told that file names are: what they are is UTF-8.
        source = source.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        self._format, self._source, self._channel = format_, source, channel
        self._overwrite = overwrite
        self._said = 0
        self._is_broken = False
        if path is None:
            self._path = None
            self._sink: LiveFile | _Stdout = _Stdout(format_, is_shared=channel is not None)
        else:
            self._path = path if channel is None else channel_path(path, channel)
            if not overwrite and has_content(self._path):
                _refuse(self._path)
            self._sink = LiveFile(self._path, live=format_ != "json")
        self._writer = formats.WRITERS["jsonl" if format_ == "json" else format_](
            source=source if name_lines else None,
            # The name of a text file tells its channel.
            channel=None if format_ == "text" and path is not None else channel,
        )

    def add(self, words: Sequence[Word]) -> None:
        """Write committed words.

        Raises:
            OSError, StdoutError: if that is not possible; nothing more is written then.
        """
        self._said += len(words)
        self._write(self._writer.step(words))

    def pause(self) -> None:
        """Show what was said so far, if outputs that share stdout hold lines back.

        Raises:
            StdoutError: as :meth:`add`.
        """
        if self._path is None and self._channel is not None:
            self._write(self._writer.pause())

    def close(self, transcript: Transcript, *, complete: bool) -> None:
        """Write what has not been written, and say where the text is if that is not plain.

        Args:
            transcript: all words, those that were added first.
            complete: whether it is the transcript of the whole input.

        Raises:
            OSError, StdoutError: if that is not possible.
        """
        try:
            if not self._is_broken:
                self.add(transcript.words[self._said :])
                self._finish(transcript, complete)
        finally:
            complete = complete and not self._is_broken
            place = self._sink.close(complete=complete, overwrite=self._overwrite)
            if place is not None and place != self._path:
                note(f"voxfast: {self._path} stays as it was; the new text is in {place}")
            elif place is not None and not complete:
                note(f"voxfast: {place} has what was transcribed until then")

    def discard(self) -> None:
        """Give up a file that nothing was written to; no effect after :meth:`close`."""
        self._sink.discard()

    def _finish(self, transcript: Transcript, complete: bool) -> None:
        """Write the end of the document, or for JSON all of it."""
        if self._format != "json":
            self._write(self._writer.finish())
            return
        text = formats.to_json(
            transcript, source=self._source, complete=complete, channel=self._channel
        )
        try:
            self._sink.rewrite(text)
        except BaseException:
            self._is_broken = True
            raise

    def _write(self, text: str) -> None:
        try:
            self._sink.write(text)
        except BaseException:
            self._is_broken = True
            raise


class _Stdout:
    """Stdout, which the outputs of several channels may share.

    Text has the terminal's encoding; everything else is read by machines, and is UTF-8.
    """

    def __init__(self, format_: str, *, is_shared: bool) -> None:
        self._encoding = None if format_ == "text" else "utf-8"
        self._by_line = is_shared and format_ in ("text", "jsonl")
        self._by_document = format_ == "json" or (is_shared and not self._by_line)
        self._held = ""

    def write(self, text: str) -> None:
        """Write what may be shown by now."""
        self._held += text
        end = len(self._held)
        if self._by_document:
            end = 0
        elif self._by_line:
            end = self._held.rfind("\n") + 1
        shown, self._held = self._held[:end], self._held[end:]
        if shown:
            try:
                say(shown, encoding=self._encoding)
            except BaseException:
                self._held = ""  # stdout takes no more
                raise

    def rewrite(self, text: str) -> None:
        """Write another text than what was held back."""
        self._held = text

    def close(self, *, complete: bool, overwrite: bool) -> None:
        """Write what was held back."""
        held, self._held = self._held, ""
        if held:
            say(held, encoding=self._encoding)

    def discard(self) -> None:
        """There is nothing to give up."""


def _is_folder(output: str) -> bool:
    """Whether an output stands for a folder, there or not."""
    return output.endswith(os.sep) or Path(output).is_dir()


def _in_folder(inputs: Sequence[str], output: str, format_: str) -> list[Path]:
    """A file for each input, in a folder that is made if it is not there."""
    folder = Path(output)
    if not _is_folder(output) and folder.suffix.removeprefix(".") in SUFFIXES.values():
        raise UsageError(f"several inputs need a folder as --output; {output} names a file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"--output {output} cannot be a folder: {error.strerror}") from error
    stems = ["stdin" if name == "-" else Path(name).stem for name in inputs]
    return [folder / f"{stem}.{SUFFIXES[format_]}" for stem in stems]


def _identity(path: Path) -> object:
    """What two names of one file share, hard links included."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return path.resolve()
    return status.st_dev, status.st_ino


def _refuse(path: Path) -> NoReturn:
    raise FileExistsError(errno.EEXIST, "is there already (--no-overwrite)", str(path))

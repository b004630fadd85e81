"""Where transcripts go: word by word to stdout, or whole, and atomically, to a file."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from voxfast import formats
from voxfast.cli.console import UsageError, say
from voxfast.timed import Transcript, Word

SUFFIXES = {
    "text": "txt",
    "json": "json",
    "jsonl": "jsonl",
    "srt": "srt",
    "vtt": "vtt",
    "tsv": "tsv",
}
_LIVE = ("text", "jsonl")
# Several of these may follow one another on stdout and still be told apart.
_JOINABLE = ("text", "json", "jsonl")


def chosen_format(format_: str | None, output: str | None) -> str:
    """The format that was asked for, by name or by the suffix of the output."""
    suffix = "" if output is None else Path(output).suffix.removeprefix(".").lower()
    return format_ or next((name for name, ending in SUFFIXES.items() if ending == suffix), "text")


def plan(inputs: Sequence[str], output: str | None, format_: str) -> list[Path | None]:
    """The file that each input's transcript goes to; None: stdout.

    Raises:
        UsageError: if two transcripts would go to one file, or one onto its own input.
    """
    several = len(inputs) > 1
    if output is None:
        if several and format_ not in _JOINABLE:
            raise UsageError(f"several inputs as {format_} need --output FOLDER")
        return [None] * len(inputs)
    place = Path(output)
    if not several and not place.is_dir() and not output.endswith(os.sep):
        paths = [place]
    elif not place.is_dir() and place.suffix.removeprefix(".") in SUFFIXES.values():
        raise UsageError(f"several inputs need a folder as --output; {output} names a file")
    else:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--output {output} cannot be a folder: {error.strerror}") from error
        stems = ["stdin" if name == "-" else Path(name).stem for name in inputs]
        paths = [place / f"{stem}.{SUFFIXES[format_]}" for stem in stems]
    sources = {Path(name).resolve() for name in inputs if name != "-"}
    taken: dict[Path, str] = {}
    for name, path in zip(inputs, paths, strict=True):
        place = path.resolve()
        if place in sources:
            raise UsageError(f"the transcript of {name} would overwrite the input {path}")
        if place in taken:
            raise UsageError(f"{taken[place]} and {name} would both be transcribed to {path}")
        taken[place] = name
    return list(paths)


class Output:
    """One transcript on its way out.

    With a path, a file beside it is opened at once, so that an unwritable place is known
    before the work and not after it; :meth:`close` fills it and puts it in place.

    Args:
        format_: a key of :data:`voxfast.formats.FORMATS`.
        path: a file; None: stdout.
        source: the input's name, where the format holds it.
        name_lines: whether lines of JSON name their source.

    Raises:
        OSError: if the file cannot be written.
    """

    def __init__(
        self, format_: str, path: Path | None, source: str, *, name_lines: bool = False
    ) -> None:
        self._format = format_
        self._source = source
        self._line_source = source if name_lines else None
        self._is_live = path is None and format_ in _LIVE
        self._said = 0
        self._begun = False
        self._file = None if path is None else _AtomicFile(path)

    def add(self, words: Sequence[Word]) -> None:
        """Show committed words, if this output is live."""
        self._said += len(words)
        if not self._is_live:
            return
        for word in words:
            if self._format == "jsonl":
                say(formats.word_line(word, source=self._line_source))
            elif text := word.text if self._begun else word.text.lstrip():
                self._begun = True
                say(text)

    def close(self, transcript: Transcript, *, complete: bool) -> None:
        """Write what has not been shown."""
        if self._is_live:
            self.add(transcript.words[self._said :])
            if self._begun:
                say("\n")
            return
        if self._format == "json":
            text = formats.to_json(transcript, source=self._source, complete=complete)
        elif self._format == "jsonl":
            text = formats.to_jsonl(transcript, source=self._line_source)
        else:
            text = formats.FORMATS[self._format](transcript)
        if self._file is None:
            say(text)
        else:
            self._file.commit(text)

    def discard(self) -> None:
        """Give up a file that nothing was written to; no effect after :meth:`close`."""
        if self._file is not None:
            self._file.discard()


class _AtomicFile:
    """A text file that appears whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part: Path | None = None
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            return  # A device or a pipe is written to, never replaced.
        self._path = path.resolve()  # A link stays a link.
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        with _errors_of(path):
            part.touch()
        self._part = part

    def commit(self, text: str) -> None:
        """Write the text and put the file in its place."""
        target = self._part or self._path
        with _errors_of(self._path):
            with target.open("wb") as file:
                file.write(text.encode("utf-8", "backslashreplace"))
                file.flush()
                if self._part:
                    os.fsync(file.fileno())
            if self._part:
                self._part.replace(self._path)
                self._part = None

    def discard(self) -> None:
        """Remove what was not put in place."""
        if self._part:
            self._part.unlink(missing_ok=True)


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Give errors the name of the file that the user knows: writing has none, ``.part`` another."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error

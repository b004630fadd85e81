"""Data sets: folders in LibriSpeech's layout, and clips with a manifest."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxfast import audio
from voxfast.errors import DatasetError
from voxfast.models.checkpoint import is_file
from voxfast.timed import Word

__all__ = [
    "GAP_SECONDS",
    "MALFORMED",
    "MODES",
    "Clip",
    "Stream",
    "fault",
    "fingerprint",
    "load_dataset",
    "streams",
]

MODES = ("utterance", "single", "chapter")
GAP_SECONDS = 0.5
"""Silence between the utterances of a chapter."""

MALFORMED = (LookupError, OverflowError, RecursionError, TypeError, ValueError)
"""What reading a file raises that is no JSON, or JSON of another shape."""

_AUDIO_KEYS = ("file", "audio", "audio_filepath", "path")
_TEXT_KEYS = ("text", "transcript", "transcription")


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording and what is said in it.

    Attributes:
        name: of the recording, unique in its data set.
        path: of the audio file.
        text: what is said.
        chapter: clips of one chapter follow one another.
        words: what is said, with times in seconds of the recording; None if not known.
    """

    name: str
    path: Path
    text: str
    chapter: str
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """Clips that are heard as one stream, with silence of ``GAP_SECONDS`` between them."""

    name: str
    clips: tuple[Clip, ...]

    @property
    def text(self) -> str:
        """What is said in it."""
        return " ".join(clip.text for clip in self.clips)

    def load(self) -> tuple[npt.NDArray[np.float32], tuple[Word, ...] | None]:
        """Its samples [N] at 16 kHz, and its words with times; None if a clip's are unknown.

        Raises:
            AudioFileError: if a file cannot be read.
        """
        gap = np.zeros(int(GAP_SECONDS * audio.SAMPLE_RATE), np.float32)
        parts: list[npt.NDArray[np.float32]] = []
        words: list[Word] = []
        start = 0.0
        for clip in self.clips:
            if parts:
                parts.append(gap)
                start += GAP_SECONDS
            words += [
                replace(word, start=word.start + start, end=word.end + start)
                for word in clip.words or ()
            ]
            parts.append(audio.load_audio(clip.path))
            start += len(parts[-1]) / audio.SAMPLE_RATE
        known = all(clip.words is not None for clip in self.clips)
        return np.concatenate(parts), tuple(words) if known else None


def load_dataset(path: Path, limit: int | None = None) -> list[Clip]:
    """The first clips of a data set, in the order of their names or of the manifest.

    Args:
        path: a folder with ``*.trans.txt`` files (LibriSpeech's layout), a manifest, or a
            folder that holds one manifest. A manifest is JSON, a list of objects or one
            object with such a list as ``items``, or JSON Lines. Each object has the audio's
            path (``file``, ``audio``, ``audio_filepath`` or ``path``, relative to the
            manifest), its ``text`` (or ``transcript``), and optionally ``chapter`` and
            ``words``, a list of ``{"word", "start", "end"}`` in seconds.
        limit: how many clips; None: all.

    Raises:
        DatasetError: if there is no such data set, or something is missing in it.
    """
    if path.is_dir():
        transcripts = sorted(path.rglob("*.trans.txt"))
        manifests = sorted([*path.glob("*.json"), *path.glob("*.jsonl")])
        if transcripts:
            clips = [clip for file in transcripts for clip in _librispeech(file)]
        elif len(manifests) == 1:
            clips = list(_manifest(manifests[0]))
        else:
            raise DatasetError(
                f"{path} has no *.trans.txt (LibriSpeech) and {len(manifests)} JSON files; "
                f"expected one manifest, or give its name"
            )
    elif path.is_file():
        clips = list(_manifest(path))
    else:
        raise DatasetError(f"{path} does not exist; give a folder or a manifest")
    names = [clip.name for clip in clips]
    if not names:
        raise DatasetError(f"{path} holds no clips")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{path} has two clips of the name {twice!r}; names must differ")
    return clips[:limit]


def streams(clips: Sequence[Clip], mode: str) -> list[Stream]:
    """What is run: every clip by itself, or all clips of a chapter as one stream."""
    if mode != "chapter":
        return [Stream(clip.name, (clip,)) for clip in clips]
    chapters: dict[str, list[Clip]] = {}
    for clip in clips:
        chapters.setdefault(clip.chapter, []).append(clip)
    return [Stream(name, tuple(members)) for name, members in chapters.items()]


def fingerprint(clips: Sequence[Clip]) -> str:
    """Changes when a name, a text, a known time, or the size of a file does."""
    digest = hashlib.sha256()
    for clip in clips:
        times = [(word.text, word.start, word.end) for word in clip.words or ()]
        entry = [clip.name, clip.chapter, clip.text, times, clip.path.stat().st_size]
        digest.update(json.dumps(entry).encode())
    return digest.hexdigest()[:16]


def fault(error: Exception) -> str:
    """What is wrong with a file, in words: of one of :data:`MALFORMED`, or of an OSError."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str((isinstance(error, OSError) and error.strerror) or error)


def _librispeech(transcripts: Path) -> Iterator[Clip]:
    """The clips of one chapter: lines of ``SPEAKER-CHAPTER-NUMBER TEXT``, audio beside them."""
    chapter = transcripts.name.removesuffix(".trans.txt")
    try:
        lines = transcripts.read_text(encoding="utf-8").splitlines()
        beside = list(transcripts.parent.iterdir())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{transcripts} cannot be read: {fault(error)}") from error
    for line in lines:
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        found = sorted(path for path in beside if path.stem == name and path.is_file())
        if not found:
            raise DatasetError(f"{transcripts} names {name}, and there is no audio file of it")
        yield Clip(name, found[0], text, chapter)


def _manifest(path: Path) -> Iterator[Clip]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            entries = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            document = json.loads(text)
            entries = document["items"] if isinstance(document, dict) else document
        if not isinstance(entries, list):
            raise TypeError(f"the clips are no list but {type(entries).__name__}")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {fault(error)}") from error
    except MALFORMED as error:
        raise DatasetError(f"{path} is no manifest of clips: {fault(error)}") from error
    for number, entry in enumerate(entries):
        yield _entry(path, number, entry)


def _entry(manifest: Path, number: int, entry: Any) -> Clip:
    place = f"{manifest}, entry {number}"
    if not isinstance(entry, dict):
        raise DatasetError(f"{place} is no object: {entry!r:.60}")
    file = _first(entry, _AUDIO_KEYS, place)
    path = manifest.parent / file
    if not is_file(path):
        raise DatasetError(f"{place}: there is no file {path}")
    words = entry.get("words")
    if not isinstance(words, list | None):
        raise DatasetError(f"{place}: its words are no list but {words!r:.60}")
    try:
        json.dumps(entry, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DatasetError(f"{place} holds what is no text: {error}") from error
    return Clip(
        name=str(entry.get("name", Path(file).with_suffix("").as_posix())),
        path=path,
        text=_first(entry, _TEXT_KEYS, place),
        chapter=str(entry.get("chapter", manifest.stem)),
        words=None if words is None else tuple(_word(word, place) for word in words),
    )


def _first(entry: dict[str, Any], keys: Sequence[str], place: str) -> str:
    for key in keys:
        if isinstance(entry.get(key), str):
            return str(entry[key])
    raise DatasetError(f"{place} needs one of {', '.join(keys)}, as text")


def _word(word: Any, place: str) -> Word:
    try:
        text = word["word"] if "word" in word else word["text"]
        if not isinstance(text, str):
            raise TypeError("its text is none")
        found = Word(text, float(word["start"]), float(word["end"]))
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise DatasetError(f"{place}: {word!r:.60} is no word with start and end") from error
    if not 0 <= found.start <= found.end < math.inf:
        raise DatasetError(f"{place}: {word!r:.60} ends before it starts")
    return found

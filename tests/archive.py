"""Archives of small recordings, some of them broken, for tests and benches of batches."""

import random
from pathlib import Path

import numpy as np
import soundfile
from encoded import encode
from evaluation import EVAL_FOLDER

__all__ = ["BROKEN", "make_archive", "touch"]

# suffix: (codec, muxer)
_KINDS = {
    "wav": ("pcm_s16le", "wav"),
    "flac": ("flac", "flac"),
    "mp3": ("libmp3lame", "mp3"),
    "opus": ("libopus", "ogg"),
    "m4a": ("aac", "ipod"),
    "webm": ("libopus", "webm"),
}
_RATE = 16000

BROKEN = (
    "empty.mp3",
    "text.wav",
    "picture.flac",
    "page.mp3",
    "archive.wav",
    "bytes.ogg",
    "no-index.m4a",
    "cut.flac",
    "cut.wav",
    "cut.opus",
)
"""Kinds of broken files; of the last three, what was left can be heard."""


def make_archive(
    folder: Path, good: int, broken: int, *, longest: float = 3.0, seed: int = 0
) -> list[str]:
    """Write recordings below a folder; the same for the same seed.

    Args:
        good: how many can be read to the end; their formats follow one another.
        broken: how many cannot; their kinds follow one another.
        longest: seconds of a recording; the shortest are of 2 s.

    Returns:
        Their paths relative to the folder.
    """
    chance = random.Random(seed)
    speech, _ = soundfile.read(EVAL_FOLDER / "eval_long_180s.flac", dtype="float32")
    names = []
    for i in range(good + broken):
        seconds = chance.uniform(min(2.0, longest), longest)
        start = chance.randrange(len(speech))
        part = np.take(speech, range(start, start + round(seconds * _RATE)), mode="wrap")
        if i < good:
            suffix = list(_KINDS)[i % len(_KINDS)]
            # Names repeat in different folders.
            name, data = f"{i // 6}/talk.{suffix}", _encoded(part, suffix)
        else:
            kind = BROKEN[(i - good) % len(BROKEN)]
            name, data = f"broken/{i - good}-{kind}", _broken(part, kind)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        names.append(name)
    return names


def touch(folder: Path, *names: str) -> None:
    """Make files that hold their own names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def _encoded(samples: np.ndarray, suffix: str) -> bytes:
    codec, muxer = _KINDS[suffix]
    return encode(codec, muxer, samples[:, None], _RATE)


def _broken(samples: np.ndarray, kind: str) -> bytes:
    stem, _, suffix = kind.partition(".")
    if stem in ("cut", "no-index"):
        data = _encoded(samples, suffix)
        return data[: len(data) * 2 // 3]
    return {
        "empty": b"",
        "text": b"This is no audio at all.\n" * 20,
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(1000),
        "page": b"<!DOCTYPE html><html><body>404</body></html>" * 9,
        "archive": b"PK\x03\x04" + bytes(1000),
        "bytes": random.Random(1).randbytes(4000),
    }[stem]

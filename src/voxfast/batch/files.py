"""Files of results, each written whole or not at all."""

import errno
import os
from pathlib import Path

__all__ = ["UNWRITABLE_NAMES", "write_whole"]

UNWRITABLE_NAMES = (
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.EILSEQ,
    errno.EINVAL,
)
"""What a name of its own can be the reason for; every other error concerns all files."""


def write_whole(path: Path, text: str) -> None:
    """Write a file, and its folder if it is missing; it is on the disk when this returns.

    What a crash leaves behind is ``.NAME.part`` beside it, which the next attempt overwrites.

    Raises:
        OSError: if it cannot be written; the file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise

"""The command in a process of its own, and what its tests give it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

import voxfast

WORDS = "w1 w2 w3 end"


def write(path: Path, seconds: float = 1.6) -> str:
    soundfile.write(path, np.full(round(16000 * seconds), 0.01), 16000)
    return path.name


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Stdin:
    """stdin that is a pipe with some bytes in it."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


SCRIPT = """
import sys
import voxfast
from fakes import FakeModel
model = FakeModel()
vars(model).update({attributes})
voxfast.load = model.load
from voxfast.cli import main
sys.exit(main())
"""

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parent), str(Path(voxfast.__file__).parent.parent)]
    ),
}


def command(*arguments: str, **attributes: object) -> list[str]:
    """The command around a :class:`fakes.FakeModel` with such attributes."""
    return [sys.executable, "-c", SCRIPT.format(attributes=attributes), *arguments]


def start(folder: Path, *arguments: str, **attributes: object) -> "subprocess.Popen[bytes]":
    """The command in a process of its own, its three streams pipes."""
    return subprocess.Popen(
        command(*arguments, **attributes),
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )

"""Streaming speech recognition on MLX, with its hot paths in C++.

::

    import voxfast

    print(voxfast.transcribe("talk.flac").text)

    model = voxfast.load("mistralai/Voxtral-Mini-4B-Realtime-2602")
    with model.session(delay_ms=480) as session:
        for pcm in microphone():  # float32 or int16, mono, 16 kHz, any length
            for word in session.feed(pcm):
                print(word.text, word.start, word.end)
        session.finish()

Raises ImportError if MLX is not the release that the extension was compiled against.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxfast.errors import (
    AudioFileError,
    CheckpointError,
    DatasetError,
    ForkedProcessError,
    InvalidAudioError,
    InvalidOptionError,
    ModelNotFoundError,
    SessionClosedError,
    VoxfastError,
)
from voxfast.timed import Transcript, Word

if TYPE_CHECKING:
    from voxfast.model import DEFAULT_MODEL, Model, load, transcribe
    from voxfast.models.qwen3_asr.options import Qwen3Options, Qwen3Tuning
    from voxfast.models.voxtral.loaded import VoxtralOptions
    from voxfast.models.voxtral.stream import BlankGuard
    from voxfast.online.session import OnlineProcessor, Session, Tentative

# The commands import it themselves: an interrupt while they do is not to end in a traceback,
# and `voxfast doctor` tells what is wrong with an installation that does not work.
if sys.argv[0] != "-m" and Path(sys.argv[0]).stem not in ("voxfast", "voxfast-wlk"):
    import_module("voxfast._native")

_LAZY = {
    "DEFAULT_MODEL": "voxfast.model",
    "Model": "voxfast.model",
    "load": "voxfast.model",
    "transcribe": "voxfast.model",
    "Qwen3Options": "voxfast.models.qwen3_asr.options",
    "Qwen3Tuning": "voxfast.models.qwen3_asr.options",
    "OnlineProcessor": "voxfast.online.session",
    "Session": "voxfast.online.session",
    "Tentative": "voxfast.online.session",
    "BlankGuard": "voxfast.models.voxtral.stream",
    "VoxtralOptions": "voxfast.models.voxtral.loaded",
}

__all__ = [
    "DEFAULT_MODEL",
    "AudioFileError",
    "BlankGuard",
    "CheckpointError",
    "DatasetError",
    "ForkedProcessError",
    "InvalidAudioError",
    "InvalidOptionError",
    "Model",
    "ModelNotFoundError",
    "OnlineProcessor",
    "Qwen3Options",
    "Qwen3Tuning",
    "Session",
    "SessionClosedError",
    "Tentative",
    "Transcript",
    "VoxfastError",
    "VoxtralOptions",
    "Word",
    "load",
    "transcribe",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from voxfast._version import version

        return version()
    if name in _LAZY:
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

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

MLX is loaded when a name that needs it is first used, such as ``voxfast.load``: that raises
ImportError if it is not the release that the extension was compiled against.
"""

from importlib import import_module
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
from voxfast.timed import Segment, Transcript, Word

if TYPE_CHECKING:
    from voxfast.model import DEFAULT_MODEL, Model, load, transcribe
    from voxfast.models.qwen3_asr.options import Qwen3Options, Qwen3Tuning
    from voxfast.models.voxtral.loaded import VoxtralOptions
    from voxfast.models.voxtral.stream import BlankGuard
    from voxfast.online.asynchronous import AsyncSession
    from voxfast.online.session import OnlineProcessor, Session, Tentative

# Imported when they are used. An interrupt while a command imports MLX must not end in a
# traceback, and `voxfast doctor` has to start on an installation that does not work.
_LAZY = {
    "DEFAULT_MODEL": "voxfast.model",
    "Model": "voxfast.model",
    "load": "voxfast.model",
    "transcribe": "voxfast.model",
    "Qwen3Options": "voxfast.models.qwen3_asr.options",
    "Qwen3Tuning": "voxfast.models.qwen3_asr.options",
    "AsyncSession": "voxfast.online.asynchronous",
    "OnlineProcessor": "voxfast.online.session",
    "Session": "voxfast.online.session",
    "Tentative": "voxfast.online.session",
    "BlankGuard": "voxfast.models.voxtral.stream",
    "VoxtralOptions": "voxfast.models.voxtral.loaded",
}

__all__ = [
    "DEFAULT_MODEL",
    "AsyncSession",
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
    "Segment",
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
        import_module("voxfast._native")  # MLX and the extension, or what is wrong with them
        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

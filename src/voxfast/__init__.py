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
"""

from voxfast._native import _ext
from voxfast.errors import (
    AudioFileError,
    CheckpointError,
    InvalidAudioError,
    InvalidOptionError,
    ModelNotFoundError,
    SessionClosedError,
    VoxfastError,
)
from voxfast.model import DEFAULT_MODEL, Model, load, transcribe
from voxfast.online.session import OnlineProcessor, Session, Tentative
from voxfast.online.voxtral import BlankGuard
from voxfast.online.voxtral_engine import VoxtralOptions
from voxfast.timed import Transcript, Word

__version__: str = _ext.version

__all__ = [
    "DEFAULT_MODEL",
    "AudioFileError",
    "BlankGuard",
    "CheckpointError",
    "InvalidAudioError",
    "InvalidOptionError",
    "Model",
    "ModelNotFoundError",
    "OnlineProcessor",
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

"""Live captions: words as they become certain, and behind them what may still change.

    python examples/microphone.py

The microphone is a recording here, handed out as a sound card would. For a real one, replace
``microphone`` by blocks of an ``sounddevice.InputStream(samplerate=16000, channels=1)``, or use
``voxfast listen``, which does that.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import voxfast
from voxfast.audio import stream_file

RECORDING = Path(__file__).parent / "audio" / "command.flac"
BLOCK_SECONDS = 0.1
# 1: as fast as speech; 0: as fast as it goes.
PACE = float(os.environ.get("PACE", "1"))


def microphone() -> Iterator[np.ndarray]:
    """Blocks of float32 samples, mono, 16 kHz; any length will do."""
    for block in stream_file(RECORDING, block_seconds=BLOCK_SECONDS):
        time.sleep(PACE * BLOCK_SECONDS)
        yield block


with voxfast.load() as model, model.session(delay_ms=480) as session:
    committed = ""
    for block in microphone():
        committed += "".join(word.text for word in session.feed(block))
        print(f"\r{committed.strip()} [{session.tentative.strip()}]", end="   ", flush=True)
    committed += "".join(word.text for word in session.finish())
    print(f"\r{committed.strip():<60}")

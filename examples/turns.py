"""A voice assistant's ear: what was said in each turn, as soon as the speaker pauses.

    python examples/turns.py [FILE]

Silence is not given to the model. The microphone is a recording here; see ``microphone.py``.
"""

import sys
from pathlib import Path

import voxfast
from voxfast.audio import stream_file
from voxfast.vad import SpeechEnded, SpeechStarted

RECORDING = Path(__file__).parent / "audio" / "numbers.flac"
path = sys.argv[1] if len(sys.argv) > 1 else RECORDING
said: list[str] = []


def show(event: object) -> None:
    match event:
        case SpeechStarted(time):
            print(f"{time:6.2f} somebody speaks")
        case voxfast.Word():
            said.append(event.text)
        case SpeechEnded(time):  # all words of the turn came before it
            print(f"{time:6.2f} said: {''.join(said).strip()}")
            said.clear()


with (
    voxfast.load() as model,
    model.session(endpoint_ms=500, skip_silence=True) as session,
):
    for pcm in stream_file(path, block_seconds=0.1):
        session.insert(pcm)
        for event in session.events():
            show(event)
    for event in session.events(finish=True):
        show(event)
    print(f"{session.skipped:6.2f} s of {session.heard:.2f} s were silence")

"""Several speakers at once on one model: weights are shared, streams never see each other.

python examples/many_sessions.py
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import voxfast
from voxfast.audio import stream_file

RECORDINGS = sorted((Path(__file__).parent / "audio").glob("*.flac"))


def listen(model: voxfast.Model, recording: Path) -> str:
    """One speaker; may run on a thread of its own."""
    words = []
    with model.session() as session:
        for block in stream_file(recording, block_seconds=0.5):
            words += session.feed(block)
        words += session.finish()
    return "".join(word.text for word in words).strip()


with voxfast.load() as model, ThreadPoolExecutor() as speakers:
    texts = speakers.map(lambda recording: listen(model, recording), RECORDINGS)
    for recording, text in zip(RECORDINGS, texts, strict=True):
        print(f"{recording.stem}: {text}")

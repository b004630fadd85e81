"""Subtitles for a recording: SubRip in the current folder, under the recording's name.

    python examples/subtitles.py [FILE] [MODEL]

``voxfast transcribe FILE --format srt`` does the same.
"""

import sys
from pathlib import Path

import voxfast
from voxfast.formats import to_srt

source = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "audio/numbers.flac"
model = sys.argv[2] if len(sys.argv) > 2 else voxfast.DEFAULT_MODEL
target = Path(f"{source.stem}.srt")


def show(done: float, total: float | None) -> None:
    print(f"\r{done:.0f} of {total or 0:.0f} s", end="", file=sys.stderr)


transcript = voxfast.transcribe(source, model=model, progress=show)
target.write_text(to_srt(transcript), encoding="utf-8")
print(f"\n{target}: {len(transcript.words)} words", file=sys.stderr)

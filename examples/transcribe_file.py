"""A file to text, with the time of every word.

python examples/transcribe_file.py [FILE] [MODEL]
"""

import sys
from pathlib import Path

import voxfast

path = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "audio" / "numbers.flac"
model = sys.argv[2] if len(sys.argv) > 2 else voxfast.DEFAULT_MODEL

transcript = voxfast.transcribe(path, model=model)
print(transcript.text)
for word in transcript.words:
    print(f"{word.start:7.2f} {word.end:7.2f} {word.text}")

"""Mistral's own client, pointed at ``voxfast serve``.

pip install "mistralai[realtime]"
voxfast serve &
python examples/client_mistral.py [FILE] [--url ws://localhost:8910]
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from mistralai.client import Mistral
from mistralai.client.models import AudioFormat
from mistralai.extra.realtime import RealtimeTranscription

from voxfast.audio import stream_file

RECORDING = Path(__file__).parent / "audio" / "command.flac"
BLOCK_SECONDS = 0.08


async def speech(file: str, pace: float) -> AsyncIterator[bytes]:
    for block in stream_file(file, block_seconds=BLOCK_SECONDS):
        yield (block * 32767).astype("<i2").tobytes()
        await asyncio.sleep(pace * BLOCK_SECONDS)


async def main(file: str, url: str, key: str, pace: float) -> None:
    client = RealtimeTranscription(Mistral(api_key=key).sdk_configuration)
    events = client.transcribe_stream(
        speech(file, pace),
        "voxtral-mini-transcribe-realtime-2602",  # whatever the server has loaded
        AudioFormat(encoding="pcm_s16le", sample_rate=16000),
        server_url=url,
        target_streaming_delay_ms=480,
    )
    async for event in events:
        if event.type == "error":
            raise SystemExit(event.error.message)
        if event.type == "transcription.text.delta":
            print(event.text, end="", flush=True)
        elif event.type == "transcription.done":
            print()


parser = argparse.ArgumentParser()
parser.add_argument("file", nargs="?", default=str(RECORDING))
parser.add_argument("--url", default="ws://localhost:8910")
parser.add_argument("--key", default="none", help="if the server has one")
parser.add_argument("--pace", type=float, default=1.0, help="0: as fast as it goes")
args = parser.parse_args()
asyncio.run(main(args.file, args.url, args.key, args.pace))

"""A client of the Wyoming protocol, as Home Assistant is one.

    pip install wyoming
    voxfast serve --wyoming 10300 &
    python examples/client_wyoming.py [FILE] [--port 10300]

Sends a recording and prints the words as they come, then the whole transcript.
"""

import argparse
import asyncio
from pathlib import Path

from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error

from voxfast.audio import stream_file

RECORDING = Path(__file__).parent / "audio" / "command.flac"


async def main(file: str, host: str, port: int, language: str) -> None:
    form = {"rate": 16000, "width": 2, "channels": 1}
    async with AsyncTcpClient(host, port) as client:
        await client.write_event(Transcribe(language=language).event())
        await client.write_event(AudioStart(**form).event())
        for block in stream_file(file, block_seconds=0.08):
            audio = (block * 32767).astype("<i2").tobytes()
            await client.write_event(AudioChunk(audio=audio, **form).event())
        await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None:
            if TranscriptChunk.is_type(event.type):
                print(TranscriptChunk.from_event(event).text, end="", flush=True)
            elif Transcript.is_type(event.type):
                print(f"\n{Transcript.from_event(event).text}")
                return
            elif Error.is_type(event.type):
                raise SystemExit(Error.from_event(event).text)
    raise SystemExit("the server ended the connection")


parser = argparse.ArgumentParser()
parser.add_argument("file", nargs="?", default=str(RECORDING))
parser.add_argument("--host", default="localhost")
parser.add_argument("--port", type=int, default=10300)
parser.add_argument("--language", default="en")
args = parser.parse_args()
asyncio.run(main(args.file, args.host, args.port, args.language))

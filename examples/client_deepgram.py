"""Deepgram's own client, pointed at ``voxfast serve``.

    pip install deepgram-sdk
    voxfast serve &
    python examples/client_deepgram.py [FILE] [--url ws://localhost:8910]

Sends a recording at the speed of speech. Text in brackets may still change.
"""

import argparse
import asyncio
from pathlib import Path

from deepgram import AsyncDeepgramClient, DeepgramClientEnvironment

from voxfast.audio import stream_file

RECORDING = Path(__file__).parent / "audio" / "command.flac"
BLOCK_SECONDS = 0.08


async def main(file: str, url: str, key: str, pace: float) -> None:
    http = url.replace("ws", "http", 1)
    client = AsyncDeepgramClient(
        api_key=key,
        environment=DeepgramClientEnvironment(
            base=http, production=url, agent=url, agent_rest=http
        ),
    )
    async with client.listen.v1.connect(
        model="nova-3",  # whatever the server has loaded
        encoding="linear16",
        sample_rate=16000,
        interim_results=True,
        endpointing=300,
    ) as socket:

        async def speak() -> None:
            for block in stream_file(file, block_seconds=BLOCK_SECONDS):
                await socket.send_media((block * 32767).astype("<i2").tobytes())
                await asyncio.sleep(pace * BLOCK_SECONDS)
            await socket.send_close_stream()

        speaking = asyncio.create_task(speak())
        async for message in socket:
            if message.type == "Error":
                raise SystemExit(message.description)
            if message.type != "Results":
                continue
            said = message.channel.alternatives[0]
            if not message.is_final:
                print(f"\r[{said.transcript}]", end="", flush=True)
            elif said.words:
                start, end = said.words[0].start, said.words[-1].end
                print(f"\r{start:6.2f} - {end:5.2f}  {said.transcript}")
        await speaking


parser = argparse.ArgumentParser()
parser.add_argument("file", nargs="?", default=str(RECORDING))
parser.add_argument("--url", default="ws://localhost:8910")
parser.add_argument("--key", default="none", help="if the server has one")
parser.add_argument("--pace", type=float, default=1.0, help="0: as fast as it goes")
args = parser.parse_args()
asyncio.run(main(args.file, args.url, args.key, args.pace))

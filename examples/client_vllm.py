"""A client of vLLM's realtime protocol, pointed at ``voxfast serve``; it needs only websockets.

pip install websockets
voxfast serve &
python examples/client_vllm.py [FILE] [--url ws://localhost:8910]
"""

import argparse
import asyncio
import base64
import json
from pathlib import Path

from websockets.asyncio.client import connect

from voxfast.audio import stream_file

RECORDING = Path(__file__).parent / "audio" / "command.flac"
BLOCK_SECONDS = 0.08


async def main(file: str, url: str, key: str, model: str, pace: float) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with connect(f"{url}/v1/realtime", additional_headers=headers) as socket:

        async def send(kind: str, **fields: object) -> None:
            await socket.send(json.dumps({"type": kind, **fields}))

        async def speak() -> None:
            await send("session.update", model=model)
            await send("input_audio_buffer.commit")
            for block in stream_file(file, block_seconds=BLOCK_SECONDS):
                pcm = (block * 32767).astype("<i2").tobytes()
                await send("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())
                await asyncio.sleep(pace * BLOCK_SECONDS)
            await send("input_audio_buffer.commit", final=True)

        speaking = asyncio.create_task(speak())
        async for frame in socket:
            event = json.loads(frame)
            if event["type"] == "error":
                raise SystemExit(event["error"])
            if event["type"] == "transcription.delta":
                print(event["delta"], end="", flush=True)
            if event["type"] == "transcription.done":
                break
        print()
        await speaking


parser = argparse.ArgumentParser()
parser.add_argument("file", nargs="?", default=str(RECORDING))
parser.add_argument("--url", default="ws://localhost:8910")
parser.add_argument("--key", default="none", help="if the server has one")
parser.add_argument("--model", default="voxtral-numbers")
parser.add_argument("--pace", type=float, default=1.0, help="0: as fast as it goes")
args = parser.parse_args()
asyncio.run(main(args.file, args.url, args.key, args.model, args.pace))

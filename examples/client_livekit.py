"""LiveKit Agents' speech-to-text for Deepgram, pointed at ``voxfast serve``.

    pip install livekit-agents livekit-plugins-deepgram
    voxfast serve &
    python examples/client_livekit.py [FILE] [--url http://localhost:8910]

In an agent: ``AgentSession(stt=deepgram.STT(base_url="http://localhost:8910/v1/listen", …))``.
"""

import argparse
import asyncio
from pathlib import Path

import aiohttp
import numpy as np
from livekit import rtc
from livekit.agents import stt
from livekit.plugins import deepgram

from voxfast.audio import stream_file

RECORDING = Path(__file__).parent / "audio" / "command.flac"
BLOCK_SECONDS = 0.08


async def main(file: str, url: str, key: str) -> None:
    async with aiohttp.ClientSession() as http:
        service = deepgram.STT(
            api_key=key, base_url=f"{url}/v1/listen", language="en", http_session=http
        )
        stream = service.stream()

        async def speak() -> None:
            silence = np.zeros(16_000, np.float32)  # ends the turn
            for block in (*stream_file(file, block_seconds=BLOCK_SECONDS), silence):
                samples = (block * 32767).astype("<i2")
                stream.push_frame(rtc.AudioFrame(samples.tobytes(), 16_000, 1, len(samples)))
                await asyncio.sleep(BLOCK_SECONDS)
            stream.end_input()

        speaking = asyncio.create_task(speak())
        async for event in stream:
            if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                said = event.alternatives[0]
                print(f"{said.start_time:6.2f} - {said.end_time:5.2f}  {said.text}")
        await speaking


parser = argparse.ArgumentParser()
parser.add_argument("file", nargs="?", default=str(RECORDING))
parser.add_argument("--url", default="http://localhost:8910")
parser.add_argument("--key", default="none", help="if the server has one")
args = parser.parse_args()
asyncio.run(main(args.file, args.url, args.key))

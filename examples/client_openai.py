"""OpenAI's own client, pointed at ``voxfast serve``: a file at once, and the same file live.

pip install "openai[realtime]"
voxfast serve &
python examples/client_openai.py [FILE] [--url http://localhost:8910]
"""

import argparse
import asyncio
import base64
from pathlib import Path

import openai

from voxfast.audio import stream_file

RECORDING = Path(__file__).parent / "audio" / "command.flac"
BLOCK_SECONDS = 0.08
SESSION = {
    "type": "transcription",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 16000},  # OpenAI itself takes 24000
            "turn_detection": None,  # commits by hand; or {"type": "server_vad"}
        }
    },
}


async def main(file: str, url: str, key: str, pace: float) -> None:
    async with openai.AsyncOpenAI(api_key=key, base_url=f"{url}/v1") as client:
        whole = await client.audio.transcriptions.create(
            file=Path(file), model="whisper-1", response_format="text"
        )
        print(whole.strip())
        query = {"intent": "transcription"}
        async with client.realtime.connect(extra_query=query) as connection:

            async def speak() -> None:
                await connection.session.update(session=SESSION)
                for block in stream_file(file, block_seconds=BLOCK_SECONDS):
                    pcm = (block * 32767).astype("<i2").tobytes()
                    audio = base64.b64encode(pcm).decode()
                    await connection.input_audio_buffer.append(audio=audio)
                    await asyncio.sleep(pace * BLOCK_SECONDS)
                await connection.input_audio_buffer.commit()

            speaking = asyncio.create_task(speak())
            async for event in connection:
                if event.type == "error":
                    raise SystemExit(event.error.message)
                if event.type.endswith("input_audio_transcription.delta"):
                    print(event.delta, end="", flush=True)
                if event.type.endswith("input_audio_transcription.completed"):
                    break
            print()
            await speaking


parser = argparse.ArgumentParser()
parser.add_argument("file", nargs="?", default=str(RECORDING))
parser.add_argument("--url", default="http://localhost:8910")
parser.add_argument("--key", default="none", help="if the server has one")
parser.add_argument("--pace", type=float, default=1.0, help="0: as fast as it goes")
args = parser.parse_args()
asyncio.run(main(args.file, args.url, args.key, args.pace))

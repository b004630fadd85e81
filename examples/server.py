"""A transcription server with asyncio: 16-bit PCM comes in, lines of JSON go out.

    python examples/server.py            a server, and a client that talks to it
    python examples/server.py PORT       the server alone; for example
        arecord -t raw -f S16_LE -r 16000 | nc localhost PORT

The model works on a thread of its own; the event loop goes on with other clients meanwhile.
"""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import numpy as np

import voxfast
from voxfast.audio import load_audio

RECORDING = Path(__file__).parent / "audio" / "command.flac"


async def serve(
    model: voxfast.Model, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One client: audio until it closes its end, words as they become certain."""

    async def send(words: list[voxfast.Word]) -> None:
        for word in words:
            line = {"text": word.text, "start": word.start, "end": word.end}
            writer.write(json.dumps(line).encode() + b"\n")
        await writer.drain()

    rest = b""
    # A client may go away in the middle.
    with contextlib.suppress(ConnectionError):
        async with model.session() as session:
            while data := await reader.read(16000):
                data = rest + data
                whole = len(data) // 2 * 2  # a sample may arrive in two halves
                samples, rest = np.frombuffer(data[:whole], "<i2").astype(np.int16), data[whole:]
                await send(await session.feed(samples))
            await send(await session.finish())
    writer.close()


async def speak(port: int) -> None:
    """A client: sends a recording and prints what comes back."""
    reader, writer = await asyncio.open_connection("localhost", port)
    samples = (load_audio(RECORDING) * 32767).astype("<i2").tobytes()
    for start in range(0, len(samples), 3201):
        writer.write(samples[start : start + 3201])
        await writer.drain()
    writer.write_eof()
    async for line in reader:
        print(line.decode(), end="")
    writer.close()


async def main() -> None:
    with voxfast.load() as model:
        port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
        server = await asyncio.start_server(lambda r, w: serve(model, r, w), "localhost", port)
        async with server:
            if port:
                await server.serve_forever()
            await speak(server.sockets[0].getsockname()[1])


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())

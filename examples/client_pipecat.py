"""Pipecat's speech-to-text for Deepgram, pointed at ``voxfast serve``.

    pip install "pipecat-ai[deepgram]"
    voxfast serve &
    python examples/client_pipecat.py [FILE] [--url ws://localhost:8910]

In a bot: ``DeepgramSTTService(api_key="none", base_url="ws://localhost:8910")``.
"""

import argparse
import asyncio
from pathlib import Path

import numpy as np
from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.deepgram.stt import DeepgramSTTService

from voxfast.audio import stream_file

RECORDING = Path(__file__).parent / "audio" / "command.flac"
BLOCK_SECONDS = 0.08
PATIENCE_SECONDS = 2.0


class Printer(FrameProcessor):
    """Prints what was said."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            print(frame.text)
        await self.push_frame(frame, direction)


async def main(file: str, url: str, key: str) -> None:
    service = DeepgramSTTService(api_key=key, base_url=url, sample_rate=16_000)
    task = PipelineTask(
        Pipeline([service, Printer()]), params=PipelineParams(audio_in_sample_rate=16_000)
    )

    async def speak() -> None:
        await asyncio.sleep(PATIENCE_SECONDS)  # what comes before the connection is lost
        silence = np.zeros(16_000, np.float32)  # ends the turn
        for block in (*stream_file(file, block_seconds=BLOCK_SECONDS), silence):
            samples = (block * 32767).astype("<i2").tobytes()
            await task.queue_frame(InputAudioRawFrame(samples, 16_000, 1))
            await asyncio.sleep(BLOCK_SECONDS)
        await asyncio.sleep(PATIENCE_SECONDS)
        await task.queue_frame(EndFrame())

    await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), speak())


parser = argparse.ArgumentParser()
parser.add_argument("file", nargs="?", default=str(RECORDING))
parser.add_argument("--url", default="ws://localhost:8910")
parser.add_argument("--key", default="none", help="if the server has one")
args = parser.parse_args()
asyncio.run(main(args.file, args.url, args.key))

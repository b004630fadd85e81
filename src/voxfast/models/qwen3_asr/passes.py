"""Passes over the weights that several inferences of Qwen3-ASR share.

An inference is a generator: it yields the audio buffer or the decoder whose rows it needs
(*gather*), a pass computes those of all inferences (*run*), and it goes on with the results
(*absorb*) to where it needs the next ones.
"""

from collections.abc import Generator, Sequence
from typing import Generic, TypeAlias, TypeVar

from voxfast.models.qwen3_asr.audio import AudioBuffer, encode
from voxfast.models.qwen3_asr.decoding import Decoder, decode

__all__ = ["Asking", "Inference", "run_alone", "run_pass"]

T = TypeVar("T")
Asking: TypeAlias = Generator[AudioBuffer | Decoder, None, T]


class Inference(Generic[T]):
    """A generator on its way.

    Attributes:
        asks: whose rows it needs now; None: it has ended.
        result: what it has returned.
        error: what it has raised.
    """

    def __init__(self, steps: Asking[T]) -> None:
        self._steps = steps
        self.result: T | None = None
        self.error: Exception | None = None
        self.asks: AudioBuffer | Decoder | None = None
        self.proceed()

    def proceed(self) -> None:
        """Go on with the results."""
        try:
            self.asks = next(self._steps)
        except StopIteration as stop:
            self.asks, self.result = None, stop.value
        except Exception as error:
            self.asks, self.error = None, error


def run_pass(inferences: Sequence[Inference[T]]) -> None:
    """One pass: the audio tower for those that have new audio, then the decoder for all.

    Raises:
        Exception: what fails for all of them; the error of one is in that one.
    """
    while encoding := [one for one in inferences if isinstance(one.asks, AudioBuffer)]:
        encode([one.asks for one in encoding if isinstance(one.asks, AudioBuffer)])
        for one in encoding:
            one.proceed()
    decoding = [one for one in inferences if isinstance(one.asks, Decoder)]
    if decoding:
        decode([one.asks for one in decoding if isinstance(one.asks, Decoder)])
        for one in decoding:
            one.proceed()


def run_alone(steps: Asking[T]) -> T:
    """The result of an inference that shares no pass."""
    inference = Inference(steps)
    while inference.asks is not None:
        run_pass([inference])
    if inference.error is not None:
        raise inference.error
    return inference.result  # type: ignore[return-value]

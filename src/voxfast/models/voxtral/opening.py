"""What every Voxtral stream begins with: silence, of which the model makes the same each time."""

from dataclasses import dataclass
from typing import Self

import mlx.core as mx
import numpy as np

from voxfast.features import N_FFT, LogMelStream
from voxfast.models.voxtral.network import DecoderRows, DecoderState, EncoderState, Voxtral
from voxfast.models.voxtral.passes import MAX_ROWS
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer

__all__ = ["Opening", "Openings"]

MOST_OPENINGS = 2  # that are kept, since each has rings of keys and values


@dataclass(slots=True)
class Opening:
    """The state of a stream that has heard nothing yet.

    Attributes:
        mel, encoder, decoder: of its stages.
        prompt: tokens of the prompt that the decoder has not read.
    """

    mel: LogMelStream
    encoder: EncoderState
    decoder: DecoderState
    prompt: list[int]

    @classmethod
    def new(
        cls, model: Voxtral, tokenizer: VoxtralTokenizer, n_delay: int, block: int, start: int = 0
    ) -> Self:
        """Of a stream in which nothing is computed; the arguments are those of a TokenStream."""
        args, n_pad = model.args, tokenizer.n_left_pad
        frames = args.downsample_factor
        prompt = [tokenizer.bos] + [tokenizer.pad] * (n_pad + n_delay)
        return cls(
            LogMelStream(
                left_padding=N_FFT // 2 + n_pad * args.samples_per_position,
                n_mels=args.audio.n_mels,
                log_floor=args.audio.global_log_mel_max - 8.0,
                shift=4.0,
                scale=0.25,
            ),
            model.encoder_state(frames * max(n_pad, block), start * frames),
            model.decoder_state(n_delay, max(len(prompt), MAX_ROWS), start),
            prompt,
        )

    def read(self, model: Voxtral) -> None:
        """Compute what does not depend on the first sample: nearly all of the left padding."""
        samples = self.mel.take(np.zeros(0, np.float32))
        if samples is None:
            return
        (audio,) = model.encode([self.mel.frames(samples)[None]], [[self.encoder]])
        if audio is not None:
            tokens, self.prompt = self.prompt[: len(audio)], self.prompt[len(audio) :]
            mx.eval(model.decode([DecoderRows(audio, mx.array(tokens), self.decoder)]))
        mx.eval(self.encoder.arrays(), self.decoder.arrays())

    def copy(self) -> "Opening":
        """Another stream's; the rows of rings are shared until one of them is written to."""
        return Opening(self.mel.copy(), self.encoder.copy(), self.decoder.copy(), [*self.prompt])


class Openings:
    """The openings of a model, computed once per delay; used on the owner thread.

    Parity: only where rows do not depend on the rows beside them.
    """

    def __init__(self, model: Voxtral, tokenizer: VoxtralTokenizer) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._read: dict[tuple[int, int], Opening] = {}

    def get(self, n_delay: int, block: int) -> Opening:
        """That of a new stream."""
        key = (n_delay, max(block, self._tokenizer.n_left_pad))  # what rings have room for
        if key not in self._read:
            if len(self._read) == MOST_OPENINGS:
                self._read.pop(next(iter(self._read)))
            opening = Opening.new(self._model, self._tokenizer, *key)
            opening.read(self._model)
            self._read[key] = opening
        return self._read[key].copy()

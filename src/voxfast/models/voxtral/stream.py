"""A live Voxtral stream: samples in, words out, with bounded state."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE
from voxfast.features import HOP_LENGTH, N_FFT, LogMelStream
from voxfast.models.traits import Traits
from voxfast.models.voxtral.network import Voxtral
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.words import WordAssembler
from voxfast.online.stream import QueuedStream
from voxfast.ops import greedy
from voxfast.timed import Token

__all__ = ["BlankGuard", "VoxtralStream"]

# A frame is centred on its hop: the last one of a position reaches this far beyond it.
LOOKAHEAD = N_FFT // 2 - HOP_LENGTH


@dataclass(frozen=True, slots=True)
class BlankGuard:
    """Ends a run of blank tokens that mutes speech (vLLM issue 47614).

    Natural runs of blanks last up to 165 positions, and in silence the margin of the blank is
    8.5 logits or more; in a faulty run it is below 6.6. In a longer run with a smaller margin,
    the second-best token is chosen instead.
    """

    longest_run: int = 165
    least_margin: float = 7.5


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of the decoder whose token the host does not know yet."""

    token: mx.array  # [] of uint32
    probability: mx.array  # [] of float32
    logits: mx.array  # [vocab_size]


class TokenStream:
    """The model's part of a stream: whole positions of audio in, one token each out.

    Parity: encoder and decoder always take the same blocks, whatever the chunking, so streamed
    equals offline bit for bit, in every dtype.

    While the device computes a step, the host prepares the next one, if there is audio for it, and
    waits only then, once per step: for the token. The state is complete with it, so the next step
    writes the rings in place; it is started at once, before anything is done with the token.

    Args:
        start: absolute index of the first position, for rotary angles.
        block: positions per step of the encoder.
    """

    def __init__(
        self,
        model: Voxtral,
        tokenizer: VoxtralTokenizer,
        n_delay: int,
        *,
        start: int = 0,
        block: int = 1,
        guard: BlankGuard | None = None,
    ) -> None:
        self._model, self._tokenizer, self._guard = model, tokenizer, guard
        self._n_prompt = 1 + tokenizer.n_left_pad + n_delay
        args = model.args
        frames = args.downsample_factor
        self._encoder = model.encoder_state(
            frames * max(tokenizer.n_left_pad, block), start * frames
        )
        self._decoder = model.decoder_state(n_delay, self._n_prompt, start)
        self._mel = LogMelStream(
            left_padding=N_FFT // 2 + tokenizer.n_left_pad * args.samples_per_position,
            n_mels=args.audio.n_mels,
            log_floor=args.audio.global_log_mel_max - 8.0,
            shift=4.0,
            scale=0.25,
        )
        self._audio: mx.array | None = None  # [P, dim] embeddings that no step has taken yet
        # The tokens [L] of int32 of the next step, of which the first step takes the prompt.
        self._input = mx.array([tokenizer.bos] + [tokenizer.pad] * (self._n_prompt - 1))
        self._started: _Step | None = None
        self._blanks = 0
        self.generated = 0  # tokens so far

    def step(self, samples: NDArray[np.float32]) -> Iterator[Token]:
        """Consume the next samples and yield their tokens.

        The first call takes the look-ahead of 40 samples and encodes the left padding. Later
        calls take whole positions, always the same number except at the end of an utterance.
        """
        mel = self._mel.step(samples)
        if mel.shape[0] == 0:
            return
        audio = self._model.encode(mel, self._encoder)
        if audio is not None:
            self._audio = audio if self._audio is None else mx.concatenate([self._audio, audio])
        step = self._take_step()
        if step is None:
            mx.eval(self._arrays())
        while step is not None:
            yield self._read(step)
            step = self._take_step()

    def _arrays(self) -> list[mx.array]:
        """All arrays that a step must evaluate, so that no graph grows across steps."""
        audio = [] if self._audio is None else [self._audio]
        return self._encoder.arrays() + self._decoder.arrays() + audio

    def _take_step(self) -> _Step | None:
        """The step that was started, or the next one; None if there is no audio for it."""
        step, self._started = self._started, None
        return step or self._start(self._next_step())

    def _start(self, step: _Step | None) -> _Step | None:
        """Let the device compute a step, if there is one."""
        if step is not None:
            mx.async_eval(step.token, step.probability, self._arrays())  # type: ignore[no-untyped-call]
        return step

    def _next_step(self) -> _Step | None:
        """The decoder's next step, not evaluated; None if there is no audio for it."""
        count = len(self._input)
        if self._audio is None or len(self._audio) < count:
            return None
        audio, rest = self._audio[:count], self._audio[count:]
        logits = self._model.decode(audio, self._input, self._decoder)
        token, probability = greedy(logits)
        self._audio = rest if len(rest) else None
        self._input = token[None]
        return _Step(token, probability, logits)

    def _read(self, step: _Step) -> Token:
        """Prepare the step after this one, wait for the token, and start the prepared step."""
        prepared = None if self._may_intervene else self._next_step()
        mx.eval(step.token, step.probability)
        self._started = self._start(prepared)
        token, probability = self._choose(step)
        self.generated += 1
        return Token(token, probability, self.generated - 1)

    @property
    def _may_intervene(self) -> bool:
        """Whether the guard may replace the token that comes next."""
        return self._guard is not None and self._blanks >= self._guard.longest_run

    def _choose(self, step: _Step) -> tuple[int, float]:
        """The greedy token, or that of the guard, and its probability."""
        token, likely = cast(int, step.token.item()), cast(float, step.probability.item())
        if token != self._tokenizer.pad:
            self._blanks = 0
            return token, likely
        self._blanks += 1
        if self._guard is None or self._blanks <= self._guard.longest_run:
            return token, likely
        token, likely = self._break_rut(step.logits, self._guard)
        self._input = mx.array([token])
        return token, likely

    def _break_rut(self, logits: mx.array, guard: BlankGuard) -> tuple[int, float]:
        values = np.array(logits.astype(mx.float32))
        pad = self._tokenizer.pad
        normaliser = float(np.logaddexp.reduce(values.astype(np.float64)))
        others = values.copy()
        others[pad] = -np.inf
        token = int(others.argmax()) if values[pad] - others.max() < guard.least_margin else pad
        if token != pad:
            self._blanks = 0
        return token, float(np.exp(values[token] - normaliser))


class VoxtralStream(QueuedStream):
    """A stream for a session: queue, clock, tokens and words.

    ``push``, ``skip`` and the ``end_`` methods only queue; ``step`` appends to ``words``.

    Args:
        start, block, guard: see :class:`TokenStream`.
        on_token: called with every token, on the owner thread.
    """

    def __init__(
        self,
        model: Voxtral,
        tokenizer: VoxtralTokenizer,
        traits: Traits,
        delay_ms: int,
        *,
        start: int = 0,
        block: int = 1,
        guard: BlankGuard | None = None,
        on_token: Callable[[Token], None] | None = None,
    ) -> None:
        super().__init__()
        self._on_token = on_token
        self._position = model.args.samples_per_position
        self._n_pad = tokenizer.n_right_pad(delay_ms)
        self._block = block
        self._tokens = TokenStream(
            model, tokenizer, tokenizer.n_delay(delay_ms), start=start, block=block, guard=guard
        )
        self._assembler = WordAssembler(tokenizer.word, tokenizer.piece, self._end_time, traits)
        self._end_offset = traits.timing.end_offset
        self._is_ended = False
        # Samples of the model's audio at which utterances end; blocks before them may be partial.
        self._ends: deque[int] = deque()
        self._last_end = 0

    def end_utterance(self, silence: float = 0.0) -> None:
        """Queue the padding after which all words are written; the stream goes on.

        Positions of ``silence`` that were heard need not be padded.
        """
        if self._last_end < self._clock.model_samples:
            self._pad(-self._clock.model_samples % self._position)
            heard = int(silence * SAMPLE_RATE) // self._position
            self._pad(max(0, self._n_pad - heard) * self._position)
            self._last_end = self._clock.model_samples
            self._ends.append(self._last_end)

    def end_stream(self) -> None:
        """Queue the end: :meth:`end_utterance`, and the look-ahead of the last position."""
        self.end_utterance()
        if self._clock.model_samples and not self._is_ended:
            self._is_ended = True
            self._pad(LOOKAHEAD)
            self._last_end = self._clock.model_samples
            if self._ends:
                self._ends.pop()
            self._ends.append(self._last_end)

    @property
    def due(self) -> bool:
        """Whether there is a step to do."""
        return self._next_size() > 0 or self._is_at_end

    @property
    def language(self) -> None:
        """None: Voxtral does not tell."""

    @property
    def tentative(self) -> str:
        """Text that is recognised but not committed."""
        return self._assembler.tentative

    def step(self) -> None:
        """Process one block, if one is due; append its words to ``words``."""
        if not self._is_at_end:
            samples = self._take(self._next_size())
            for token in self._tokens.step(samples) if len(samples) else ():
                if self._on_token is not None:
                    self._on_token(token)
                self.words += self._assembler.add(token)
            self._clock.forget((self._tokens.generated - 2) * self._position)
        if self._is_at_end:
            self._ends.popleft()
            self.words += self._assembler.close()

    # -- inside

    def _next_size(self) -> int:
        """Samples of the next block: the look-ahead, then whole positions; 0 if incomplete."""
        if self._taken == 0:
            size = LOOKAHEAD
        else:
            size = self._block * self._position
            left = self._ends[0] - self._taken if self._ends else 0
            if left >= self._position:  # an utterance may end within the block
                size = min(size, left // self._position * self._position)
        return size if len(self._queue) >= size else 0

    @property
    def _is_at_end(self) -> bool:
        """Whether all positions of an utterance that ends are decoded."""
        return bool(self._ends) and self._ends[0] - self._taken < self._position

    def _end_time(self, k: int) -> float:
        sample = (k + self._end_offset) * self._position
        return self._clock.real(max(0.0, sample))

"""A live Voxtral stream: samples in, words out, with bounded state."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE
from voxfast.features import HOP_LENGTH, N_FFT
from voxfast.models.traits import Traits
from voxfast.models.vocabulary import Vocabulary
from voxfast.models.voxtral import tokens
from voxfast.models.voxtral.network import Voxtral
from voxfast.models.voxtral.opening import Openings
from voxfast.models.voxtral.passes import MAX_ROWS, PassCosts
from voxfast.models.voxtral.script_lock import ScriptLock
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.tokens import BlankGuard, TokenStream
from voxfast.models.voxtral.words import WordAssembler
from voxfast.online.clock import Clock
from voxfast.online.stream import QueuedStream, Stream
from voxfast.timed import Token

__all__ = ["BlankGuard", "VoxtralStream", "step"]

# A frame is centred on its hop: the last one of a position reaches this far beyond it.
LOOKAHEAD = N_FFT // 2 - HOP_LENGTH
MOST_POSITIONS = 12  # that are encoded at once, so that a step ends soon


class VoxtralStream(QueuedStream):
    """A stream for a session: queue, clock, tokens and words.

    ``push``, ``skip`` and the ``end_`` methods only queue; ``step`` appends to ``words``.

    Args:
        start, guard, costs, lock, openings: see :class:`TokenStream`.
        block: positions that the encoder takes at once; with ``costs``, multiples of them.
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
        costs: PassCosts | None = None,
        lock: ScriptLock | None = None,
        openings: Openings | None = None,
        on_token: Callable[[Token], None] | None = None,
    ) -> None:
        super().__init__()
        self._on_token = on_token
        self._is_parallel = costs is not None
        self._position = model.args.samples_per_position
        self._n_pad = tokenizer.n_right_pad(delay_ms)
        self.settling = self._n_pad * self._position / SAMPLE_RATE
        self._block = block
        self._tokens = TokenStream(
            model,
            tokenizer,
            tokenizer.n_delay(delay_ms),
            start=start,
            block=block if costs is None else max(block, MOST_POSITIONS),
            guard=guard,
            costs=costs,
            lock=lock,
            openings=openings,
        )
        self._language = None if lock is None else lock.language
        # No method of this stream: a cycle would keep a closed session's memory for long.
        end_time = partial(_end_time, self._clock, self._position, traits.timing.end_offset)
        self._assembler = WordAssembler(tokenizer.word, tokenizer.piece, end_time, traits)
        self._is_ended = False
        # Samples of the model's audio at which utterances end; blocks before them may be partial.
        self._ends: deque[int] = deque()
        self._last_end = 0

    def use_vocabulary(self, vocabulary: Vocabulary | None) -> None:
        """Take another vocabulary for what is heard from now on."""
        self._tokens.use_vocabulary(vocabulary, self._clock.model_samples // self._position)

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
        ends = len(self._ends)
        self.end_utterance()
        if self._clock.model_samples and not self._is_ended:
            self._is_ended = True
            self._pad(LOOKAHEAD)
            self._last_end = self._clock.model_samples
            # An end that was queued before stays: words must not depend on when it is reached.
            if len(self._ends) > ends:
                self._ends.pop()
            self._ends.append(self._last_end)

    @property
    def due(self) -> bool:
        """Whether there is a step to do."""
        return self._next_size() > 0 or self._tokens.due > 0 or self._is_at_end

    @property
    def language(self) -> str | None:
        """The one whose script the stream is held to; else None: Voxtral does not tell."""
        return self._language

    @property
    def tentative(self) -> str:
        """Text that is recognised but not committed."""
        return self._assembler.tentative

    def step(self, others: Sequence[Stream] = ()) -> None:
        """Encode a block or run a pass of the decoder or both, as far as they are due.

        Other Voxtral streams of the model share the passes, where rows do not depend on the
        rows beside them.
        """
        together = [self]
        if self._is_parallel:
            together += [
                other for other in others if isinstance(other, VoxtralStream) and other._is_parallel
            ]
        step(together)

    # -- inside

    def _take_block(self) -> NDArray[np.float32] | None:
        """The samples to encode in this step."""
        size = self._next_size()
        return self._take(size) if size and self._tokens.due < self._wanted else None

    @property
    def _wanted(self) -> int:
        """Tokens that should be due before a pass, as long as more audio is there.

        Of a backlog, as much as a pass may take is encoded first, in steps that end soon.
        """
        return MAX_ROWS if self._is_parallel else 1

    @property
    def _may_decode(self) -> bool:
        return self._tokens.due >= (self._wanted if self._next_size() else 1)

    def _add(self, tokens: Sequence[Token]) -> None:
        """Words from tokens."""
        for token in tokens:
            if self._on_token is not None:
                self._on_token(token)
            self.words += self._assembler.add(token)
        self._clock.forget((self._tokens.generated - 2) * self._position)

    def _close_utterance(self) -> None:
        """End the utterance, if all of it is decoded."""
        if self._is_at_end:
            self._add(self._tokens.end_text())
        if self._is_at_end:  # still: a phrase that fails is decoded again
            self._ends.popleft()
            self.words += self._assembler.close()

    def _next_size(self) -> int:
        """Samples of the next block: the look-ahead, then whole positions; 0 if incomplete."""
        if self._taken == 0:
            size = LOOKAHEAD
        else:
            size = self._block * self._position
            if self._is_parallel:
                blocks = min(len(self._queue) // size, max(1, MOST_POSITIONS // self._block))
                size *= max(1, blocks)
            if self._ends:  # an utterance may end within the block
                left = self._ends[0] - self._taken
                size = min(size, left // self._position * self._position)
        return size if 0 < size <= len(self._queue) else 0

    @property
    def _is_at_end(self) -> bool:
        """Whether all positions of an utterance that ends are decoded."""
        if not self._ends or self._tokens.due:
            return False
        return self._ends[0] - self._taken < self._position


def _end_time(clock: Clock, position: int, offset: float, k: int) -> float:
    """The second at which the word of token k ends; ``position`` in samples."""
    return clock.real(max(0.0, (k + offset) * position))


def step(streams: Sequence[VoxtralStream]) -> None:
    """One step of each stream, with one read of the weights for all of them.

    What fails for all ends them all; what fails for one ends that one alone.

    Args:
        streams: of one model, each of them due.

    Raises:
        Exception: that of the first stream. The others' are in their ``error``.
    """
    try:
        blocks = [(stream, stream._take_block()) for stream in streams]
        tokens.encode([(stream._tokens, block) for stream, block in blocks if block is not None])
        decoding = [stream for stream in streams if stream._may_decode]
        encoded = [stream for stream, block in blocks if block is not None]
        tokens.evaluate([stream._tokens for stream in encoded if stream not in decoding])
        written = tokens.decode([stream._tokens for stream in decoding])
    except Exception as error:
        for stream in streams:
            stream.error = error
        raise
    made = dict(zip(map(id, decoding), written, strict=True))
    for stream in streams:
        try:
            stream._add(made.get(id(stream), []))
            stream._close_utterance()
        except Exception as error:
            stream.error = error
    if streams[0].error is not None:
        raise streams[0].error

"""A live Qwen3-ASR stream: samples in, words out, by AlignAtt over a bounded buffer."""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from voxfast.audio import SAMPLE_RATE
from voxfast.errors import InvalidOptionError
from voxfast.models.qwen3_asr.audio import FRAME_RATE
from voxfast.models.qwen3_asr.config import TOKEN_FRAMES
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.models.qwen3_asr.network import Qwen3ASR
from voxfast.models.qwen3_asr.options import DEFAULT_DELAY_MS, Qwen3Options
from voxfast.models.qwen3_asr.policy import Policy
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.qwen3_asr.utterance import (
    LONGEST_HEADER,
    SPARE_TOKENS,
    AlignedWord,
    BufferLimits,
    Utterance,
)
from voxfast.models.traits import Traits
from voxfast.models.vocabulary import Vocabulary
from voxfast.online.stream import QueuedStream, Stream
from voxfast.timed import Word

__all__ = ["Qwen3Stream"]

log = logging.getLogger(__name__)

# Audio of an audio token: 80 ms; the last token of a second stands for half as much.
TOKEN_MS = 1000 * TOKEN_FRAMES // FRAME_RATE
# Zeros after an utterance: without them, the last word is lost or wrong if the recording ends
# right after it. (Qwen's own code pads audio to this length.)
END_PAD = SAMPLE_RATE // 2


class Qwen3Stream(QueuedStream):
    """A stream for a session.

    ``push``, ``skip`` and the ``end_`` methods only queue; ``step`` appends to ``words``.

    Args:
        heads: the alignment heads, layer → query heads.
        options: validated ones; ``heads`` and ``language`` replace those in it.
        traits: of the checkpoint.
        language: name of the language, or None to detect it.

    Raises:
        InvalidOptionError: if the prompt is too long.
    """

    def __init__(
        self,
        model: Qwen3ASR,
        tokenizer: Qwen3ASRTokenizer,
        heads: Mapping[int, Sequence[int]],
        options: Qwen3Options,
        traits: Traits,
        language: str | None = None,
    ) -> None:
        super().__init__()
        head, tail = tokenizer.prompt(options.prompt or "")
        delay_ms = DEFAULT_DELAY_MS if options.delay_ms is None else options.delay_ms
        tuning = options.tuning
        n_audio = -(-(tuning.buffer_ms + 500) // 1000) * model.args.audio.chunk_tokens
        room = model.args.text.max_positions - 2 * n_audio - tuning.context_tokens
        room -= LONGEST_HEADER + SPARE_TOKENS
        if len(head) + len(tail) > room:
            raise InvalidOptionError(
                f"prompt= has {len(head) + len(tail)} tokens, and {room} fit beside audio and "
                "text; shorten it to names and terms"
            )
        policy = Policy(
            border=-(-delay_ms // TOKEN_MS),
            rewind=tuning.rewind_ms // TOKEN_MS,
            min_steps=tuning.min_steps,
        )
        limits = BufferLimits(
            longest=tuning.buffer_ms / 1000,
            full=tuning.trim_ms / 1000,
            keep=tuning.keep_ms / 1000,
            room=options.block_ms / 1000,
            pause=tuning.pause_ms / 1000,
            context_tokens=tuning.context_tokens,
        )
        self._block = options.block_ms * SAMPLE_RATE // 1000
        self._decoder = decoder = Decoder(model, head, heads)
        # It holds nothing of this stream: a cycle would keep a closed session's memory for long.
        self._new_utterance: Callable[[], Utterance] = lambda: Utterance(
            model, tokenizer, decoder, tail, policy, limits, traits, language
        )
        self._utterance = self._new_utterance()
        self._n_encoded = 0  # frames, in finished utterances
        self._begin = 0  # first sample of the utterance in the model's audio
        self._ends: deque[int] = deque()  # of it and later ones, as far as they are known
        # Each for the inferences that hear audio from a sample on.
        self._vocabularies: deque[tuple[int, Vocabulary | None]] = deque()
        self._last_end = 0.0  # end of the last committed word

    def use_vocabulary(self, vocabulary: Vocabulary | None) -> None:
        """Take another vocabulary for inferences that hear more than was heard by now."""
        self._vocabularies.append((self._clock.model_samples, vocabulary))

    def end_utterance(self, silence: float = 0.0) -> None:
        """Queue the end of an utterance: all its words are committed; the stream goes on."""
        if self._clock.model_samples > (self._ends[-1] if self._ends else self._begin):
            self._pad(END_PAD)
            self._ends.append(self._clock.model_samples)

    def end_stream(self) -> None:
        """Queue the end; as :meth:`end_utterance`."""
        self.end_utterance()

    @property
    def due(self) -> bool:
        """Whether there is a step to do."""
        return any(self._next())

    @property
    def tentative(self) -> str:
        """Text that is recognised but not committed."""
        return self._utterance.tentative

    @property
    def language(self) -> str | None:
        """Name of the requested or last detected language."""
        return self._utterance.language

    @property
    def work(self) -> tuple[int, int, int]:
        """Frames encoded, positions read and tokens written so far, to measure the work."""
        n_encoded = self._n_encoded + self._utterance.n_encoded
        return n_encoded, self._decoder.n_read, self._decoder.n_written

    def step(self, others: Sequence[Stream] = ()) -> None:
        """One inference over the buffer and new audio, if one is due; ``others`` wait."""
        size, end = self._next()
        if not size and not end:
            return
        samples = self._take(size)
        while self._vocabularies and self._vocabularies[0][0] < self._taken:
            self._utterance.vocabulary = self._vocabularies.popleft()[1]
        self._commit(self._utterance.step(samples, end=end))
        if not end and not self._utterance.make_room():
            log.warning("nothing could be committed in a full buffer; the utterance ends here")
            self._commit(self._utterance.step(samples[:0], end=True))
            end = True
        if end:
            self._begin = self._taken
            if self._ends and self._ends[0] == self._taken:
                self._ends.popleft()
            self._n_encoded += self._utterance.n_encoded
            language, vocabulary = self._utterance.language, self._utterance.vocabulary
            self._utterance = self._new_utterance()
            self._utterance.language, self._utterance.vocabulary = language, vocabulary
        self._clock.forget(self._begin + int(self._utterance.dropped_seconds * SAMPLE_RATE))

    # -- inside

    def _next(self) -> tuple[int, bool]:
        """Samples of the next step, and whether they end the utterance."""
        room = self._utterance.room
        if self._ends:
            left = self._ends[0] - self._taken
            # The zeros may exceed the buffer: no inference has only zeros as new audio.
            return (left, True) if left <= room + END_PAD else (room, False)
        size = min(len(self._queue), room)
        return (size, False) if size >= min(self._block, room) else (0, False)

    def _commit(self, words: Sequence[AlignedWord]) -> None:
        """Append words of the utterance to those of the stream, without overlaps."""
        for word in words:
            # No word ends after the audio, whatever its trailing margin.
            start, end = (
                self._clock.real(min(self._begin + seconds * SAMPLE_RATE, self._taken))
                for seconds in (word.start, word.end)
            )
            start = max(start, self._last_end)
            end = self._last_end = max(start, end)
            self.words.append(Word(word.text, round(start, 3), round(end, 3), word.probability))

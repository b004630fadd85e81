"""One live Qwen3-ASR stream: samples in, words out, by AlignAtt over a bounded buffer."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxfast.audio import SAMPLE_RATE
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.models.qwen3_asr.network import Qwen3ASR
from voxfast.models.qwen3_asr.policy import Policy
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.qwen3_asr.utterance import BufferLimits, HeardWord, Utterance
from voxfast.models.traits import Traits
from voxfast.online.stream import QueuedStream
from voxfast.timed import Word

__all__ = ["Qwen3Options", "Qwen3Stream"]

log = logging.getLogger(__name__)

TOKEN_MS = 80  # audio of an audio token; the last one of a second stands for half as much
# Zeros behind an utterance: without them the last word is lost, or another one is written, where
# a recording ends right at the end of it. (Qwen's own code pads what is shorter than this.)
END_PAD = SAMPLE_RATE // 2


@dataclass(frozen=True, kw_only=True)
class Qwen3Options:
    """Options of ``Model.session`` for Qwen3-ASR.

    Attributes:
        delay_ms: AlignAtt's border: a word is committed if the audio that it attends to is at
            least so far from the newest audio. More is surer. None takes the recommended one.
        language: name or code (ISO 639, also with a region) of the language that is spoken;
            None or "auto" lets the model say which, anew after every pause.
        prompt: names, terms and whatever else helps to spell what is going to be said.
        block_ms: least new audio of an inference. Less answers sooner and costs more.
        rewind_ms: a token that attends to audio so far before that of the token before it is
            taken for a lost thread, and waits for more audio.
        min_steps: tokens of each inference that the border does not stop.
        buffer_ms: the most audio that the model looks at.
        trim_ms: audio from which on the older part is dropped, at the edge of a word.
        keep_ms: audio that stays then.
        pause_ms: after so much silence the text before it is no longer looked at.
        context_tokens: the most committed text that an inference is reminded of.
        n_heads: alignment heads that are asked, the best ones.
        heads_file: alignment heads to use instead of those known for the checkpoint.
        guess_heads: do without measured heads if there are none: take all of the middle
            layers, which is less sure.
    """

    delay_ms: int | None = None
    language: str | None = None
    prompt: str | None = None
    block_ms: int = 500
    rewind_ms: int = 1600
    min_steps: int = 0
    buffer_ms: int = 15_000
    trim_ms: int = 12_000
    keep_ms: int = 6_000
    pause_ms: int = 2_000
    context_tokens: int = 256
    n_heads: int = 10
    heads_file: str | Path | None = None
    guess_heads: bool = False


class Qwen3Stream(QueuedStream):
    """A stream for a session.

    ``push``, ``skip`` and the ``end_`` methods only queue; properties are safe from any thread.
    Words wait in ``words`` until they are fetched.

    Args:
        heads: the alignment heads, layer → query heads.
        options: with a ``delay_ms``; language and heads in it are not looked at.
        traits: of the checkpoint.
        language: name of the language, or None to detect it.
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
        assert options.delay_ms is not None
        policy = Policy(
            border=-(-options.delay_ms // TOKEN_MS),
            rewind=options.rewind_ms // TOKEN_MS,
            min_steps=options.min_steps,
        )
        limits = BufferLimits(
            longest=options.buffer_ms / 1000,
            full=options.trim_ms / 1000,
            keep=options.keep_ms / 1000,
            room=options.block_ms / 1000,
            pause=options.pause_ms / 1000,
            context_tokens=options.context_tokens,
        )
        self._block = options.block_ms * SAMPLE_RATE // 1000
        self._decoder = Decoder(model, head, heads)
        self._new_utterance: Callable[[], Utterance] = lambda: Utterance(
            model, tokenizer, self._decoder, tail, policy, limits, traits, language
        )
        self._utterance = self._new_utterance()
        self._n_encoded = 0  # frames, in utterances that are over
        self._begin = 0  # sample of the model's audio at which the utterance begins
        self._end = 0  # and at which it ends, if that is known already
        self._last_end = 0.0  # of the words committed so far

    def end_utterance(self) -> None:
        """Queue the end of an utterance: what was heard is committed; the stream goes on."""
        with self._lock:
            if self._clock.model_samples > max(self._begin, self._end):
                self._pad(END_PAD)
                self._end = self._clock.model_samples

    def end_stream(self) -> None:
        """Queue the end; as :meth:`end_utterance`."""
        self.end_utterance()

    @property
    def due(self) -> bool:
        """Whether there is a step to do."""
        with self._lock:
            return any(self._next())

    @property
    def tentative(self) -> str:
        """Text that is recognised but not committed."""
        return self._utterance.tentative

    @property
    def language(self) -> str | None:
        """Name of the language that was asked for, or that the model heard last."""
        return self._utterance.language

    @property
    def work(self) -> tuple[int, int, int]:
        """Frames encoded, positions read and tokens written so far, for those who count."""
        n_encoded = self._n_encoded + self._utterance.n_encoded
        return n_encoded, self._decoder.n_read, self._decoder.n_written

    def step(self) -> None:
        """One inference over the buffer and what is new, if it is due."""
        with self._lock:
            size, end = self._next()
            if not size and not end:
                return
            samples = self._take(size)
        self._commit(self._utterance.step(samples, end=end))
        if not end and not self._utterance.make_room():
            log.warning("nothing could be committed in a full buffer; the utterance ends here")
            self._commit(self._utterance.step(samples[:0], end=True))
            end = True
        if end:
            self._begin = self._taken
            self._n_encoded += self._utterance.n_encoded
            language = self._utterance.language
            self._utterance = self._new_utterance()
            self._utterance.language = language
        with self._lock:
            self._clock.forget(self._begin + int(self._utterance.dropped_seconds * SAMPLE_RATE))

    # -- inside

    def _next(self) -> tuple[int, bool]:
        """Samples of the next step, and whether an utterance ends with them."""
        room = self._utterance.room
        if self._end > self._begin:
            left = self._end - self._taken
            # No inference over the zeros alone: the buffer may be longer by them.
            return (left, True) if left <= room + END_PAD else (room, False)
        size = min(len(self._queue), room)
        return (size, False) if size >= min(self._block, room) else (0, False)

    def _commit(self, words: Sequence[HeardWord]) -> None:
        """Words of the utterance to words of the stream, none of which overlap."""
        for word in words:
            with self._lock:
                # No word lasts longer than the audio, whatever the tail that words are given.
                start, end = (
                    self._clock.real(min(self._begin + seconds * SAMPLE_RATE, self._taken))
                    for seconds in (word.start, word.end)
                )
            start = max(start, self._last_end)
            end = self._last_end = max(start, end)
            self.words.append(Word(word.text, round(start, 3), round(end, 3), word.probability))

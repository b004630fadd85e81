"""A live Qwen3-ASR stream: samples in, words out, by AlignAtt over a bounded buffer."""

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from voxfast.audio import SAMPLE_RATE
from voxfast.errors import InvalidOptionError
from voxfast.models.qwen3_asr.audio import FRAME_RATE, Samples
from voxfast.models.qwen3_asr.config import TOKEN_FRAMES
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.models.qwen3_asr.network import Qwen3ASR
from voxfast.models.qwen3_asr.options import DEFAULT_DELAY_MS, Qwen3Options
from voxfast.models.qwen3_asr.passes import Asking, Inference, run_pass
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

__all__ = ["END_PAD", "Qwen3Stream", "step"]

log = logging.getLogger(__name__)

# Audio of an audio token: 80 ms; the last token of a second stands for half as much.
TOKEN_MS = 1000 * TOKEN_FRAMES // FRAME_RATE
# Zeros after an utterance: without them, the last word is lost or wrong if the recording ends
# right after it. (Qwen's own code pads audio to this length.)
END_PAD = SAMPLE_RATE // 2
# Utterances of a recording that are transcribed at once.
SIDE_BY_SIDE = 8


class Qwen3Stream(QueuedStream):
    """A stream for a session.

    ``push``, ``skip`` and the ``end_`` methods only queue; ``step`` appends to ``words``. A step is
    a pass, and an inference takes several of them.

    Args:
        heads: the alignment heads, layer → query heads.
        options: validated ones; ``heads`` and ``language`` replace those in it.
        traits: of the checkpoint.
        language: name of the language, or None to detect it.
        is_parallel: whether other streams may share its passes: rows do not depend on the rows
            beside them.

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
        *,
        is_parallel: bool = False,
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
        self._first = max(self._block, tuning.first_ms * SAMPLE_RATE // 1000)
        self._is_parallel = is_parallel
        self._room = int(limits.longest * SAMPLE_RATE)  # of an empty buffer
        # They hold nothing of this stream: a cycle would keep a closed session's memory for long.
        self._new_decoder: Callable[[], Decoder] = lambda: Decoder(model, head, heads)
        self._new_utterance: Callable[[Decoder], Utterance] = lambda decoder: Utterance(
            model, tokenizer, decoder, tail, policy, limits, traits, language
        )
        self._decoders: list[Decoder] = []
        self._idle: list[Decoder] = []  # of them
        self._draft: _Inference | None = None  # that nothing awaits
        self._may_draft = True
        self._is_ended = False
        self._utterances: deque[_Hearing] = deque()  # not all of whose words are committed
        self._n_encoded = 0  # frames, in utterances that are over
        self._ends: deque[int] = deque()  # of utterances that are not heard to their end
        self._vocabulary: Vocabulary | None = None
        # Each for the inferences that hear audio from a sample on.
        self._vocabularies: deque[tuple[int, Vocabulary | None]] = deque()
        self._language = language
        self._last_end = 0.0  # end of the last committed word

    def use_vocabulary(self, vocabulary: Vocabulary | None) -> None:
        """Take another vocabulary for inferences that hear more than was heard by now."""
        self._vocabularies.append((self._clock.model_samples, vocabulary))

    def end_utterance(self, silence: float = 0.0) -> None:
        """Queue the end of an utterance: all its words are committed; the stream goes on.

        There is nothing left to do if all words are written, and only silence came since then.
        """
        begin = self._taken if self._current is None else self._current.begin
        if self._is_said(silence):
            self._close()
        elif self._clock.model_samples > (self._ends[-1] if self._ends else begin):
            self._pad(END_PAD)
            self._ends.append(self._clock.model_samples)

    def end_stream(self) -> None:
        """Queue the end; as :meth:`end_utterance`."""
        self.end_utterance()
        self._is_ended = True

    @property
    def due(self) -> bool:
        """Whether there is a step to do.

        Offline, a pass waits until so many utterances are there that it is full.
        """
        if not self._running and not self._may_begin:
            return False
        if not self.is_offline or self._is_ended or self._is_partial:
            return True
        is_full = len(self._running) + len(self._ends) >= self._side_by_side
        return is_full or (self._may_begin and not self._next()[1])

    @property
    def chunks_matter(self) -> bool:
        """A word is committed when enough audio behind it was heard, or the end of it."""
        return not self.is_offline

    @property
    def may_share(self) -> bool:
        """Whether a step of another stream may take this one along, which nothing awaits.

        Then it runs the inference that will be due if nothing else comes first: a draft. Only
        after a step that was awaited, in a session whose audio is processed as it comes.
        """
        if self.is_offline or self._running:
            return self.due
        if self._draft is None:
            return self.was_awaited and self._may_draft and self._may_begin
        return self._draft.run.asks is not None

    @property
    def is_busy(self) -> bool:
        """Whether an inference runs, which is no draft, and may end its utterance."""
        return self._is_partial if self.is_offline else bool(self._running)

    @property
    def tentative(self) -> str:
        """Text that is recognised but not committed."""
        return self._utterances[0].utterance.tentative if self._utterances else ""

    @property
    def language(self) -> str | None:
        """Name of the requested or last detected language."""
        return self._language

    @property
    def work(self) -> tuple[int, int, int]:
        """Frames encoded, positions read and tokens written so far, to measure the work."""
        n_encoded = sum(one.utterance.n_encoded for one in self._utterances if not one.is_over)
        n_read = sum(decoder.n_read for decoder in self._decoders)
        n_written = sum(decoder.n_written for decoder in self._decoders)
        return self._n_encoded + n_encoded, n_read, n_written

    def step(self, others: Sequence[Stream] = ()) -> None:
        """One pass of the inference that runs, or of the next one over the buffer and new audio.

        Other Qwen3-ASR streams of the model share it, where rows do not depend on the rows
        beside them.
        """
        together = [self]
        if self._is_parallel:
            together += [
                other for other in others if isinstance(other, Qwen3Stream) and other._is_parallel
            ]
        step(together)

    # -- inside

    @property
    def _current(self) -> "_Hearing | None":
        """The utterance that is not heard to its end."""
        last = self._utterances[-1] if self._utterances else None
        return None if last is None or last.ends else last

    @property
    def _running(self) -> "list[_Inference]":
        """Inferences that are no drafts."""
        return [one.inference for one in self._utterances if one.inference is not None]

    @property
    def _is_partial(self) -> bool:
        """Whether an inference runs that does not hear the end of its utterance."""
        return self._current is not None and self._current.inference is not None

    @property
    def _side_by_side(self) -> int:
        """The most inferences that run at once."""
        return SIDE_BY_SIDE if self.is_offline and self._is_parallel else 1

    @property
    def _may_begin(self) -> bool:
        """Whether there is audio for an inference that can begin now."""
        has_room = len(self._running) < self._side_by_side and not self._is_partial
        return has_room and any(self._next())

    def _next(self) -> tuple[int, bool]:
        """Samples of the next inference, and whether they end the utterance."""
        room = self._room if self._current is None else self._current.utterance.room
        if self._ends:
            left = self._ends[0] - self._taken
            # The zeros may exceed the buffer: no inference has only zeros as new audio.
            return (left, True) if left <= room + END_PAD else (room, False)
        size = min(len(self._queue), room)
        if self.is_offline:  # as if the end were known: what is left may still belong to it
            return (size, False) if len(self._queue) > room + END_PAD else (0, False)
        least = self._first if self._current is None else self._block
        return (size, False) if size >= min(least, room) else (0, False)

    def _start(self, is_awaited: bool) -> "list[_Inference]":
        """Begin what is due; return the inferences that take part in the next pass."""
        if not is_awaited and self._draft is None and not self._running:
            self._draft = self._infer()
        new = 0  # samples, at most as many as one utterance may have
        while is_awaited and self._may_begin and new + self._next()[0] <= self._room + END_PAD:
            new += self._next()[0]
            self._begin()
        running = self._running or ([] if self._draft is None else [self._draft])
        return [one for one in running if one.run.asks is not None]

    def _infer(self) -> "_Inference":
        """The next inference; it changes nothing but the copy of an utterance."""
        size, end = self._next()
        vocabulary = self._vocabulary
        for first, later in self._vocabularies:
            if first < self._taken + size:
                vocabulary = later
        heard = self._current
        if heard is None:
            if not self._idle:
                self._idle.append(self._new_decoder())
                self._decoders += self._idle
            decoder = self._idle.pop()
            heard = _Hearing(decoder, self._new_utterance(decoder), self._taken)
        utterance = heard.utterance.copy()
        utterance.vocabulary = vocabulary
        run = Inference(_inferred(utterance, self._queue.peek(size), end))
        return _Inference(size, end, heard, utterance, run)

    def _begin(self) -> None:
        """Begin the next inference, or go on with its draft if that is the same."""
        inference, self._draft = self._draft, None
        self._may_draft = True
        if inference is None:
            inference = self._infer()
        elif (inference.size, inference.end) != self._next():
            self._discard(inference)
            inference = self._infer()
        self._take(inference.size)
        while self._vocabularies and self._vocabularies[0][0] < self._taken:
            self._vocabulary = self._vocabularies.popleft()[1]
        heard = inference.heard
        if heard is not self._current:
            self._utterances.append(heard)
        if inference.end:
            self._ends.popleft()
        heard.taken, heard.ends, heard.inference = self._taken, inference.end, inference

    def _discard(self, draft: "_Inference") -> None:
        """Forget an inference that heard less than there is, or not the end."""
        self._may_draft = False  # the next one might be in vain, too
        draft.heard.decoder.forget()
        if draft.heard is not self._current:
            self._idle.append(draft.heard.decoder)

    def _conclude(self) -> None:
        """Take the words of inferences that have ended."""
        for one in self._utterances:
            inference = one.inference
            if inference is None or inference.run.asks is not None:
                continue
            one.inference = None
            if inference.run.error is not None:
                raise inference.run.error
            assert inference.run.result is not None
            words, is_over = inference.run.result
            one.utterance = inference.utterance
            one.words += [self._timed(word, one) for word in words]
            if is_over:
                if not one.ends:
                    log.warning("nothing could be committed in a full buffer; the utterance ends")
                one.ends = True
                self._end(one)
        self._commit()

    def _is_said(self, silence: float) -> bool:
        """Whether the last inference heard all speech and half a second more, and wrote all."""
        heard = self._current
        if heard is None or self._ends or not heard.utterance.is_complete:
            return False
        return len(self._queue) + END_PAD <= silence * SAMPLE_RATE

    def _close(self) -> None:
        """End the current utterance without another inference."""
        heard, draft = self._current, self._draft
        assert heard is not None
        if draft is not None:
            self._discard(draft)
            self._draft = None
        self._take(len(self._queue))
        heard.taken, heard.ends = self._taken, True
        self._end(heard)
        self._commit()

    def _end(self, heard: "_Hearing") -> None:
        """Note that an utterance has all its words."""
        heard.is_over = True
        self._n_encoded += heard.utterance.n_encoded
        self._idle.append(heard.decoder)

    def _timed(self, word: AlignedWord, heard: "_Hearing") -> Word:
        """A word on the clock of the stream."""
        # No word ends after the audio, whatever its trailing margin.
        start, end = (
            self._clock.real(min(heard.begin + seconds * SAMPLE_RATE, heard.taken))
            for seconds in (word.start, word.end)
        )
        return Word(word.text, start, end, word.probability)

    def _commit(self) -> None:
        """Append words to those of the stream, in the order of utterances, without overlaps."""
        while self._utterances:
            first = self._utterances[0]
            for word in first.words:
                start = max(word.start, self._last_end)
                end = self._last_end = max(start, word.end)
                self.words.append(Word(word.text, round(start, 3), round(end, 3), word.probability))
            first.words.clear()
            if first.utterance.has_language:
                self._language = first.utterance.language
            if not first.is_over:
                break
            self._utterances.popleft()
        begin = self._taken
        if self._utterances:
            first = self._utterances[0]
            begin = first.begin + int(first.utterance.dropped_seconds * SAMPLE_RATE)
        self._clock.forget(begin)


@dataclass(slots=True)
class _Hearing:
    """An utterance on its way.

    Attributes:
        decoder: that it uses.
        utterance: as it was when the last inference ended.
        begin: its first sample in the model's audio.
        taken: the sample up to which it was heard.
        ends: whether that is its end.
        inference: the one that runs.
        words: that wait for those of earlier utterances; their times are those of the stream.
        is_over: whether it has all its words.
    """

    decoder: Decoder
    utterance: Utterance
    begin: int
    taken: int = 0
    ends: bool = False
    inference: "_Inference | None" = None
    words: list[Word] = field(default_factory=list)
    is_over: bool = False


_Found = tuple[list[AlignedWord], bool]  # words, and whether the utterance is over


@dataclass(frozen=True, slots=True)
class _Inference:
    """An inference over the buffer of an utterance and new audio.

    Attributes:
        size, end: samples of new audio, and whether they end the utterance.
        heard: the utterance.
        utterance: the copy that the inference changes.
        run: what it does.
    """

    size: int
    end: bool
    heard: _Hearing
    utterance: Utterance
    run: Inference[_Found]


def _inferred(utterance: Utterance, samples: Samples, end: bool) -> Asking[_Found]:
    words = yield from utterance.step(samples, end=end)
    if not end and not utterance.make_room():  # its words are lost, or it ends here
        words += yield from utterance.step(samples[:0], end=True)
        end = True
    return words, end


def step(streams: Sequence[Qwen3Stream]) -> None:
    """One pass over the inferences of all streams.

    What fails for all ends them all; what fails for one ends that one alone.

    Args:
        streams: of one model, each of them due; the first one is awaited.

    Raises:
        Exception: that of the first stream. The others' are in their ``error``.
    """
    try:
        inferences = []
        for stream in streams:
            is_awaited = stream is streams[0] or stream.is_awaited or not stream.chunks_matter
            inferences += stream._start(is_awaited)
        run_pass([inference.run for inference in inferences])
    except Exception as error:
        for stream in streams:
            stream.error = error
        raise
    for stream in streams:
        try:
            stream._conclude()
        except Exception as error:
            stream.error = error
    if streams[0].error is not None:
        raise streams[0].error

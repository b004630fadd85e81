"""One utterance of a Qwen3-ASR stream: a bounded audio buffer, and its words."""

import itertools
import logging
import math
from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

from voxfast.audio import SAMPLE_RATE
from voxfast.models.qwen3_asr.audio import Audio, AudioBuffer, Samples
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.models.qwen3_asr.languages import has_word_spaces, written_language
from voxfast.models.qwen3_asr.network import Qwen3ASR
from voxfast.models.qwen3_asr.passes import Asking
from voxfast.models.qwen3_asr.policy import Policy, Verdict, first_of_loop, judge
from voxfast.models.qwen3_asr.text import words_of
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.scripts import is_unspaced
from voxfast.models.speller import LONGEST_TRIAL, Speller
from voxfast.models.traits import AttentionTiming, Traits
from voxfast.models.vocabulary import Vocabulary
from voxfast.timed import Token, Word

__all__ = ["AlignedWord", "BufferLimits", "Utterance"]

log = logging.getLogger(__name__)

SPARE_TOKENS = 32  # limit of written tokens beyond one per audio token
LONGEST_HEADER = 16  # tokens of "language <Name>"
NO_SPEECH = "language none"
LEAD_IN = 1.0  # seconds of silence kept after a pause
# A word that starts at most this long before a cut counts as after it: times are not more exact.
CUT_TOLERANCE = 0.1  # seconds
SAME_PLACE = 2  # audio tokens within which a word cannot be spoken twice


@dataclass(frozen=True, slots=True)
class BufferLimits:
    """Limits of the buffer in seconds, and of the text in tokens.

    Attributes:
        longest: maximal audio in the buffer.
        full: audio at which the older part is dropped, if possible.
        keep: audio that remains then.
        room: free space that the next inference needs.
        pause: silence after which the text before it is dropped with its audio.
        context_tokens: maximal committed text in the context.
    """

    longest: float
    full: float
    keep: float
    room: float
    pause: float
    context_tokens: int


@dataclass(frozen=True, slots=True)
class AlignedWord(Word):
    """A committed word, its times in seconds of the utterance.

    Attributes:
        first, last: attended frames of its first and last token, counted from the start of the
            utterance.
    """

    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    """The result of one inference: the kept tokens, the next one, and how it ended."""

    tokens: list[Token]
    following: int
    is_complete: bool  # the model wrote the end of the text


class Utterance:
    """Audio in, committed words out.

    The committed words of the buffer are the prefix of the text that the model continues. Audio
    is dropped between words, together with the words in it.

    Args:
        language: name of the language that is spoken; None: the model detects it.

    Attributes:
        language: the given or detected language; None if there is none.
        has_language: whether that is known: given, or of text that was written.
        vocabulary: phrases that may be said; may be replaced between steps.
        tentative: text that is not committed yet.
    """

    def __init__(
        self,
        model: Qwen3ASR,
        tokenizer: Qwen3ASRTokenizer,
        decoder: Decoder,
        prompt_tail: Sequence[int],
        policy: Policy,
        limits: BufferLimits,
        traits: Traits,
        language: str | None,
    ) -> None:
        self._tokenizer, self._decoder, self._prompt_tail = tokenizer, decoder, prompt_tail
        self._policy, self._limits, self._traits = policy, limits, traits
        self._timing = traits.attention or AttentionTiming()
        self._is_forced = language is not None
        self._audio = AudioBuffer(model)
        self._words: list[AlignedWord] = []  # committed, and in the buffer
        self._is_silent = False  # no speech is pending: the model has written the end
        # The language header before the text: given, or as the model wrote it.
        self._header = [] if language is None else tokenizer.language_prefix(language)
        self.language, self.has_language = language, language is not None
        self.vocabulary: Vocabulary | None = None
        self.tentative = ""

    @property
    def n_encoded(self) -> int:
        """Frames (10 ms) encoded so far."""
        return self._audio.n_encoded

    @property
    def is_complete(self) -> bool:
        """Whether words were written, and nothing is pending: the model has written the end."""
        return self._is_silent and bool(self._words)

    @property
    def room(self) -> int:
        """Samples that fit into the buffer."""
        return max(int((self._limits.longest - self._audio.seconds) * SAMPLE_RATE), 1)

    @property
    def dropped_seconds(self) -> float:
        """Seconds of the utterance before the buffer."""
        return self._audio.dropped_seconds

    def copy(self) -> Self:
        """Another utterance that goes on from here; this one is then not used while that one is.

        They share the decoder: see :meth:`Decoder.forget`.
        """
        new = copy(self)
        new._audio, new._words = self._audio.copy(), self._words.copy()
        return new

    def step(self, samples: Samples, *, end: bool = False) -> Asking[list[AlignedWord]]:
        """One inference over the buffer and the next samples: its words.

        Args:
            samples: at most :attr:`room`.
            end: they end the utterance, so all words are committed.
        """
        self._audio.push(samples)
        audio = yield from self._audio.encode(end=end)
        if audio is None:
            return []
        found = yield from self._decode(audio, end)
        following = None if end else found.following
        words, rest = words_of(found.tokens, following, self._tokenizer.piece)
        words = [word for word in words if not self._is_repeated(*word)]
        committed = []
        for text, tokens in words:
            probability = math.prod(token.probability for token in tokens)
            certainty = math.prod(token.certainty for token in tokens)
            if certainty < self._traits.least_probability:
                log.debug("left out %r, of probability %.3f", text, probability)
                continue
            committed.append(self._align(text, tokens, probability))
            self._words.append(committed[-1])
        self.tentative = rest if rest.strip() else ""
        self._is_silent = found.is_complete and not self.tentative
        return committed

    def make_room(self) -> bool:
        """Drop audio, and the words in it, after a pause or when the buffer is full.

        Returns:
            False if there is no room, and nothing can be dropped without losing words.
        """
        length, last = self._audio.seconds, self._words[-1].end if self._words else 0.0
        last -= self.dropped_seconds
        if self._is_silent and length - last > self._limits.pause:
            self._drop(int(length - LEAD_IN), [])
            return True
        if length + self._limits.room <= self._limits.full:
            return True
        heard = max(last, length - self._limits.pause) if self._is_silent else last
        most = min(math.ceil(length - self._limits.keep), int(heard), self._audio.n_settled)
        for n_chunks in range(most, 0, -1):
            cut = self.dropped_seconds + n_chunks - CUT_TOLERANCE
            words = [word for word in self._words if word.start >= cut]
            # Without a word as context, the end of a cut word would be recognised as another one.
            if words or last <= n_chunks:
                self._drop(n_chunks, words)
                return True
        return length + self._limits.room <= self._limits.longest

    def _is_repeated(self, text: str, tokens: Sequence[Token]) -> bool:
        """Whether the same word was committed in the same place."""
        first = tokens[0].position + self._audio.dropped_tokens
        return any(
            abs(first - other.first) <= SAME_PLACE and other.text.strip() == text.strip()
            for other in self._words
        )

    def _drop(self, n_chunks: int, words: list[AlignedWord]) -> None:
        self._audio.drop(min(n_chunks, self._audio.n_settled))
        self._words = words

    def _decode(self, audio: Audio, end: bool) -> Asking[_Hypothesis]:
        """Write tokens until the policy, the model or a loop stops it."""
        n_audio = len(audio.embeddings)
        last = self._words[-1].last - self._audio.dropped_tokens if self._words else 0
        tokens: list[Token] = []
        text = yield from self._begin_text(audio)
        for count in itertools.count():
            prediction, before = yield from text.next()
            phrase = len(tokens) - before  # where the one that it belongs to begins
            if prediction.id in self._tokenizer.ends:
                return _Hypothesis(tokens, prediction.id, True)
            following = prediction.id
            if count == n_audio + SPARE_TOKENS:
                break
            if self._tokenizer.piece(prediction.id) is None:
                continue  # not text; Qwen's decoder skips it, too
            frames = [token.position for token in [*tokens, prediction]]
            verdict = judge(frames, n_audio, self._policy, before=last, end=end)
            if verdict is Verdict.REWIND and tokens:
                following = tokens.pop().id
            if verdict is not Verdict.KEEP:
                if phrase < len(tokens):  # it may fail yet, with more audio
                    following = tokens[phrase].id
                    del tokens[phrase:]
                break
            tokens.append(prediction)
            loop = first_of_loop([token.id for token in tokens], frames)
            if loop is not None:
                log.debug("cut a loop: %d of %d tokens stay", loop, len(tokens))
                following = tokens[loop].id
                del tokens[loop:]
                break
        return _Hypothesis(tokens, following, False)

    def _begin_text(self, audio: Audio) -> Asking["_Text"]:
        """Read the audio, and the header or what the text goes on from."""
        if self._is_forced or self._words:
            context = self._context()
            tail = [*self._prompt_tail, *self._header, *context]
            written, prediction = [], (yield from self._decoder.read(audio, tail))
        else:
            prediction = yield from self._decoder.read(audio, self._prompt_tail)
            *written, prediction = yield from self._read_header(prediction)
            context = [token.id for token in written]
        speller = Speller(self._tokenizer.piece, self.vocabulary)
        speller.read(context[-LONGEST_TRIAL:])
        return _Text(self._decoder, speller, written, prediction)

    def _read_header(self, prediction: Token) -> Asking[list[Token]]:
        """Read the header that the model writes, ``language English<asr_text>``.

        Like Qwen's own parser: without the tag everything is text, and text may follow
        ``language None``. (Without tag and text, that means no speech.)

        Returns:
            The first tokens of the text; all but the last are written.
        """
        written: list[Token] = []
        stops = {*self._tokenizer.ends, self._tokenizer.asr_text}
        while prediction.id not in stops and len(written) < LONGEST_HEADER:
            written.append(prediction)
            prediction = yield from self._decoder.write(prediction.id)
        tokens = [token.id for token in written]
        text = self._tokenizer.text(tokens)
        language = written_language(text)
        if prediction.id == self._tokenizer.asr_text:
            self._header = [*tokens, prediction.id]
            first = [(yield from self._decoder.write(prediction.id))]
        elif prediction.id in self._tokenizer.ends and text.strip().lower() == NO_SPEECH:
            first = [prediction]
        else:
            self._header, language, first = [], None, [*written, prediction]
        if language is not None or first[0].id not in self._tokenizer.ends:
            self.language, self.has_language = language, True
        return first

    def _context(self) -> list[int]:
        text = "".join(word.text for word in self._words).lstrip()
        return self._tokenizer.encode(text)[-self._limits.context_tokens :] if text else []

    def _align(self, text: str, tokens: Sequence[Token], probability: float) -> AlignedWord:
        """The word with its times: it begins no earlier than the one before it ends.

        Ends are the better known ones, and may have been told already. :meth:`make_room` cuts the
        buffer where words begin.
        """
        is_first = not self._words and not text[:1].isspace()
        if is_first and has_word_spaces(self.language or "") and not is_unspaced(text[0]):
            text = " " + text  # the model writes none before its first word
        first, last = tokens[0].position, tokens[-1].position
        earliest = self._words[-1].end if self._words else 0.0
        start = max(earliest, self._audio.token_seconds(first) - self._timing.start_lead)
        end = max(start, self._audio.token_seconds(last) + self._timing.end_trail)
        dropped = self._audio.dropped_tokens
        return AlignedWord(text, start, end, probability, first + dropped, last + dropped)


class _Text:
    """The endless tokens of a text, each with the number of those before it in its phrase.

    A phrase of the vocabulary is written as a whole.

    Args:
        written: its first tokens, which the decoder has written.
        prediction: the one behind them, which it has not.
    """

    def __init__(
        self, decoder: Decoder, speller: Speller, written: Sequence[Token], prediction: Token
    ) -> None:
        self._decoder, self._speller = decoder, speller
        self._waiting = deque((token, 0) for token in written)
        self._prediction = prediction
        self._chosen: int | None = None  # the token that comes next, if it is chosen
        self._frames: list[int] = []  # of tokens that are held back

    def next(self) -> Asking[tuple[Token, int]]:
        """The next token; what was chosen before it is written now."""
        while not self._waiting:
            if self._chosen is not None:
                self._prediction = yield from self._decoder.write(self._chosen)
            self._choose()
        return self._waiting.popleft()

    def _choose(self) -> None:
        prediction, held = self._prediction, self._speller.held
        choice = self._speller.choose(prediction.id, prediction.probability, self._decoder.logits)
        self._frames.append(prediction.position)
        if choice.undone:
            self._decoder.go_back(choice.undone)
            held = 0
            del self._frames[1:]
        for place, one in enumerate(choice.written):
            token = one.at(self._frames.pop(0))
            self._waiting.append((token, place if place < held else 0))
        self._chosen = choice.token

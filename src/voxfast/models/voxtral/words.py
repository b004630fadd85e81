"""Tokens of a Voxtral stream to words with times."""

import codecs
import logging
from collections.abc import Callable

from voxfast.models.scripts import split_words
from voxfast.models.traits import Traits
from voxfast.timed import Token, Word

__all__ = ["WordAssembler"]

log = logging.getLogger(__name__)


class WordAssembler:
    """Assembles the tokens of one stream into words, and returns them once they are final.

    A marker opens a group: one word, or several that share its time. Text is decoded from the
    concatenated bytes, so a character may span tokens. A word is committed when the next one
    begins or the group ends; in scripts without spaces, character by character. The
    concatenated words are the model's text without trailing white space: white space at the end
    of a group belongs to the next word.

    Args:
        marker: id of the marker token.
        piece: the bytes of a text token, None for a special one.
        end_time: end of a group in seconds of real audio, from the position of its marker.
        traits: word timing and minimal probability of the checkpoint.
    """

    def __init__(
        self,
        marker: int,
        piece: Callable[[int], bytes | None],
        end_time: Callable[[int], float],
        traits: Traits,
    ) -> None:
        self._marker, self._piece, self._end_time = marker, piece, end_time
        self._timing, self._least_probability = traits.timing, traits.least_probability
        # Incomplete characters wait for their bytes. Invalid bytes are dropped: U+FFFD would be
        # text that the model did not write.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        self._text = ""
        self._probability = self._certainty = 1.0
        self._end: float | None = None  # of the open group
        self._start: float | None = None  # of the open group, once it has a word
        self._last_start = 0.0
        self._last_end = 0.0

    @property
    def tentative(self) -> str:
        """Text that is not committed yet."""
        return self._text if self._text.strip() else ""

    def add(self, token: Token) -> list[Word]:
        """Take the next token; return the words that it completes."""
        piece = self._piece(token.id)
        if piece is None:
            words = self.close()
            if token.id == self._marker:
                self._end = self._end_time(token.position)
            return words
        if self._end is None:  # text without a marker: its own position is the best guess
            self._end = self._end_time(token.position)
        before = self._text
        *complete, self._text = split_words(before + self._decoder.decode(piece)) or [""]
        words = []
        for text in complete:
            if len(text) > len(before):  # the token belongs to this word, too
                self._probability *= token.probability
                self._certainty *= token.certainty
            words += self._word(text)
            before, self._probability, self._certainty = "", 1.0, 1.0
        self._probability *= token.probability
        self._certainty *= token.certainty
        return words

    def close(self) -> list[Word]:
        """End the group; return its last word, if there is one."""
        words = []
        if self._text.strip():
            words = self._word(self._text)
            self._text, self._probability, self._certainty = "", 1.0, 1.0
        self._start = self._end = None
        return words

    def _word(self, text: str) -> list[Word]:
        """A word with the time of its group: the model gives no time for each word."""
        if self._certainty < self._least_probability:
            log.debug("left out %r, of probability %.3f", text, self._probability)
            return []
        if self._start is None:
            end = self._last_end if self._end is None else max(self._end, self._last_start)
            self._start = max(self._begin(end, len(text.strip())), self._last_start)
            self._last_start, self._last_end = self._start, end
        return [Word(text, round(self._start, 3), round(self._last_end, 3), self._probability)]

    def _begin(self, end: float, characters: int) -> float:
        """The estimated start of a word that ends at ``end`` seconds; see ``WordTiming``."""
        timing = self._timing
        begin = end - timing.start_base - timing.start_per_character * characters
        touches = begin - self._last_end < timing.least_pause
        return min(self._last_end, end) if touches else begin

"""Words and events of speech, in the order of the stream."""

from collections import deque
from collections.abc import Iterator, Sequence

from voxfast._segments import SegmentBreaks
from voxfast.online.listener import SpeechEvent
from voxfast.timed import Segment, Word
from voxfast.vad import SpeechEnded, SpeechStarted

__all__ = ["Event", "Turns"]

Event = SpeechStarted | SpeechEnded | Word | Segment

EARLY = 0.5  # seconds by which the first word may seem to start before speech does


class Turns:
    """Merges the words of a stream with what its listener heard, and adds segments."""

    def __init__(self) -> None:
        self._breaks = SegmentBreaks()
        self._words: list[Word] = []  # of the segment that is open

    def step(
        self,
        words: Sequence[Word],
        heard: Sequence[SpeechEvent],
        language: str | None,
        *,
        finish: bool = False,
    ) -> list[Event]:
        """Take the next words and events of speech; return them in order."""
        events: list[Event] = []
        waiting = deque(heard)
        for word in words:
            while waiting and _is_before(waiting[0], word):
                events += self._speech(waiting.popleft(), language)
            events += self._word(word, language)
        for event in waiting:
            events += self._speech(event, language)
        if finish:
            events += self._close(language)
        return events

    def _word(self, word: Word, language: str | None) -> Iterator[Event]:
        shown = self._breaks.step(word)
        if shown is not None and shown[0]:
            yield from self._segment(language)
        self._words.append(word)
        yield word

    def _speech(self, event: SpeechEvent, language: str | None) -> Iterator[Event]:
        if isinstance(event, SpeechEnded):  # and so does the turn
            yield from self._close(language)
        yield event

    def _close(self, language: str | None) -> Iterator[Event]:
        self._breaks.close()
        yield from self._segment(language)

    def _segment(self, language: str | None) -> Iterator[Event]:
        """The segment that is open, if it has a visible word."""
        words, self._words = tuple(self._words), []
        if any(word.text.strip() for word in words):
            yield Segment(words, language)


def _is_before(event: SpeechEvent, word: Word) -> bool:
    early = EARLY if isinstance(event, SpeechStarted) else 0.0
    return event.time - early <= word.start

"""Words and events of speech, in the order of the stream."""

from collections import deque
from collections.abc import Iterator, Sequence

from voxfast._segments import SegmentStream
from voxfast.online.listener import SpeechEvent
from voxfast.timed import Segment, Word
from voxfast.vad import SpeechEnded, SpeechStarted

__all__ = ["Event", "Turns"]

Event = SpeechStarted | SpeechEnded | Word | Segment

EARLY = 0.5  # seconds by which the first word may seem to start before speech does


class Turns:
    """Merges the words of a stream with what its listener heard, and adds segments."""

    def __init__(self) -> None:
        self._segments = SegmentStream()

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
            events += [*_segment(self._segments.step(word), language), word]
        for event in waiting:
            events += self._speech(event, language)
        if finish:
            events += _segment(self._segments.close(), language)
        return events

    def _speech(self, event: SpeechEvent, language: str | None) -> Iterator[Event]:
        if isinstance(event, SpeechEnded):  # and so does the turn
            yield from _segment(self._segments.close(), language)
        yield event


def _segment(words: tuple[Word, ...], language: str | None) -> Iterator[Segment]:
    if words:
        yield Segment(words, language)


def _is_before(event: SpeechEvent, word: Word) -> bool:
    early = EARLY if isinstance(event, SpeechStarted) else 0.0
    return event.time - early <= word.start

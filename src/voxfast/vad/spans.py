"""From probabilities to spans of speech: two thresholds, least lengths, padding."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from voxfast.errors import InvalidOptionError
from voxfast.vad.detector import FRAME_SECONDS, VoiceDetector

__all__ = ["SpeechEnded", "SpeechSpan", "SpeechSpans", "SpeechStarted", "find_speech"]

# Part of the least speech that must be certain. An hour of noise (benches/noise.py) has four spans
# without it, all of probabilities up to 0.7, and none with it. Of 160 words said alone, none is
# lost; with 1.0 one is.
SURE = 0.8
TINY = 1e-6


class SpeechStarted(NamedTuple):
    """Someone speaks.

    Attributes:
        time: second of the stream from which on, the padding included.
    """

    time: float


class SpeechEnded(NamedTuple):
    """Nobody speaks any more.

    Attributes:
        time: second of the stream up to which somebody did, the padding included.
    """

    time: float


class SpeechSpan(NamedTuple):
    """Speech from ``start`` to ``end``, in seconds of the stream."""

    start: float
    end: float


class SpeechSpans:
    """Spans of speech in a stream of probabilities, as soon as they are certain.

    Speech begins with a frame of at least ``threshold`` and lasts until the probability has
    stayed below ``release`` for ``pause_ms``. It is announced after ``least_speech_ms``; what is
    shorter is no speech. Where the detector is in doubt, it takes longer: a frame counts from
    nothing at ``release`` to all of itself at a probability of 1, and 0.8 of ``least_speech_ms``
    must come together. What is announced is never taken back.

    A span is ``padding_ms`` longer at both ends, but spans never overlap: in a pause shorter than
    both paddings, the span before it takes its own first, ``pause_ms`` at most.

    Args:
        threshold: 0 to 1.
        release: at most ``threshold``; by default 0.15 less.
        least_speech_ms, pause_ms, padding_ms: milliseconds, 0 or more; rounded up to frames of
            32 ms. ``pause_ms`` below one frame counts as one.

    Raises:
        InvalidOptionError: for values outside of these ranges.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        release: float | None = None,
        least_speech_ms: float = 100,
        pause_ms: float = 300,
        padding_ms: float = 100,
    ) -> None:
        if release is None:
            release = max(0.0, threshold - 0.15)
        if not 0 <= release <= threshold <= 1:
            raise InvalidOptionError(
                f"0 ≤ release ≤ threshold ≤ 1 must hold; got release={release}, "
                f"threshold={threshold}"
            )
        self._threshold, self._release = threshold, release
        self._least = max(1, _frames("least_speech_ms", least_speech_ms))
        self._least_sure = SURE * least_speech_ms / 1000 / FRAME_SECONDS
        self._pause = max(1, _frames("pause_ms", pause_ms))
        self._padding = _frames("padding_ms", padding_ms)
        self._frame = 0  # the next one
        self._first = -1  # frame of the span that is open, or −1
        self._last = 0  # the frame after the last one of speech in it
        self._sure = 0.0  # frames of it that are speech for sure
        self._announced = False
        self._before = 0  # frame up to which earlier spans reach

    @property
    def speaking(self) -> bool:
        """Whether a span has been announced that has not ended."""
        return self._announced

    @property
    def is_open(self) -> bool:
        """Whether speech may have begun that has not ended, announced or not."""
        return self._first >= 0

    @property
    def time(self) -> float:
        """Seconds of the stream that were looked at."""
        return self._frame * FRAME_SECONDS

    def step(self, probabilities: Iterable[float]) -> list[SpeechStarted | SpeechEnded]:
        """Consume the probabilities of the next frames; return what is certain by now."""
        events = []
        for probability in probabilities:
            event = self._next(float(probability))
            if event is not None:
                events.append(event)
        return events

    def finish(self) -> list[SpeechEnded]:
        """The end of the stream: of an announced span that is still open as well."""
        return [self._end(self._frame)] if self._announced else []

    def _next(self, probability: float) -> SpeechStarted | SpeechEnded | None:
        frame = self._frame
        self._frame += 1
        if probability >= (self._release if self._first >= 0 else self._threshold):
            if self._first < 0:
                self._first, self._sure = frame, 0.0
            self._last = frame + 1
            self._sure += 1 - (1 - probability) / max(1 - self._release, TINY)
        elif self._first >= 0 and frame + 1 - self._last >= self._pause:
            if self._announced:
                return self._end(frame + 1)
            self._first = -1  # too short
            return None
        is_long = self._last - self._first >= self._least and self._sure >= self._least_sure
        if not self._announced and self._first >= 0 and is_long:
            self._announced = True
            return SpeechStarted(max(self._first - self._padding, self._before) * FRAME_SECONDS)
        return None

    def _end(self, now: int) -> SpeechEnded:
        """Ends the open span; ``now`` is the frame after the last one that was looked at."""
        self._before = min(self._last + self._padding, now)
        self._first, self._announced = -1, False
        return SpeechEnded(self._before * FRAME_SECONDS)


def find_speech(samples: object, **options: float) -> list[SpeechSpan]:
    """Spans of speech in a whole recording.

    Args:
        samples: [N] of 16 kHz mono audio; see :func:`voxfast.audio.check_samples`.
        options: those of :class:`SpeechSpans`.

    Raises:
        InvalidAudioError: as ``check_samples``.
        InvalidOptionError: as ``SpeechSpans``.
    """
    detector, spans = VoiceDetector(), SpeechSpans(**options)
    events = [*spans.step(detector.step(samples)), *spans.step(detector.finish()), *spans.finish()]
    return [
        SpeechSpan(started.time, ended.time)
        for started, ended in zip(events[::2], events[1::2], strict=True)
    ]


def _frames(name: str, milliseconds: float) -> int:
    if not 0 <= milliseconds < math.inf:
        raise InvalidOptionError(f"{name} must be 0 or more milliseconds; got {milliseconds}")
    return math.ceil(milliseconds / 1000 / FRAME_SECONDS)

"""What a stream gets to hear: ends of turns, and silence that is left out."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE
from voxfast.errors import InvalidOptionError
from voxfast.online.stream import Stream
from voxfast.vad import SpeechEnded, SpeechSpans, SpeechStarted, VoiceDetector
from voxfast.vad.detector import FRAME_LENGTH

__all__ = ["Listener", "SpeechEvent"]

SpeechEvent = SpeechStarted | SpeechEnded

# Samples of silence before speech that are heard all the same. With a third of a second of it,
# voxtral-numbers makes 3.8 % errors in joined clips instead of 2.3 %: the first word suffers.
KEPT = SAMPLE_RATE * 8 // 10
KEPT_IN_DOUBT = 4 * KEPT  # with what may be speech, while the detector is in doubt
TRAIL = 0.1  # seconds of a pause that may be the quiet end of a word
PIECE = SAMPLE_RATE  # samples that are pushed at once, so that a long recording can be interrupted


class Detector(Protocol):
    """The interface of :class:`voxfast.vad.VoiceDetector`."""

    def step(self, samples: object) -> NDArray[np.float32]: ...
    def finish(self) -> NDArray[np.float32]: ...
    def reset(self) -> None: ...


class Listener:
    """Stands before a stream, has its methods, and listens for speech.

    A pause of ``endpoint_ms`` ends an utterance: its last words come at once. With
    ``skip_silence`` the stream hears speech alone, 0.8 s before it, and the pause behind it; the
    times of words stay those of the real audio.

    Parity: for any split of the samples, the stream hears the same.

    Args:
        endpoint_ms: above 0; None: so long that the stream has written its words anyway
            (``Stream.settling``), and ending the utterance costs nothing.

    Raises:
        InvalidOptionError: for another ``endpoint_ms``.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        endpoint_ms: float | None,
        skip_silence: bool,
        detector: Detector | None = None,
    ) -> None:
        pause_ms = 1000 * (stream.settling + TRAIL) if endpoint_ms is None else endpoint_ms
        if not pause_ms > 0:
            raise InvalidOptionError(f"endpoint_ms must be above 0 milliseconds; got {endpoint_ms}")
        self._stream = stream
        self._detector = VoiceDetector() if detector is None else detector
        self._pause_ms = pause_ms
        self._silence = max(0.0, pause_ms / 1000 - TRAIL)
        self._spans = SpeechSpans(pause_ms=pause_ms)
        self._skips = self._quiet = skip_silence
        self._origin = 0.0  # second of the stream at which the spans begin
        self._partial = 0  # samples of a frame that is not complete
        self._kept: deque[NDArray[np.float32]] = deque()
        self._n_kept = 0
        self._n_skipped = 0  # samples that the stream has not been told of
        self.events: list[SpeechEvent] = []
        self.unheard = 0.0  # seconds of audio that the stream does not know of
        self._n_left_out = 0  # samples
        self.skipped = 0.0  # seconds of audio that the stream never hears

    def push(self, samples: NDArray[np.float32]) -> None:
        """Take real audio."""
        begin, end = 0, FRAME_LENGTH - self._partial
        for probability in self._detector.step(samples):
            self._hear(samples[begin:end])
            self._note(self._spans.step([probability]), self._silence)
            if not self._spans.is_open:
                self._quiet = self._skips
            begin, end = end, end + FRAME_LENGTH
        self._hear(samples[begin:])
        self._partial = (self._partial + len(samples)) % FRAME_LENGTH
        self._count()

    def skip(self, seconds: float) -> None:
        """Note a pause of the real audio that is not inserted: it ends speech."""
        self._end_span()
        self._skip_kept()
        self._stream.skip(seconds)
        self._origin = self._stream.heard
        self._detector.reset()
        self._spans = SpeechSpans(pause_ms=self._pause_ms)
        self._partial, self._quiet = 0, self._skips

    def use_vocabulary(self, vocabulary: Any) -> None:
        """Take another vocabulary for what the stream hears from now on."""
        self._stream.use_vocabulary(vocabulary)

    def end_utterance(self) -> None:
        """End an utterance, whatever is heard."""
        if self._spans.is_open:
            self._release()
        self._stream.end_utterance()

    def end_stream(self) -> None:
        """End the stream."""
        if self._partial:
            self._note(self._spans.step(self._detector.finish()), self._silence)
            self._partial = 0
        self._end_span()
        self._skip_kept()
        self._stream.end_stream()

    # -- Internal

    def _hear(self, samples: NDArray[np.float32]) -> None:
        """Pass audio on, or, in silence that is skipped, keep its last KEPT samples.

        While speech may have begun, what was kept before it stays.
        """
        if not self._quiet:
            self._stream.push(samples)
            return
        self._kept.append(samples)
        self._n_kept += len(samples)
        most = KEPT_IN_DOUBT if self._spans.is_open else KEPT
        while self._n_kept > most:
            first = self._kept.popleft()
            dropped = min(len(first), self._n_kept - most)
            self._n_kept -= dropped
            self._n_skipped += dropped
            self._n_left_out += dropped
            if dropped < len(first):
                self._kept.appendleft(first[dropped:])

    def _note(self, events: Sequence[SpeechEvent], silence: float) -> None:
        """Act on events; ``silence`` are the seconds without speech before an end of it."""
        for event in events:
            self.events.append(type(event)(self._origin + event.time))
            if isinstance(event, SpeechStarted):
                self._release()
            else:
                self._stream.end_utterance(silence)

    def _end_span(self) -> None:
        """End the speech that is open; what is too short to be speech is heard as well."""
        if self._spans.is_open:
            self._release()
        self._note(self._spans.finish(), 0.0)

    def _release(self) -> None:
        """Let the stream hear what was kept."""
        if self._n_skipped:
            self._stream.skip(self._n_skipped / SAMPLE_RATE)
            self._n_skipped = 0
        for samples in self._kept:
            self._stream.push(samples)
        self._kept.clear()
        self._n_kept = 0
        self._quiet = False
        self._count()

    def _skip_kept(self) -> None:
        """Let the stream know of all silence, none of which it hears."""
        if skipped := self._n_skipped + self._n_kept:
            self._stream.skip(skipped / SAMPLE_RATE)
        self._n_left_out += self._n_kept
        self._kept.clear()
        self._n_kept = self._n_skipped = 0
        self._count()

    def _count(self) -> None:
        self.unheard = (self._n_kept + self._n_skipped) / SAMPLE_RATE
        self.skipped = self._n_left_out / SAMPLE_RATE

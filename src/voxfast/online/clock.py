"""Maps times of the model's audio to times of the real audio."""

from collections import deque
from dataclasses import dataclass

__all__ = ["Clock"]


@dataclass(slots=True)
class _Segment:
    model: int  # sample of the model's audio at which the segment begins
    real: float  # second of the real audio at which it begins
    live: bool  # False: padding, which takes no real time


class Clock:
    """Maps samples of the model's audio to seconds of the real audio.

    The two differ by padding, which only the model hears, and by announced pauses, which the
    model does not hear.
    """

    def __init__(self, sample_rate: int = 16000) -> None:
        self._rate = sample_rate
        self._model = 0  # samples the model has been given
        self._segments = deque([_Segment(0, 0.0, True)])

    @property
    def model_samples(self) -> int:
        """Samples given to the model so far, padding included."""
        return self._model

    @property
    def now(self) -> float:
        """Seconds of real audio so far, pauses included."""
        return self.real(self._model)

    def insert(self, n_samples: int) -> None:
        """Count real audio that the model hears."""
        if not self._segments[-1].live:
            self._segments.append(_Segment(self._model, self.now, True))
        self._model += n_samples

    def pad(self, n_samples: int) -> None:
        """Count padding: silence that only the model hears."""
        if self._segments[-1].live:
            self._segments.append(_Segment(self._model, self.now, False))
        self._model += n_samples

    def skip(self, seconds: float) -> None:
        """Count a pause that the model does not hear."""
        last = self._segments[-1]
        if last.model == self._model:
            last.real += seconds
        else:
            live = last.live
            self._segments.append(_Segment(self._model, self.now + seconds, live))

    def real(self, model_sample: float) -> float:
        """Seconds of real audio at a sample of the model's audio; padding maps to its start."""
        for segment in reversed(self._segments):
            if model_sample >= segment.model:
                break
        else:
            segment = self._segments[0]
        elapsed = max(0.0, model_sample - segment.model) / self._rate if segment.live else 0.0
        return segment.real + elapsed

    def forget(self, model_sample: int) -> None:
        """Drop the segments before this sample."""
        while len(self._segments) > 1 and self._segments[1].model <= model_sample:
            self._segments.popleft()

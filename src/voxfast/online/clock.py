"""Seconds of the real audio for seconds of what the model heard."""

from collections import deque
from dataclasses import dataclass

__all__ = ["Clock"]


@dataclass(slots=True)
class _Segment:
    model: int  # sample of the model's audio at which the segment begins
    real: float  # second of the real audio at which it begins
    live: bool  # False: padding, during which the real clock stands still


class Clock:
    """Maps the audio a model heard to the audio there was.

    The two differ where silence was padded in to bring out the last word (the model hears
    more than there was) and where a pause was announced but not inserted (it hears less).
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
        """Real audio was given to the model."""
        if not self._segments[-1].live:
            self._segments.append(_Segment(self._model, self.now, True))
        self._model += n_samples

    def pad(self, n_samples: int) -> None:
        """Silence was given to the model that is not in the real audio."""
        if self._segments[-1].live:
            self._segments.append(_Segment(self._model, self.now, False))
        self._model += n_samples

    def skip(self, seconds: float) -> None:
        """Real time went by that the model did not hear."""
        last = self._segments[-1]
        if last.model == self._model:
            last.real += seconds
        else:
            live = last.live
            self._segments.append(_Segment(self._model, self.now + seconds, live))

    def real(self, model_sample: float) -> float:
        """Seconds of real audio at a sample of the model's; padding maps to where it began."""
        for segment in reversed(self._segments):
            if model_sample >= segment.model:
                break
        else:
            segment = self._segments[0]
        elapsed = max(0.0, model_sample - segment.model) / self._rate if segment.live else 0.0
        return segment.real + elapsed

    def forget(self, model_sample: int) -> None:
        """Drop what is only needed for samples before this one."""
        while len(self._segments) > 1 and self._segments[1].model <= model_sample:
            self._segments.popleft()

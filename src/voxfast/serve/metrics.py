"""Figures of the server, in Prometheus' form."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from voxfast.models.counts import PassCount

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)


class Metrics:
    """Counts what happens, by door. Nothing of what is said is in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._open = Gauge(
            "voxfast_sessions", "Sessions that are open", ["door"], registry=self.registry
        )
        self._began = Counter(
            "voxfast_sessions_started", "Sessions so far", ["door"], registry=self.registry
        )
        self._audio = Counter(
            "voxfast_audio_seconds", "Seconds of audio heard", ["door"], registry=self.registry
        )
        self._words = Counter("voxfast_words", "Words written", ["door"], registry=self.registry)
        self._errors = Counter(
            "voxfast_errors", "Refusals and failures", ["door", "code"], registry=self.registry
        )
        self._lag = Histogram(
            "voxfast_lag_seconds",
            "Audio of a live session that waited when a piece of it was begun",
            ["door"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._delay = Histogram(
            "voxfast_word_delay_seconds",
            "Audio received behind the end of a word when it was sent",
            ["door"],
            buckets=_SECONDS,
            registry=self.registry,
        )

    def watch(self, count: PassCount) -> None:
        """Show the passes of the model, which counts them itself."""
        self.registry.register(_Passes(count))

    def session_began(self, door: str) -> None:
        """A session is there."""
        self._open.labels(door).inc()
        self._began.labels(door).inc()

    def session_ended(self, door: str) -> None:
        """It is gone."""
        self._open.labels(door).dec()

    def heard(self, door: str, seconds: float) -> None:
        """Audio has come."""
        self._audio.labels(door).inc(seconds)

    def waited(self, door: str, seconds: float) -> None:
        """So much audio of a live session waits."""
        self._lag.labels(door).observe(seconds)

    def wrote(self, door: str, words: int) -> None:
        """So many words were written."""
        self._words.labels(door).inc(words)

    def delayed(self, door: str, delays: list[float]) -> None:
        """Words of a live session were written, with so much audio received behind their ends."""
        for delay in delays:
            self._delay.labels(door).observe(max(0.0, delay))

    def failed(self, door: str, code: str) -> None:
        """Something was refused or failed; ``code`` is one of the server's own."""
        self._errors.labels(door, code).inc()

    def text(self) -> bytes:
        """All figures, for ``/metrics``."""
        return generate_latest(self.registry)


class _Passes(Collector):
    def __init__(self, count: PassCount) -> None:
        self._count = count

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The figures as they are now."""
        passes, rows = self._count.passes, self._count.rows
        yield CounterMetricFamily(
            "voxfast_passes", "Passes over the weights of the decoder", value=passes
        )
        yield CounterMetricFamily(
            "voxfast_rows", "Positions that went through them, of all sessions", value=rows
        )

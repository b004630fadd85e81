"""From blocks of audio through a session to an output."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from voxfast.audio import SAMPLE_RATE
from voxfast.cli.options import open_session
from voxfast.cli.output import Output
from voxfast.errors import AudioFileError
from voxfast.timed import Transcript, Word

if TYPE_CHECKING:
    from voxfast.model import Model
    from voxfast.online.session import Session

Blocks = Iterator[npt.NDArray[np.float32]]


class Pace:
    """Feeds audio at the speed of speech, and measures how far the words lag behind it.

    A word's lag is the time from its end in the audio, had the audio been spoken from the
    first block on, to its commitment: what a listener would wait.

    Args:
        live: whether the audio comes as it is spoken; a file's is held back until it would
            have been.
        now, sleep: the clock, in seconds.
    """

    def __init__(
        self,
        *,
        live: bool = False,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._live, self._now, self._sleep = live, now, sleep
        self._origin: float | None = None
        self._begin = 0.0
        self._busy = 0.0
        self._heard = 0.0
        self._lags: list[float] = []

    def before(self, seconds: float) -> None:
        """Wait until ``seconds`` more of audio would have been spoken."""
        if self._origin is None:
            # A live block is here because its end has been spoken.
            self._origin = self._now() - (seconds if self._live else 0.0)
        self._heard += seconds
        wait = self._origin + self._heard - self._now()
        if wait > 0:
            self._sleep(wait)
        self._begin = self._now()

    def after(self, words: Sequence[Word]) -> None:
        """Take note of what was committed since :meth:`before`."""
        end = self._now()
        self._busy += end - self._begin
        self._begin = end
        if self._origin is not None:
            self._lags += [end - self._origin - word.end for word in words]

    def report(self) -> str:
        """One line of figures."""
        factor = self._busy / self._heard if self._heard else 0.0
        figures = f"real-time factor {factor:.3f} ({self._busy:.2f} s for {self._heard:.2f} s)"
        if not self._lags:
            return f"no words; {figures}"
        median, high = np.percentile(self._lags, [50, 95])
        return (
            f"{len(self._lags)} word{'s' * (len(self._lags) != 1)}, "
            f"lag median {median:.2f} s, 95 % {high:.2f} s, "
            f"longest {max(self._lags):.2f} s; {figures}"
        )


def run_session(
    model: "Model",
    blocks: Blocks,
    output: Output,
    args: argparse.Namespace,
    *,
    pace: Pace | None = None,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Transcribe one stream; whatever ends it, the committed words reach the output.

    Raises:
        AudioFileError: if the audio ended in an error; what came before it was transcribed.
        VoxfastError: if the session failed.
    """
    heard, failure = 0, None
    words: list[Word] = []

    def keep(new: list[Word]) -> None:
        words.extend(new)
        if pace:
            pace.after(new)
        output.add(new)

    with open_session(model, args) as session:
        try:
            try:
                for block in blocks:
                    if pace:
                        pace.before(len(block) / SAMPLE_RATE)
                    keep(session.feed(block))
                    heard += len(block)
                    if progress:
                        progress(heard / SAMPLE_RATE)
            except AudioFileError as error:
                failure = error
            keep(session.finish())
        except BaseException:
            words += session.take()  # of the call that was interrupted
            output.close(_transcript(words, heard, model, session), complete=False)
            raise
    output.close(_transcript(words, heard, model, session), complete=failure is None)
    if failure:
        raise failure


def _transcript(
    words: Sequence[Word], heard: int, model: "Model", session: "Session"
) -> Transcript:
    """The words of a session as a transcript."""
    return Transcript(tuple(words), heard / SAMPLE_RATE, model.name, session.language)

"""From blocks of audio through a session to an output."""

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from voxfast.audio import SAMPLE_RATE
from voxfast.cli.console import StdoutError, complain, note
from voxfast.cli.options import open_session
from voxfast.cli.output import Output
from voxfast.cli.signals import Ending, Interrupted
from voxfast.errors import AudioFileError
from voxfast.timed import Transcript, Word

if TYPE_CHECKING:
    from voxfast.model import Model
    from voxfast.online.session import Session

_SILENT_SECONDS = 2.5
"""After so long without a word a pause is certain: a model may be a second or two late."""
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
    outputs: Output | Sequence[Output],
    args: argparse.Namespace,
    *,
    is_pipe: bool = False,
    recording: float | None = None,
    pace: Pace | None = None,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Transcribe one input; whatever ends it, the committed words reach the outputs.

    Args:
        blocks: [N] of float32 at 16 kHz for one output; [N, C], a column for each channel, for
            C outputs.
        is_pipe: whether the audio comes from another process, which Ctrl-C ends, too: its last
            audio is awaited for a second.
        recording: seconds of a whole file, whose words may come late; infinity: unknown; None:
            words come as soon as they can.

    Raises:
        AudioFileError: if the audio ended in an error; what came before it was transcribed.
        VoxfastError: if a session failed.
        Interrupted: if a signal ended it; see :mod:`voxfast.cli.signals`.
    """
    if isinstance(outputs, Output):
        outputs = [outputs]
    heard, failure, is_whole = 0, None, False
    with contextlib.ExitStack() as stack:
        channels = [
            _Channel(stack.enter_context(open_session(model, args, recording)), output, pace)
            for output in outputs
        ]
        ending = stack.enter_context(Ending(patient=is_pipe))
        try:
            try:
                while (block := ending.call(next, blocks, None)) is not None:
                    if pace:
                        ending.call(pace.before, len(block) / SAMPLE_RATE)
                    following = heard + len(block)
                    for column, channel in enumerate(channels):
                        samples = block if block.ndim == 1 else block[:, column]
                        ending.call(channel.feed, samples)
                        channel.show(0.0 if recording is not None else following / SAMPLE_RATE)
                    heard = following
                    if progress:
                        progress(heard / SAMPLE_RATE)
                is_whole = True
            except AudioFileError as error:
                failure = error
            except Interrupted:
                pass
            is_whole = _finish(channels, ending) and is_whole
        except BaseException:
            # Of several outputs on one stdout that takes no more, one error is enough.
            with contextlib.suppress(OSError, StdoutError):
                _close(channels, heard, model, complete=False)
            raise
        _close(channels, heard, model, complete=is_whole)
        if args.skip_silence and not args.quiet:
            _tell_skipped(channels, heard / SAMPLE_RATE)
        if ending.interrupt:
            if failure:
                complain(str(failure))
            raise ending.interrupt
        if failure:
            raise failure


class _Channel:
    """The session of one channel, and where its words go."""

    def __init__(self, session: "Session", output: Output, pace: Pace | None) -> None:
        self._session, self._output, self._pace = session, output, pace
        self._words: list[Word] = []
        self._shown = 0

    def feed(self, samples: npt.NDArray[np.float32]) -> None:
        """Transcribe more audio."""
        # Between the session's return and this call's end Python looks for no signal, so an
        # interrupt finds the words here or in the session.
        self._words.extend(self._session.feed(samples))

    def finish(self) -> None:
        """Bring out the last words."""
        self._words.extend(self._session.finish())

    def show(self, heard: float = 0.0) -> None:
        """Write what was committed since the last time, after ``heard`` seconds of audio.

        Args:
            heard: 0 if it does not tell a pause, since words may come late.
        """
        new = self._words[self._shown :]
        self._shown = len(self._words)
        if self._pace:
            self._pace.after(new)
        self._output.add(new)
        if self._words and heard - self._words[-1].end > _SILENT_SECONDS:
            self._output.pause()

    def close(self, heard: int, model: "Model", *, complete: bool) -> None:
        """Write the rest, also of a call that was interrupted."""
        self._words.extend(self._session.take())
        transcript = Transcript(
            tuple(self._words),
            heard / SAMPLE_RATE,
            model.name,
            self._session.language,
            self._session.skipped,
        )
        self._output.close(transcript, complete=complete)

    @property
    def skipped(self) -> float:
        """Seconds of audio that the model has not heard."""
        return self._session.skipped


def _finish(channels: Sequence[_Channel], ending: Ending) -> bool:
    """Bring out and show the last words; False if there was no time for all of them."""
    ending.finishing()
    for channel in channels:
        try:
            ending.call(channel.finish)
        except Interrupted:
            return False
        channel.show()
    return True


def _tell_skipped(channels: Sequence[_Channel], heard: float) -> None:
    """Say how much was taken for silence, so that nothing is lost unnoticed."""
    skipped = ", ".join(f"{channel.skipped:.1f}" for channel in channels)
    note(f"voxfast: skipped as silence: {skipped} s of {heard:.1f} s")


def _close(channels: Sequence[_Channel], heard: int, model: "Model", *, complete: bool) -> None:
    """Close every output, also after an error of another one."""
    with contextlib.ExitStack() as stack:
        for channel in reversed(channels):
            stack.callback(channel.close, heard, model, complete=complete)

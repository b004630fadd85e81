"""From a recording's channels to what a session hears: samples mended, channels mixed or chosen."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from voxfast._pcm import Frames
from voxfast._samples import LOUDEST
from voxfast.errors import AudioFileError, InvalidAudioError

Channel = int | Literal["mix", "each"]


def check_channel(channel: object) -> Channel:
    """Check which channel is asked for.

    Raises:
        InvalidAudioError: unless it is ``"mix"``, ``"each"`` or a number from 1.
    """
    if channel == "mix" or channel == "each":
        return channel
    if isinstance(channel, int) and not isinstance(channel, bool) and channel >= 1:
        return channel
    raise InvalidAudioError(f"channel must be 'mix', 'each' or a number from 1; got {channel!r}")


class Mender:
    """Puts zeros in the place of samples that are no audio: NaN, infinity, beyond ±16.

    A few are a flaw of the recording. With more than 1 % of them the file is something else,
    integers stored as floats for one.

    Args:
        name: what errors call the recording.
    """

    _MOST = 0.01
    _GRACE = 10.0  # seconds that count as read before the first: a burst at the start is no end

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen = self._bad = 0
        self._first: tuple[float, float] | None = None

    def step(self, frames: Frames, begin: float, rate: int) -> tuple[Frames, AudioFileError | None]:
        """Mend [N, channels] frames that begin at ``begin`` seconds.

        Returns:
            The frames, and no error; or those before the recording is given up, and why.
        """
        # A NaN fails this comparison, too.
        if not frames.size or -LOUDEST <= frames.min() <= frames.max() <= LOUDEST:
            self._seen += frames.size
            return frames, None
        is_bad = ~(np.abs(frames) <= LOUDEST)
        rows = np.flatnonzero(is_bad.any(axis=1))
        if self._first is None:
            row = int(rows[0])
            self._first = (begin + row / rate, float(frames[row][is_bad[row]][0]))
        count = self._bad + np.cumsum(is_bad.sum(axis=1))
        seen = self._seen + np.arange(1, len(frames) + 1) * frames.shape[1]
        allowed = self._MOST * (seen + self._GRACE * rate * frames.shape[1])
        mended = np.where(is_bad, np.float32(0), frames)
        over = np.flatnonzero(count > allowed)
        last = int(over[0]) if over.size else len(frames) - 1
        self._seen, self._bad = int(seen[last]), int(count[last])
        if over.size:
            return mended[:last], self._failure()
        return mended, None

    def verdict(self) -> AudioFileError | None:
        """At the end: an error if there were too many."""
        return self._failure() if self._bad > self._MOST * self._seen else None

    def note(self) -> str | None:
        """At the end: what was mended, in words; None if nothing was."""
        if self._first is None:
            return None
        time, value = self._first
        some = "1 sample is" if self._bad == 1 else f"{self._bad} samples are"
        return f"{self._name}: {some} no audio, the first {value:g} at {time:.3f} s; taken as 0"

    def _failure(self) -> AudioFileError:
        assert self._first is not None
        time, value = self._first
        if np.isfinite(value):
            reason = (
                f"float audio lies within -1 to 1, and beyond ±{LOUDEST:g} it looks like integers "
                f"stored as floats; divide by 32768 (16-bit) or 2147483648 (32-bit)"
            )
        else:
            reason = "audio must be finite; look for a division by zero or uninitialised memory"
        return AudioFileError(
            f"{self._name}: {self._bad} samples of {self._seen} are no audio, the "
            f"first {value:g} at {time:.3f} s: {reason}"
        )


class Mixer:
    """One channel out of several: their average, or the loudest where that would lose it.

    Averaging cancels channels of opposite phase, and buries one live channel among many. The
    energies of the channels and of their average decay with a time constant of half a second.
    They decide for each window of 10 ms: where the average is 15 dB below the loudest channel,
    that channel is taken, until the average is within 10 dB again. Ordinary stereo is averaged
    throughout: a silent channel costs 6 dB, and 15 dB take a correlation below -0.93.

    Parity: windows are counted from the first sample, so the outputs of :meth:`step` and
    :meth:`finish` joined do not depend on how the frames were split.

    Args:
        rate: of the frames, in Hz.
        channels: how many there are, at least 2.
    """

    _LOST, _FOUND = 10**-1.5, 10**-1.0
    _LOUDER = 4.0  # by which another channel has to be louder than the one that was chosen
    _SECONDS = 0.5
    _FLOOR = 1e-12  # of energy: below it everything is silence

    def __init__(self, rate: int, channels: int) -> None:
        self._window = max(1, rate // 100)
        self._keep = float(np.exp(-self._window / rate / self._SECONDS))
        self._channels = np.zeros(channels)  # decayed energies
        self._average = 0.0
        self._chosen: int | None = None
        self._rest = np.zeros((0, channels), np.float32)

    def step(self, frames: Frames) -> Frames:
        """Take [N, channels] more; returns [M] of what no later frame can change."""
        frames = np.concatenate([self._rest, frames]) if len(self._rest) else frames
        whole = len(frames) - len(frames) % self._window
        self._rest = frames[whole:].copy()
        return self._mix(frames[:whole])

    def finish(self) -> Frames:
        """[M] that was held back."""
        frames, self._rest = self._rest, self._rest[:0]
        return self._mix(frames)

    def _mix(self, frames: Frames) -> Frames:
        """Whole windows, or one that is shorter."""
        mixed: Frames = frames.mean(axis=1)
        size = min(self._window, len(frames))
        if not size:
            return mixed
        channels = (
            np.square(frames, dtype=np.float64).reshape(-1, size, frames.shape[1]).sum(axis=1)
        )
        average = np.square(mixed, dtype=np.float64).reshape(-1, size).sum(axis=1)
        for i in range(len(average)):
            self._follow(channels[i], float(average[i]))
            if self._chosen is not None:
                window = slice(i * size, (i + 1) * size)
                mixed[window] = frames[window, self._chosen]
        return mixed

    def _follow(self, channels: npt.NDArray[np.float64], average: float) -> None:
        """Choose for a window by the energies, which it is added to."""
        self._channels = self._keep * self._channels + channels
        self._average = self._keep * self._average + average
        loudest = int(self._channels.argmax())
        most = self._channels[loudest]
        if most < self._FLOOR * self._window:
            return
        if self._chosen is None:
            if self._average < self._LOST * most:
                self._chosen = loudest
        elif self._average > self._FOUND * most:
            self._chosen = None
        elif most > self._LOUDER * self._channels[self._chosen]:
            self._chosen = loudest


def select(frames: Frames, channel: int, name: str) -> npt.NDArray[np.float32]:
    """[N] of one of the channels, counted from 1.

    Raises:
        AudioFileError: if there is no such channel.
    """
    if channel > frames.shape[1]:
        many = "1 channel" if frames.shape[1] == 1 else f"{frames.shape[1]} channels"
        raise AudioFileError(f"{name} has {many}; there is no channel {channel}")
    return np.ascontiguousarray(frames[:, channel - 1])

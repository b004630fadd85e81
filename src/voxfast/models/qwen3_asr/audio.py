"""Audio of a Qwen3-ASR stream to embeddings, encoding as little as possible again."""

from collections.abc import Generator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE
from voxfast.features import HOP_LENGTH, N_FFT, LogMelStream
from voxfast.models.qwen3_asr.config import TOKEN_FRAMES
from voxfast.models.qwen3_asr.network import Qwen3ASR, TowerRows
from voxfast.ops import log_mel

__all__ = ["Audio", "AudioBuffer", "ReflectedLogMel", "encode"]

Samples = NDArray[np.float32]
Frames = NDArray[np.float32]

PAD = N_FFT // 2
FRAME_RATE = SAMPLE_RATE // HOP_LENGTH  # mel frames per second
DYNAMIC_RANGE = 8.0  # of the features below their maximum, in log10 units
# Encoding settled chunks again at every rise of the maximum (at most 7 % more frames), or never,
# gives the same error rate on the evaluation clips; only a much louder sound may matter.
MAX_RISE = 1.0  # log10 units


class ReflectedLogMel:
    """Raw log10 mel frames of one utterance, with reflection padding at both ends.

    Parity: for any split of the samples, the frames of all steps and of :meth:`last` equal those
    of one call over all samples: N // HOP_LENGTH for N samples, none for less than 201.
    """

    def __init__(self, n_mels: int) -> None:
        self._n_mels = n_mels
        self._mel = LogMelStream(n_mels=n_mels)
        self._recent = np.zeros(0, np.float32)  # the newest samples, including left padding
        self._n_samples = self._n_frames = 0

    def step(self, samples: Samples) -> Frames:
        """Consume the next samples; return the frames [T, n_mels] that they complete."""
        started = self._n_samples > PAD
        self._n_samples += len(samples)
        self._recent = np.concatenate([self._recent, samples])
        if not started:
            if self._n_samples <= PAD:
                return np.zeros((0, self._n_mels), np.float32)
            self._recent = samples = np.concatenate([self._recent[PAD:0:-1], self._recent])
        self._recent = self._recent[-N_FFT:]
        frames = np.array(self._mel.step(samples))
        self._n_frames += len(frames)
        return frames

    def last(self) -> Frames:
        """The last frame [0 or 1, n_mels], which needs right padding. Changes no state."""
        missing = self._n_samples // HOP_LENGTH - self._n_frames
        if missing <= 0 or self._n_samples <= PAD:
            return np.zeros((0, self._n_mels), np.float32)
        padded = np.concatenate([self._recent, self._recent[-2 : -PAD - 2 : -1]])
        begin = HOP_LENGTH * self._n_frames - (self._n_samples + PAD - len(self._recent))
        frames: Frames = np.array(log_mel(mx.array(padded[begin:]), n_mels=self._n_mels))
        return frames[:missing]

    def copy(self) -> Self:
        """Another one that goes on from here."""
        new = copy(self)
        new._mel = self._mel.copy()
        return new


@dataclass(frozen=True, slots=True)
class Audio:
    """The audio embeddings of a buffer.

    Attributes:
        embeddings: [n, dim].
        n_same: number of leading embeddings that are unchanged since the previous call.
    """

    embeddings: mx.array
    n_same: int


class AudioBuffer:
    """The audio buffer of an utterance, from samples to audio embeddings.

    A complete chunk (100 frames, 1 s) is *settled*: it is encoded once, attending to the
    previous chunks of its window, and kept. The incomplete chunk is encoded again in every call.
    At the end of an utterance, all chunks that are not settled are encoded as offline, with
    attention in both directions within a window. So a buffer that is filled and ended in one
    call equals the model's offline result. (Encoding the whole unfinished window in every call,
    so that chunks attend to later ones, costs several times the frames and measured no better.)

    The features are clamped at the maximum of the buffer less 8, so a louder sound changes all
    earlier frames. Settled chunks are encoded again if the maximum has risen by more than
    ``max_rise``.

    Args:
        max_rise: in log10 units.
    """

    def __init__(self, model: Qwen3ASR, *, max_rise: float = MAX_RISE) -> None:
        args = model.args.audio
        self._model = model
        self._max_rise = max_rise
        self._chunk = args.chunk_frames
        self._window_chunks = args.window_frames // args.chunk_frames
        self._chunk_tokens = args.chunk_tokens
        self._mel = ReflectedLogMel(args.n_mels)
        self._frames = np.zeros((0, args.n_mels), np.float32)  # of the buffer, raw
        self._first = 0  # index of the buffer's first chunk in the utterance
        self._settled: list[mx.array] = []  # embeddings of the settled chunks
        # Of the last window the settled chunks, and behind them what may be overwritten.
        self._window, self._kept = model.window_state(), 0
        self._rows: list[TowerRows] = []  # that the next pass computes
        self._encoded: list[mx.array] = []  # what it gave: the embeddings of each
        self._level = -np.inf  # the maximum at which the settled chunks were encoded
        self._same = 0
        self.n_encoded = 0  # frames encoded so far

    @property
    def n_frames(self) -> int:
        """Frames (10 ms) in the buffer."""
        return len(self._frames)

    @property
    def seconds(self) -> float:
        """Seconds of audio in the buffer."""
        return len(self._frames) / FRAME_RATE

    @property
    def dropped_seconds(self) -> float:
        """Seconds of the utterance before the buffer."""
        return self._first * self._chunk / FRAME_RATE

    @property
    def dropped_tokens(self) -> int:
        """Audio tokens of the utterance before the buffer."""
        return self._first * self._chunk_tokens

    def token_seconds(self, token: int) -> float:
        """Start of an audio token of the buffer, in seconds of the utterance."""
        chunk, place = divmod(token, self._chunk_tokens)
        return ((self._first + chunk) * self._chunk + place * TOKEN_FRAMES) / FRAME_RATE

    def copy(self) -> Self:
        """Another buffer that goes on from here; after its first call this one is not used while
        that one is.
        """
        new = copy(self)
        new._settled, new._mel = self._settled.copy(), self._mel.copy()
        return new

    def push(self, samples: Samples) -> None:
        """Append the next samples of the utterance."""
        self._frames = np.concatenate([self._frames, self._mel.step(samples)])

    @property
    def n_settled(self) -> int:
        """Number of settled chunks in the buffer."""
        return min(len(self._settled), len(self._frames) // self._chunk)

    def drop(self, n_chunks: int) -> None:
        """Drop the first chunks of the buffer, which must be settled."""
        if not 0 <= n_chunks <= self.n_settled:
            raise ValueError(f"{n_chunks} chunks to drop, {self.n_settled} settled")
        if n_chunks == 0:
            return
        self._first += n_chunks
        self._frames = self._frames[n_chunks * self._chunk :].copy()
        del self._settled[:n_chunks]
        self._same = 0

    def encode(self, *, end: bool = False) -> "Generator[Self, None, Audio | None]":
        """Embeddings of all audio in the buffer; None if there is no frame.

        Yields itself whenever :func:`encode` has to be called.

        Args:
            end: no more audio follows.
        """
        # The last frame contains padding until more audio arrives. It may complete a chunk, which
        # is then settled with it.
        frames = np.concatenate([self._frames, self._mel.last()])
        if not len(frames):
            return None
        level = float(frames.max())
        if level > self._level + self._max_rise and self._settled:
            self._settled, self._same = [], 0
            self._window, self._kept = self._model.window_state(), 0
        if not self._settled:
            self._level = level
        mel = mx.array((np.maximum(frames, level - DYNAMIC_RANGE) + 4.0) / 4.0)
        same = self._same
        if not end:
            yield from self._settle(mel)
        rest = yield from self._rest(mel)
        embeddings = mx.concatenate([*self._settled, *rest])
        self._same = len(self._settled) * self._chunk_tokens
        if end:  # nothing follows, and words may wait for those of others
            self._window, self._kept = self._model.window_state(), 0
        return Audio(embeddings, same)

    def _settle(self, mel: mx.array) -> "Generator[Self, None, None]":
        """Encode the complete chunks that are not settled."""
        done, n_complete = len(self._settled), len(mel) // self._chunk
        if done >= n_complete:
            return
        self._take(mel[: n_complete * self._chunk], done)
        yield self
        if self._left_in_window(n_complete) == self._window_chunks:
            self._window = self._model.window_state()
        else:
            self._window = self._rows[-1].state
        self._kept = self._window.offset
        for encoded in self._encoded:
            self._settled += mx.split(encoded, len(encoded) // self._chunk_tokens)

    def _rest(self, mel: mx.array) -> "Generator[Self, None, Sequence[mx.array]]":
        """Embeddings of the chunks that are not settled, window by window."""
        done = len(self._settled)
        if done * self._chunk >= len(mel):
            return []
        self._take(mel, done)
        yield self
        return self._encoded

    def _take(self, mel: mx.array, done: int) -> None:
        """Let the next pass compute the frames behind ``done`` chunks, window by window."""
        self._window.keep(self._kept)
        self._rows, window = [], self._window
        while done * self._chunk < len(mel):
            end = done + self._left_in_window(done)
            part = mel[done * self._chunk : end * self._chunk]
            self._rows.append(TowerRows(part, window, alone=done + self._first == 0))
            self.n_encoded += len(part)
            done, window = end, self._model.window_state()

    def _left_in_window(self, chunk: int) -> int:
        """Number of chunks from this one to the end of its window."""
        return self._window_chunks - (self._first + chunk) % self._window_chunks


def encode(buffers: Sequence[AudioBuffer]) -> None:
    """One pass of the audio tower, not evaluated: what each of these buffers has yielded for."""
    encoded = buffers[0]._model.encode([rows for buffer in buffers for rows in buffer._rows])
    for buffer in buffers:
        count = len(buffer._rows)
        buffer._encoded, encoded = encoded[:count], encoded[count:]

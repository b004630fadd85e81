"""Audio of a Qwen3-ASR stream to embeddings, each part encoded as rarely as can be."""

from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast.audio import SAMPLE_RATE
from voxfast.features import HOP_LENGTH, N_FFT, LogMelStream
from voxfast.models.qwen3_asr.config import TOKEN_FRAMES
from voxfast.models.qwen3_asr.network import Qwen3ASR, WindowState
from voxfast.ops import log_mel

__all__ = ["Audio", "AudioBuffer", "ReflectedLogMel"]

Samples = NDArray[np.float32]
Frames = NDArray[np.float32]

PAD = N_FFT // 2
FRAME_RATE = SAMPLE_RATE // HOP_LENGTH  # mel frames per second
DYNAMIC_RANGE = 8.0  # log10 units below the maximum that the features keep
# Encoding settled chunks again whenever the maximum rises, or never, makes no difference to the
# error rate on the evaluation clips (at most 7 % more frames against none); only a sound that
# is very much louder may matter.
MAX_RISE = 1.0  # log10 units


class ReflectedLogMel:
    """Raw log10 mel frames of one utterance whose ends are padded with their reflection.

    Parity: the frames of all steps, and then :meth:`last`, are for any split of the samples
    those of one call over all of them: N // HOP_LENGTH for N samples, none for less than 201.
    """

    def __init__(self, n_mels: int) -> None:
        self._n_mels = n_mels
        self._mel = LogMelStream(n_mels=n_mels)
        self._recent = np.zeros(0, np.float32)  # the newest samples, with what is padded before
        self._n_samples = self._n_frames = 0

    def step(self, samples: Samples) -> Frames:
        """The frames [T, n_mels] that the next samples complete."""
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
        """The frame [0 or 1, n_mels] that the end of the audio cuts off. Changes nothing."""
        missing = self._n_samples // HOP_LENGTH - self._n_frames
        if missing <= 0 or self._n_samples <= PAD:
            return np.zeros((0, self._n_mels), np.float32)
        padded = np.concatenate([self._recent, self._recent[-2 : -PAD - 2 : -1]])
        begin = HOP_LENGTH * self._n_frames - (self._n_samples + PAD - len(self._recent))
        frames: Frames = np.array(log_mel(mx.array(padded[begin:]), n_mels=self._n_mels))
        return frames[:missing]


@dataclass(frozen=True, slots=True)
class Audio:
    """The audio embeddings of a buffer.

    Attributes:
        embeddings: [n, dim].
        n_same: how many of the first ones are what they were in the call before.
    """

    embeddings: mx.array
    n_same: int


class AudioBuffer:
    """The audio that a stream still looks at, from frames to audio embeddings.

    A chunk (100 frames, 1 s) that is complete is *settled*: encoded once, seeing the chunks
    before it in its window, and kept. The chunk that is still filling is encoded anew in every
    call. At the end of an utterance whatever is not settled is encoded as the model does it
    offline, all of a window seeing each other; a buffer that is filled and ended in one call
    gives what the model gives offline. (Encoding the whole unfinished window anew in every
    call, so that chunks see later ones, too, costs several times the frames and measured no
    better.)

    The features are clamped at the maximum of the buffer less 8: a louder sound changes every
    frame before it. Settled chunks are encoded again if the maximum has risen by more than
    ``max_rise`` since.

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
        self._first = 0  # the utterance's chunk with which the buffer begins
        self._settled: list[mx.array] = []  # embeddings of the settled chunks
        self._window = WindowState()  # of the settled chunks in the last window
        self._level = -np.inf  # the maximum with which the settled chunks were encoded
        self._same = 0
        self.n_encoded = 0  # frames that went through the tower so far

    @property
    def n_frames(self) -> int:
        """Frames in the buffer, of 10 ms each."""
        return len(self._frames)

    @property
    def seconds(self) -> float:
        """Seconds of audio in the buffer."""
        return len(self._frames) / FRAME_RATE

    @property
    def dropped_seconds(self) -> float:
        """Seconds of the utterance that stand before the buffer."""
        return self._first * self._chunk / FRAME_RATE

    @property
    def dropped_tokens(self) -> int:
        """Audio tokens of the utterance that stand before the buffer."""
        return self._first * self._chunk_tokens

    def token_seconds(self, token: int) -> float:
        """Second of the utterance at which an audio token of the buffer begins."""
        chunk, place = divmod(token, self._chunk_tokens)
        return ((self._first + chunk) * self._chunk + place * TOKEN_FRAMES) / FRAME_RATE

    def push(self, samples: Samples) -> None:
        """Take the next samples of the utterance."""
        self._frames = np.concatenate([self._frames, self._mel.step(samples)])

    @property
    def n_settled(self) -> int:
        """Whole chunks of the buffer that are settled."""
        return min(len(self._settled), len(self._frames) // self._chunk)

    def drop(self, n_chunks: int) -> None:
        """Forget the first chunks of the buffer, which must be settled."""
        if not 0 <= n_chunks <= self.n_settled:
            raise ValueError(f"{n_chunks} chunks to drop, {self.n_settled} settled")
        self._first += n_chunks
        self._frames = self._frames[n_chunks * self._chunk :].copy()
        del self._settled[:n_chunks]
        self._same = 0

    def encode(self, *, end: bool = False) -> Audio | None:
        """Embeddings of all audio in the buffer; None if there is not a frame.

        Args:
            end: no more audio follows.
        """
        # The last frame is partly reflection until more comes; a chunk that it completes
        # settles with it.
        frames = np.concatenate([self._frames, self._mel.last()])
        if not len(frames):
            return None
        level = float(frames.max())
        if level > self._level + self._max_rise and self._settled:
            self._settled, self._window, self._same = [], WindowState(), 0
        if not self._settled:
            self._level = level
        mel = mx.array((np.maximum(frames, level - DYNAMIC_RANGE) + 4.0) / 4.0)
        same = self._same
        if not end:
            self._settle(mel)
        embeddings = mx.concatenate([*self._settled, *self._rest(mel)])
        self._same = len(self._settled) * self._chunk_tokens
        mx.eval(embeddings, *self._settled, *(x for pair in self._window.layers for x in pair))
        return Audio(embeddings, same)

    def _settle(self, mel: mx.array) -> None:
        """Encode the chunks that are complete and not settled."""
        n_complete = len(mel) // self._chunk
        while (done := len(self._settled)) < n_complete:
            end = min(n_complete, done + self._left_in_window(done))
            x = self._stem(mel[done * self._chunk : end * self._chunk])
            encoded, self._window = self._model.encode(x, self._window)
            if self._left_in_window(end) == self._window_chunks:
                self._window = WindowState()
            self._settled += mx.split(encoded, end - done)

    def _rest(self, mel: mx.array) -> Iterator[mx.array]:
        """Embeddings of what is not settled, window by window."""
        done, window = len(self._settled), self._window
        while done * self._chunk < len(mel):
            end = done + self._left_in_window(done)
            alone = done + self._first == 0
            x = self._stem(mel[done * self._chunk : end * self._chunk], alone)
            yield self._model.encode(x, window)[0]
            done, window = end, WindowState()

    def _left_in_window(self, chunk: int) -> int:
        """Chunks from this one of the buffer on to the end of its window."""
        return self._window_chunks - (self._first + chunk) % self._window_chunks

    def _stem(self, mel: mx.array, alone: bool = False) -> mx.array:
        self.n_encoded += len(mel)
        return self._model.stem(mel, alone=alone)

"""Loading models, and transcribing with them: the public API."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
import numpy as np

from voxfast import audio as audio_io
from voxfast._addresses import is_address
from voxfast._channels import Channel
from voxfast.errors import AudioFileError, InvalidAudioError, InvalidOptionError
from voxfast.hub import DEFAULT_MODEL, resolve
from voxfast.models.counts import PassCount
from voxfast.models.family import LoadedCheckpoint
from voxfast.models.registry import load_checkpoint
from voxfast.online.forks import check_process
from voxfast.online.listener import Listener
from voxfast.online.owner import OwnerThread
from voxfast.online.peers import Peers
from voxfast.online.session import OnlineProcessor, Session
from voxfast.timed import Transcript, Word

__all__ = ["DEFAULT_MODEL", "Model", "load", "transcribe"]

OFFLINE_ENDPOINT_MS = 500.0
"""The pause at which a long recording is cut, for models that gain by it."""


class Model:
    """A loaded model: weights shared by any number of sessions. Made by :func:`load`.

    Attributes:
        name: the name or folder it was loaded from.
        sample_rate: of the audio that sessions take, in Hz: 16000.
    """

    sample_rate = audio_io.SAMPLE_RATE

    def __init__(
        self,
        name: str,
        folder: Path,
        dtype: mx.Dtype | None = None,
        kv_bits: int | None = None,
    ) -> None:
        self.name = name
        self._owner, self._peers = OwnerThread(name.rpartition("/")[2]), Peers()
        try:
            self._loaded: LoadedCheckpoint = self._owner.run(
                load_checkpoint, name, folder, dtype, kv_bits
            )
        except BaseException:
            self._owner.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<voxfast.Model {self.name!r}>"

    @property
    def description(self) -> str:
        """One line, for humans."""
        return self._loaded.description

    @property
    def is_demo(self) -> bool:
        """Whether it is a demonstration checkpoint with a closed vocabulary."""
        return self._loaded.is_demo

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of the activations."""
        return self._loaded.dtype

    @property
    def delays_ms(self) -> tuple[int, ...]:
        """The values allowed for ``session(delay_ms=...)``; empty if any is."""
        return self._loaded.delays_ms

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes (ISO 639) of the languages that it knows, in alphabetical order."""
        return self._loaded.languages

    def language_code(self, language: str) -> str | None:
        """The code of one of its languages, given by code or name; None for another."""
        return self._loaded.language_code(language)

    @property
    def pass_count(self) -> PassCount:
        """Passes over the weights of the decoder so far; it grows as sessions go on."""
        return self._loaded.pass_count

    @property
    def offline_block_seconds(self) -> float:
        """The recommended size of chunks for offline transcription, in seconds."""
        return self._loaded.offline_block_seconds

    def session(
        self,
        *,
        endpoint_ms: float | None = None,
        skip_silence: bool = False,
        vocabulary: Iterable[str | tuple[str, float]] = (),
        **options: Any,
    ) -> Session:
        """Open a live stream. Sessions are independent of each other.

        Args:
            endpoint_ms: milliseconds of a pause that ends a turn, after which its last words come
                at once; None: words come when the model is sure of them.
            skip_silence: what the detector (:mod:`voxfast.vad`) takes for silence or noise is not
                given to the model: speech that it misses writes no words.
            vocabulary: names and terms that may be said, spelled as they are to be written. A
                phrase is a text, or a tuple of a text and its weight: how much less likely than
                its own choice, in nats, the model may find it; 2 by default, 20 at most.
            **options: the fields of :class:`voxfast.VoxtralOptions` or of
                :class:`voxfast.Qwen3Options`, depending on the model.

        Raises:
            InvalidOptionError: for an unknown option or an invalid value.
        """
        stream = self._owner.run(self._loaded.stream, **options)
        listener = None
        if skip_silence or endpoint_ms is not None:
            listener = Listener(stream, endpoint_ms=endpoint_ms, skip_silence=skip_silence)
        session = Session(stream, self._owner, self._peers, listener, self._loaded.vocabulary)
        if not isinstance(vocabulary, tuple) or vocabulary:
            session.vocabulary = vocabulary
        return session

    def recording_session(self, seconds: float, **options: Any) -> Session:
        """Open a session for a whole recording: nobody waits for its words, so they may come late.

        It is what :func:`transcribe` uses: with some models a long recording is cut at pauses, and
        utterances are transcribed side by side.

        Args:
            seconds: length of the recording; infinity if it is unknown.
            **options: as for :meth:`session`.

        Raises:
            InvalidOptionError: as :meth:`session`.
        """
        if seconds > self._loaded.offline_whole_seconds:
            options.setdefault("endpoint_ms", OFFLINE_ENDPOINT_MS)
        session = self.session(**options)
        session._stream.is_offline = True
        return session

    def processor(self, **options: Any) -> OnlineProcessor:
        """A live stream with WhisperLiveKit's interface; options as for :meth:`session`."""
        return OnlineProcessor(self, lambda: self.session(**options))

    def close(self) -> None:
        """End the owner thread. Open sessions become unusable."""
        self._owner.close()


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    dtype: mx.Dtype | None = None,
    kv_bits: int | None = None,
) -> Model:
    """Load a model.

    Args:
        model: the name of an embedded model, a folder, or a name on the Hugging Face hub.
        dtype: of unpacked weights and activations: ``mx.float32``, ``mx.float16`` or
            ``mx.bfloat16``; None: that of most of the weights.
        kv_bits: 8: sessions hold keys and values in 8 bits, which takes half the memory of
            ``mx.bfloat16`` and may change words; None: in the dtype of the activations.

    Raises:
        ModelNotFoundError: if there is no such model.
        CheckpointError: if its files are incomplete, broken, or of another architecture.
        InvalidOptionError: for another dtype or number of bits.
        ForkedProcessError: in the fork of a process that had loaded a model.
    """
    check_process()  # before any download
    if kv_bits is not None and (type(kv_bits) is not int or kv_bits != 8):
        raise InvalidOptionError(f"kv_bits must be 8 or None; got {kv_bits!r:.40}")
    if dtype is not None and dtype not in (mx.float32, mx.float16, mx.bfloat16):
        raise InvalidOptionError(f"dtype must be float32, float16 or bfloat16; got {dtype}")
    return Model(str(model), resolve(model), dtype, kv_bits)


def transcribe(
    audio: str | Path | np.ndarray[Any, Any],
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    channel: Channel = "mix",
    progress: Callable[[float, float | None], None] | None = None,
    **options: Any,
) -> Transcript:
    """Transcribe a whole recording. Equals a session that is fed all of it.

    For Qwen3-ASR, a recording of more than 12 s is cut at pauses of half a second, as by
    ``endpoint_ms=500``; ``endpoint_ms=None`` leaves it whole. Several utterances are transcribed
    side by side.

    Args:
        audio: an audio or video file, see :func:`voxfast.audio.stream_file`; or [N] samples,
            mono, 16 kHz, float32 or int16.
        model: a loaded model, or what :func:`load` takes.
        channel: of a file: the mix of its channels, or the number of one, from 1.
        progress: called from time to time with (seconds done, total seconds); the total is None
            if the file does not tell.
        **options: as for :meth:`Model.session`.

    Raises:
        AudioFileError, InvalidAudioError: for unusable audio.
        ModelNotFoundError, CheckpointError, InvalidOptionError: see :func:`load`.
    """
    loaded = model if isinstance(model, Model) else load(model)
    try:
        transcript, failure = transcribe_readable(loaded, audio, channel, progress, **options)
    finally:
        if loaded is not model:
            loaded.close()
    if failure is not None:
        raise failure
    return transcript


def transcribe_readable(
    model: Model,
    audio: str | Path | np.ndarray[Any, Any],
    channel: Channel = "mix",
    progress: Callable[[float, float | None], None] | None = None,
    **options: Any,
) -> tuple[Transcript, AudioFileError | None]:
    """As :func:`transcribe`, but of a damaged file what could be read, and the error."""
    words: list[Word] = []
    failure = None
    try:
        blocks, total = _blocks(audio, model.offline_block_seconds, channel)
    except AudioFileError as error:
        return Transcript(model=model.name), error
    length = math.inf if total is None else total
    with model.recording_session(length, **options) as session:
        try:
            for block in blocks:
                words += session.feed(block)
                if progress is not None:
                    progress(session.heard, total)
        except AudioFileError as error:
            failure = error
        words += session.finish()
        return (
            Transcript(tuple(words), session.heard, model.name, session.language, session.skipped),
            failure,
        )


def _blocks(
    audio: str | Path | np.ndarray[Any, Any], seconds: float, channel: Channel
) -> tuple[Iterable[np.ndarray[Any, Any]], float | None]:
    if isinstance(audio, str | Path):
        if channel == "each":
            raise InvalidAudioError(
                "channel 'each': a transcript is of one channel; for each of them, "
                "say channel=1, channel=2 and so on"
            )
        # An object of a store does not say its length, and is opened once.
        total = None if is_address(str(audio)) else audio_io.duration(audio)
        return audio_io.stream_file(audio, block_seconds=seconds, channel=channel), total
    samples = audio_io.check_samples(audio)
    size = int(seconds * Model.sample_rate)
    blocks = (samples[i : i + size] for i in range(0, len(samples), size))
    return blocks, len(samples) / Model.sample_rate

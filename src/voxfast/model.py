"""Loading models, and transcribing with them: what apps import."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
import numpy as np

from voxfast import audio as audio_io
from voxfast.errors import InvalidOptionError
from voxfast.hub import find_model
from voxfast.models.tekken import VoxtralTokenizer
from voxfast.models.traits import Traits, read_traits
from voxfast.models.voxtral import Voxtral
from voxfast.models.voxtral_weights import load_voxtral
from voxfast.online.owner import OwnerThread
from voxfast.online.session import OnlineProcessor, Session
from voxfast.online.voxtral import BlankGuard, VoxtralStream
from voxfast.timed import Transcript, Word

__all__ = ["DEFAULT_MODEL", "Model", "load", "transcribe"]

log = logging.getLogger(__name__)

DEFAULT_MODEL = "voxtral-numbers"
BLOCK_SECONDS = 1.0


class Model:
    """A loaded model: weights that any number of sessions share. Made by :func:`load`.

    Attributes:
        name: what it was loaded as.
        description: one line for people.
        is_demo: whether it is the embedded checkpoint with its 71 words.
        sample_rate: of the audio that sessions take, 16000.
        delays_ms: the delays it was trained for.
        default_delay_ms: the one it recommends.
    """

    sample_rate = 16000

    def __init__(self, name: str, folder: Path, dtype: mx.Dtype | None = None) -> None:
        self.name = name
        self._owner = OwnerThread(name.rpartition("/")[2])
        try:
            self._traits: Traits = read_traits(folder)
            self._tokenizer = VoxtralTokenizer(folder / "tekken.json")
            self._network: Voxtral = self._owner.run(load_voxtral, folder, dtype)
        except BaseException:
            self._owner.close()
            raise
        self.description = self._traits.description or f"Voxtral Realtime, from {folder}"
        self.is_demo = self._traits.demo
        self.delays_ms = self._traits.delays_ms
        self.default_delay_ms = self._tokenizer.default_delay_ms

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<voxfast.Model {self.name!r}>"

    @property
    def dtype(self) -> mx.Dtype:
        """The type of the activations."""
        return self._network.dtype

    def session(
        self,
        *,
        delay_ms: int | None = None,
        language: str | None = None,
        prompt: str | None = None,
        block_ms: int = 80,
        blank_guard: BlankGuard | None = None,
    ) -> Session:
        """Open a live stream. Sessions never see each other.

        Args:
            delay_ms: how far the text follows the audio: more context, fewer errors. One of
                ``delays_ms``; None takes the recommended one.
            language: Voxtral finds the language itself and takes none but None or "auto".
            prompt: Voxtral takes none.
            block_ms: audio that the encoder takes at once, a multiple of 80. Larger blocks
                cost less per second on large models and add as much to the latency.
            blank_guard: breaks ruts of blanks; off if None.

        Raises:
            InvalidOptionError: on an option that the model does not have.
        """
        delay_ms = self.default_delay_ms if delay_ms is None else delay_ms
        if delay_ms not in self.delays_ms:
            raise InvalidOptionError(
                f"{self.name} was trained for delays of {_join(self.delays_ms)} ms; "
                f"got delay_ms={delay_ms!r}"
            )
        if language not in (None, "auto"):
            raise InvalidOptionError(
                f"{self.name} finds the language itself and cannot be told one; "
                f"got language={language!r}"
            )
        if prompt:
            raise InvalidOptionError(f"{self.name} takes no prompt; got prompt={prompt!r:.40}")
        position_ms = self._tokenizer.position_ms
        if block_ms not in range(position_ms, 128 * position_ms, position_ms):
            raise InvalidOptionError(
                f"block_ms must be a multiple of {position_ms} below {128 * position_ms}; "
                f"got {block_ms!r}"
            )
        stream = self._owner.run(
            VoxtralStream,
            self._network,
            self._tokenizer,
            self._traits,
            delay_ms,
            block=block_ms // position_ms,
            guard=blank_guard,
        )
        return Session(stream, self._owner)

    def processor(self, **options: Any) -> OnlineProcessor:
        """A live stream with the interface that WhisperLiveKit drives; options as for session."""
        return OnlineProcessor(self, lambda: self.session(**options))

    def close(self) -> None:
        """Let the owner thread end; open sessions cannot go on."""
        self._owner.close()


def load(model: str | Path = DEFAULT_MODEL, *, dtype: mx.Dtype | None = None) -> Model:
    """Load a model.

    Args:
        model: the name of an embedded model, a folder, or a name on the Hugging Face hub.
        dtype: type of the unpacked weights and of the arithmetic: ``mx.float32``,
            ``mx.float16`` or ``mx.bfloat16``; None keeps that of the checkpoint.

    Raises:
        ModelNotFoundError: if there is no such model.
        CheckpointError: if its files are incomplete, broken, or of another architecture.
    """
    if dtype is not None and dtype not in (mx.float32, mx.float16, mx.bfloat16):
        raise InvalidOptionError(f"dtype must be float32, float16 or bfloat16; got {dtype}")
    return Model(str(model), find_model(str(model)), dtype)


def transcribe(
    audio: str | Path | np.ndarray[Any, Any],
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    progress: Callable[[float, float], None] | None = None,
    **options: Any,
) -> Transcript:
    """Transcribe a whole recording. The same as a session that is fed all of it.

    Args:
        audio: a file of any format that soundfile reads, at any rate; or [N] samples, mono,
            16 kHz, float32 or int16.
        model: a loaded model, or what :func:`load` takes.
        progress: called with (seconds done, seconds in all) now and then.
        **options: as for :meth:`Model.session`.

    Raises:
        AudioFileError, InvalidAudioError: on audio that cannot be used.
        ModelNotFoundError, CheckpointError, InvalidOptionError: see :func:`load`.
    """
    loaded = model if isinstance(model, Model) else load(model)
    words: list[Word] = []
    try:
        with loaded.session(**options) as session:
            blocks, total = _blocks(audio)
            for block in blocks:
                words += session.feed(block)
                if progress is not None:
                    progress(session.heard, total)
            words += session.finish()
            return Transcript(tuple(words), session.heard, loaded.name, options.get("language"))
    finally:
        if loaded is not model:
            loaded.close()


def _blocks(
    audio: str | Path | np.ndarray[Any, Any],
) -> tuple[Iterable[np.ndarray[Any, Any]], float]:
    if isinstance(audio, str | Path):
        return audio_io.stream_file(audio, BLOCK_SECONDS), audio_io.duration(audio)
    samples = audio_io.check_samples(audio)
    size = int(BLOCK_SECONDS * Model.sample_rate)
    blocks = (samples[i : i + size] for i in range(0, len(samples), size))
    return blocks, len(samples) / Model.sample_rate


def _join(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))

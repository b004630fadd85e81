"""One recording after the other, with one model: what a worker does."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from voxfast import formats as transcript_formats
from voxfast._channels import check_channel
from voxfast._version import version
from voxfast.batch.options import Trial, check_options, several
from voxfast.batch.recordings import Recording
from voxfast.errors import InvalidOptionError, VoxfastError
from voxfast.formats import FORMATS, SUFFIXES
from voxfast.hub import DEFAULT_MODEL
from voxfast.models.vocabulary import read_vocabulary
from voxfast.timed import Transcript

if TYPE_CHECKING:
    from voxfast.online.session import Session

__all__ = ["Result", "Settings", "Transcriber", "check_formats"]

_MOST_WARNINGS = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What a :class:`Transcriber` is made of; its arguments.

    Attributes:
        model: its name or folder.
        formats: keys of :data:`voxfast.formats.FORMATS`.
        dtype: of the activations; None: the model's own.
        options: of all recordings.
        trials: options of single recordings, which the model must take before the first.

    Raises:
        InvalidOptionError: for an option that no model can take.
    """

    model: str
    formats: tuple[str, ...]
    dtype: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()

    def __post_init__(self) -> None:
        check_options(self.options)

    def described(self, recording: Recording) -> dict[str, Any]:
        """What the results of a recording depend on, beside the model, as plain JSON."""
        kind = {} if self.dtype is None else {"dtype": self.dtype}
        options = {**kind, **self.options, **recording.options}
        if options.get("vocabulary"):
            options["vocabulary"] = _digest(options["vocabulary"])
        text = json.dumps(options, default=repr)
        plain: dict[str, Any] = json.loads(text, parse_constant=str)  # JSON has no NaN
        return plain


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one recording.

    Attributes:
        recording: the recording.
        texts: transcripts by the suffix of their files; empty if nothing was heard.
        transcript: the transcript; None if nothing was heard.
        error: why it failed, or is not complete; None if all is well.
        warnings: what else there is to say.
        seconds: that it took.
    """

    recording: Recording
    texts: Mapping[str, str] = field(default_factory=dict)
    transcript: Transcript | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def line(self, settings: Settings) -> dict[str, Any]:
        """The recording's line in the index."""
        heard = self.transcript
        return {
            "id": self.recording.id,
            "path": self.recording.shown_path,
            "duration": None if heard is None else round(heard.duration, 3),
            "skipped": None if heard is None else round(heard.skipped, 3),
            "words": None if heard is None else len(heard.words),
            "language": None if heard is None else heard.language,
            "error": self.error,
            "warnings": list(self.warnings),
            "files": [f"{self.recording.id}.{suffix}" for suffix in self.texts],
            "seconds": round(self.seconds, 3),
            "model": settings.model,
            "options": settings.described(self.recording),
            "version": version(),
        }


class Transcriber:
    """A loaded model that turns recordings into results.

    Attributes:
        settings: its arguments.

    Args:
        model: see :func:`voxfast.load`.
        formats: keys of :data:`voxfast.formats.FORMATS`.
        dtype: ``float32``, ``float16`` or ``bfloat16``; None: the model's own.
        **options: ``channel``, a number or ``"mix"``, and those of :meth:`voxfast.Model.session`.

    Raises:
        ModelNotFoundError, CheckpointError, InvalidOptionError: see :func:`voxfast.load`.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        formats: Sequence[str] = ("json",),
        dtype: str | None = None,
        **options: Any,
    ) -> None:
        import mlx.core as mx

        import voxfast

        self.settings = Settings(str(model), check_formats(formats), dtype, options)
        kind: Any = None if dtype is None else getattr(mx, dtype, dtype)
        self._model = voxfast.load(model, dtype=kind)
        try:
            self._session(options).close()  # invalid options, before any recording
        except BaseException:
            self._model.close()
            raise

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings of another one say.

        Raises:
            InvalidOptionError: also for the values in its trials that the model cannot take.
        """
        made = cls(settings.model, settings.formats, settings.dtype, **settings.options)
        try:
            made._try(settings.trials)
        except BaseException:
            made._model.close()
            raise
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()

    def __call__(self, recording: Recording) -> Result:
        """Transcribe a recording; what goes wrong is in the result.

        Of a recording that is damaged or cut off, the transcript has what could be heard.
        """
        options = {**self.settings.options, **recording.options}
        begin = time.perf_counter()
        transcript, error = None, None
        with _Warnings() as warnings:
            try:
                transcript, error = self._transcribe(recording.path, **options)
            except Exception as raised:  # one recording is no reason to stop
                error = raised
        heard = transcript if transcript is not None and transcript.duration > 0 else None
        return Result(
            recording,
            {} if heard is None else self._written(recording, heard, error is None),
            heard,
            None if error is None else _reason(error),
            tuple(warnings.found),
            time.perf_counter() - begin,
        )

    def _try(self, trials: Sequence[Trial]) -> None:
        """Open a session with each value, and raise InvalidOptionError with all that are wrong."""
        wrong = []
        for trial in trials:
            try:
                self._session({**self.settings.options, trial.name: trial.value}).close()
            except InvalidOptionError as error:
                wrong.append(f"{trial.origin}: {error}")
        if wrong:
            raise InvalidOptionError(several(wrong))

    def _session(self, options: Mapping[str, Any]) -> "Session":
        plain = {key: value for key, value in options.items() if key != "channel"}
        return self._model.session(**plain)

    def _transcribe(
        self, path: str, *, channel: Any = "mix", **options: Any
    ) -> tuple[Transcript, Exception | None]:
        from voxfast.model import transcribe_readable

        if check_channel(channel) == "each":
            raise InvalidOptionError("channel 'each': a recording has one transcript; name one")
        return transcribe_readable(self._model, path, channel, **options)

    def _written(
        self, recording: Recording, transcript: Transcript, complete: bool
    ) -> dict[str, str]:
        """The transcript in each format, by suffix."""
        texts = {}
        for name in self.settings.formats:
            if name == "json":
                source = recording.shown_path
                text = transcript_formats.to_json(transcript, source=source, complete=complete)
            else:
                text = FORMATS[name](transcript)
            texts[SUFFIXES[name]] = text
        return texts


def check_formats(names: Sequence[str]) -> tuple[str, ...]:
    """The formats that are meant, each once; ``txt`` is ``text``.

    Raises:
        InvalidOptionError: for an unknown one, or none at all.
    """
    if isinstance(names, str) or not names:
        raise InvalidOptionError(f"formats are a list such as ['json', 'srt']; got {names!r}")
    chosen = tuple(dict.fromkeys("text" if name == "txt" else name for name in names))
    if unknown := [name for name in chosen if name not in FORMATS]:
        raise InvalidOptionError(f"no format {unknown[0]!r}; there are {', '.join(FORMATS)}")
    return chosen


class _Warnings(logging.Handler):
    """Collects what voxfast warns of, this recording's flaws among it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.found) < _MOST_WARNINGS:
            self.found.append(record.getMessage())

    def __enter__(self) -> Self:
        logging.getLogger("voxfast").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("voxfast").removeHandler(self)


def _digest(entries: object) -> str:
    """A vocabulary in a few letters: it may have thousands of phrases, and the index many lines."""
    try:
        phrases = sorted(read_vocabulary(entries))
    except InvalidOptionError:  # an error of the recording, which has the reason
        return "not valid"
    text = json.dumps(phrases)
    return f"{len(phrases)} phrases, SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _reason(error: Exception) -> str:
    """An error in words."""
    if isinstance(error, VoxfastError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"

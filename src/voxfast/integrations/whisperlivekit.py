"""voxfast as a backend of WhisperLiveKit (0.2.26 and later).

::

    from voxfast.integrations import whisperlivekit as voxfast_backend
    from whisperlivekit import AudioProcessor, TranscriptionEngine

    voxfast_backend.install()
    engine = TranscriptionEngine(backend="voxtral-mlx", model_size="voxtral-mini-4b-4bit")
    processor = AudioProcessor(transcription_engine=engine)

The backends ``voxtral-mlx`` and ``qwen3-mlx-simul`` are then voxfast's. The rest of
WhisperLiveKit is unchanged, and no file is modified. A line of its results is a segment: a
sentence, or what was said up to a pause. The command ``voxfast-wlk`` starts its
server in the same way; see :mod:`voxfast.integrations.wlk_command`.

All sessions of a server share one holder, which has the model; each session has one processor.
``whisperlivekit.audio_processor`` defines the order of the calls.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, ClassVar, ParamSpec

import numpy as np

import voxfast
from voxfast import audio as audio_io
from voxfast import hub
from voxfast._segments import SegmentStream
from voxfast.errors import VoxfastError
from voxfast.models.family import is_automatic
from voxfast.models.qwen3_asr.languages import LANGUAGES
from voxfast.online.session import OnlineProcessor
from voxfast.timed import Word

try:
    from whisperlivekit import audio_processor, core, simul_whisper
    from whisperlivekit.timed_objects import ASRToken, Silence, Transcript
    from whisperlivekit.tokens_alignment import TokensAlignment
except ImportError as error:
    raise ImportError(
        f'this needs WhisperLiveKit: pip install "voxfast[whisperlivekit]" ({error})'
    ) from error

__all__ = [
    "BACKENDS",
    "Qwen3MLXSimulASR",
    "Qwen3MLXSimulOnlineProcessor",
    "Qwen3MLXSimulStreamingASR",
    "Qwen3MLXSimulStreamingOnlineProcessor",
    "VoxtralMLXASR",
    "VoxtralMLXOnlineProcessor",
    "install",
]

BACKENDS = ("voxtral-mlx", "qwen3-mlx-simul")

log = logging.getLogger(__name__)

P = ParamSpec("P")
Tokens = tuple[list[Any], float]

# WhisperLiveKit's own classes under the names that install() replaces.
_SIMUL_ASR = core.SimulStreamingASR
_SIMUL_PROCESSOR = simul_whisper.SimulStreamingOnlineProcessor

_WHISPER_SIZE = re.compile(r"(tiny|base|small|medium|large|turbo)([.-].*)?")
_QWEN3_SIZE = re.compile(r"(qwen3-)?(0\.6b|1\.7b)", re.IGNORECASE)


class _Holder:
    """A loaded model, and the settings that its sessions share.

    Args:
        model_size, model_dir, model_path: arguments of :func:`voxfast.load`; a folder takes
            precedence over a name. The sizes of Whisper, including WhisperLiveKit's default,
            mean the default model; ``0.6b`` and ``1.7b`` are sizes of Qwen3-ASR.
        model_cache_dir: cache folder for models from the hub.
        lan: default language of sessions: "auto", a code or a name.
        warmup_file: recording for the warm-up; None: a second of silence; empty: no warm-up.
        alignment_heads_path, custom_alignment_heads: file of alignment heads to use instead
            of those of the model; for Qwen3-ASR.
        delay_ms: option of the sessions; None: the default of the model.
        **others: further arguments of WhisperLiveKit; ignored.

    Raises:
        VoxfastError: if there is no such model, an option is invalid, or the warm-up file
            cannot be read.
    """

    backend_choice: ClassVar[str]
    default_model: ClassVar[str]
    sep = ""
    SAMPLING_RATE = audio_io.SAMPLE_RATE

    def __init__(
        self,
        *,
        model_size: str | None = None,
        model_dir: str | None = None,
        model_path: str | None = None,
        model_cache_dir: str | None = None,
        lan: str | None = "auto",
        warmup_file: str | None = None,
        alignment_heads_path: str | None = None,
        custom_alignment_heads: str | None = None,
        delay_ms: int | None = None,
        **others: Any,
    ) -> None:
        self.original_language = None if is_automatic(lan) else lan
        self._delay_ms = delay_ms
        self._heads = alignment_heads_path or custom_alignment_heads
        name = model_dir or model_path or model_size or ""
        if not name or _WHISPER_SIZE.fullmatch(name):
            name = self.default_model
        elif size := _QWEN3_SIZE.fullmatch(name):
            name = f"qwen3-asr-{size[2].lower()}"
        log.info("loading %s", name)
        self.model = voxfast.load(hub.resolve(name, model_cache_dir) if model_cache_dir else name)
        log.debug("ignored: %s", ", ".join(sorted(others)))
        # Invalid options are refused now, not session by session.
        processor = self.model.processor(**self.session_options(self.original_language))
        if warmup_file != "":
            samples = audio_io.load_audio(warmup_file) if warmup_file else np.zeros(16000, "f4")
            processor.warmup(samples)

    def session_options(self, language: str | None) -> dict[str, Any]:
        """Options of a session in a language; None: it is detected."""
        return {} if self._delay_ms is None else {"delay_ms": self._delay_ms}

    def transcribe(self, audio: Any, init_prompt: str = "") -> None:
        """Does nothing: WhisperLiveKit calls it as warm-up, which was done before."""


class VoxtralMLXASR(_Holder):
    """Voxtral Realtime under the name of WhisperLiveKit's own backend."""

    backend_choice = "voxtral-mlx"
    default_model = "voxtral-mini-4b-6bit"

    def session_options(self, language: str | None) -> dict[str, Any]:
        if not is_automatic(language):
            log.warning("Voxtral finds the language itself; %r has no effect", language)
        return super().session_options(None)


class Qwen3MLXSimulASR(_Holder):
    """Qwen3-ASR with AlignAtt under the name of WhisperLiveKit's backend."""

    backend_choice = "qwen3-mlx-simul"
    default_model = "qwen3-asr-0.6b"

    def session_options(self, language: str | None) -> dict[str, Any]:
        options = super().session_options(language) | {"language": language}
        tuning = {"tuning": voxfast.Qwen3Tuning(heads_file=self._heads)} if self._heads else {}
        return options | tuning


class _LineBreak(Silence, ASRToken):  # type: ignore[misc]
    """The end of a line, among the tokens: a silence of no length, the only end it has."""

    def __init__(self, time: float) -> None:
        super().__init__(start=time, end=time, duration=0.0, has_ended=True)


class _Lines(TokensAlignment):  # type: ignore[misc]
    """WhisperLiveKit's lines, without the silences of no length between them."""

    def get_lines(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any, Any]:
        lines, *buffers = super().get_lines(*args, **kwargs)
        return [x for x in lines if not x.is_silence() or x.start != x.end], *buffers


class _Processor(OnlineProcessor):
    """One session.

    Methods never raise: WhisperLiveKit would silently stop transcribing. An error is logged at
    ERROR and kept in ``error``, and the session goes on, with a new stream if the old one broke.

    Args:
        asr: a holder, or WhisperLiveKit's proxy of one, which has the session's language.

    Attributes:
        error: the last error, or None.

    Raises:
        InvalidOptionError: if the model does not know the session's language; a ValueError,
            which WhisperLiveKit reports to the client.
    """

    def __init__(self, asr: Any, logfile: Any = None) -> None:
        wrapped = vars(asr).get("_asr")
        holder = asr if wrapped is None else wrapped
        language = holder.original_language if wrapped is None else vars(asr)["_session_language"]
        self.error: Exception | None = None
        self._upto = self._end = 0.0
        self._segments = SegmentStream()
        options = holder.session_options(language)
        super().__init__(asr, lambda: holder.model.session(**options))

    def insert_audio_chunk(self, audio: Any, audio_stream_end_time: float | None = None) -> None:
        self._end += len(audio) / self.SAMPLING_RATE
        self._try(super().insert_audio_chunk, audio)

    def end_silence(self, duration: float | None, offset: float | None = 0.0) -> None:
        self._end += duration or 0.0
        self._try(super().end_silence, duration)

    def process_iter(self, is_last: bool = False) -> Tokens:
        return self._answer(super().process_iter, is_last)

    def start_silence(self) -> Tokens:
        return self._answer(super().start_silence)

    def finish(self) -> Tokens:
        return self._answer(super().finish)

    def get_buffer(self) -> Any:
        # Without leading space: otherwise WhisperLiveKit strips committed words from the text if
        # its first words are the same.
        return Transcript(None, None, self._session.tentative.lstrip())

    def _answer(self, call: Callable[P, Tokens], *args: P.args, **kwargs: P.kwargs) -> Tokens:
        """Tokens and ends of lines instead of words, including those of a failed call."""
        session = self._session
        found = self._try(call, *args, **kwargs)
        words, upto = (session.take(), self._upto) if found is None else found
        self._upto = max(self._upto, upto)
        return [token for word in words for token in self._tokens(word)], self._upto

    def _try(self, call: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            log.exception("%s failed at %.2f s of the stream: %s", call.__name__, self._end, error)
            self.error = error
            if not isinstance(error, VoxfastError):  # the stream is broken
                self._reopen()
            return None

    def _reopen(self) -> None:
        """Continue with a new stream at the same time."""
        try:
            self._session = self._new_session()
            self._session.skip(self._end)
        except Exception as error:
            log.exception("a new stream could not be opened: %s", error)
            self.error = error

    def _tokens(self, word: Word) -> Iterator[Any]:
        if ended := self._segments.step(word):
            yield _LineBreak(ended[-1].end)
        yield ASRToken(
            start=word.start,
            end=word.end,
            text=word.text,
            detected_language=LANGUAGES.get(self._session.language or ""),
            probability=word.probability,
        )


class VoxtralMLXOnlineProcessor(_Processor):
    """A session on :class:`VoxtralMLXASR`."""


class Qwen3MLXSimulOnlineProcessor(_Processor):
    """A session on :class:`Qwen3MLXSimulASR`."""


# The names in WhisperLiveKit before 0.2.26, in its module ``qwen3_mlx_simul``.
Qwen3MLXSimulStreamingASR = Qwen3MLXSimulASR
Qwen3MLXSimulStreamingOnlineProcessor = Qwen3MLXSimulOnlineProcessor


def install(**options: Any) -> None:
    """Make voxfast the backends ``voxtral-mlx`` and ``qwen3-mlx-simul`` of this process.

    Replaces four names that WhisperLiveKit looks up when it creates an engine or a session, so
    call it before. Calling it again changes the options.

    Args:
        **options: additional arguments of the holders: ``delay_ms``.
    """

    def simul_asr(*, backend: str, **others: Any) -> Any:
        if backend == Qwen3MLXSimulASR.backend_choice:
            return Qwen3MLXSimulASR(**others, **options)
        return _SIMUL_ASR(backend=backend, **others)

    def simul_processor(asr: Any) -> Any:
        holder = vars(asr).get("_asr", asr)
        is_ours = isinstance(holder, Qwen3MLXSimulASR)
        return (Qwen3MLXSimulOnlineProcessor if is_ours else _SIMUL_PROCESSOR)(asr)

    # WhisperLiveKit imports its own module of this name only when the backend is requested.
    module = ModuleType("whisperlivekit.voxtral_mlx_asr")
    vars(module)["VoxtralMLXASR"] = partial(VoxtralMLXASR, **options)
    vars(module)["VoxtralMLXOnlineProcessor"] = VoxtralMLXOnlineProcessor
    sys.modules[module.__name__] = module
    audio_processor.TokensAlignment = _Lines
    core.SimulStreamingASR = simul_asr
    simul_whisper.SimulStreamingOnlineProcessor = simul_processor

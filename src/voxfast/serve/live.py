"""A session of the model as the server drives it."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from voxfast.errors import InvalidOptionError
from voxfast.online.asynchronous import AsyncSession
from voxfast.serve.dialect import Event, LanguageFound, Processed, Start, Tentative
from voxfast.serve.sound import SoundConverter
from voxfast.timed import Word

if TYPE_CHECKING:
    from voxfast.model import Model

__all__ = ["LiveSession", "session_options"]


class LiveSession:
    """An open session with its sound: bytes in, events out. Made by :meth:`open`."""

    def __init__(
        self, model: "Model", session: AsyncSession, options: Start, sound: SoundConverter
    ) -> None:
        self._model, self._session, self._sound = model, session, sound
        self.options = options
        self._tentative = ""
        self._language: str | None = None

    @classmethod
    async def open(cls, model: "Model", options: Start, recording: float | None = None) -> Self:
        """Open a session.

        Args:
            recording: seconds of a whole recording, infinity if unknown; None: live audio.

        Raises:
            InvalidOptionError: for options that the model does not take.
            InvalidAudioError: for a form of audio that cannot be.
        """
        sound = SoundConverter(options.sample_rate, options.sample_format, options.channels)
        # On a thread, because the model's own may be busy with a step of other sessions.
        session = await asyncio.to_thread(_open, model, options, recording)
        return cls(model, await session.__aenter__(), options, sound)

    def convert(self, data: bytes) -> npt.NDArray[np.float32]:
        """Bytes of the client to [N] samples."""
        return self._sound.step(data)

    def rest(self) -> npt.NDArray[np.float32]:
        """[N] samples that the resampler has held back; called at the end of an utterance."""
        return self._sound.flush()

    def insert(self, samples: npt.NDArray[np.float32]) -> None:
        """Queue samples."""
        self._session.insert(samples)

    def skip(self, seconds: float) -> None:
        """Let the times begin later."""
        self._session.skip(seconds)

    async def events(
        self, *, flush: bool = False, finish: bool = False
    ) -> tuple[list[Event], list[float]]:
        """Process what was inserted.

        Returns:
            The events, and for each word the seconds of audio received behind its end.
        """
        found: list[Event] = [*await self._session.events(flush=flush, finish=finish)]
        heard = self._session.heard
        delays = [heard - event.end for event in found if isinstance(event, Word)]
        language = self._session.language
        if language is not None and language != self._language:
            self._language = language
            found.insert(0, LanguageFound(language))
        tentative = self._session.tentative
        if tentative != self._tentative:
            self._tentative = tentative
            found.append(Tentative(tentative))
        found.append(Processed(self._session.processed))
        return found, delays

    async def cleared(self) -> "LiveSession":
        """A session that knows nothing of what this one has heard; the times go on."""
        fresh = await type(self).open(self._model, self.options)
        fresh.skip(self.heard)
        self.close()
        return fresh

    def close(self) -> None:
        """Free it."""
        self._session.close()

    @property
    def heard(self) -> float:
        """Seconds of the stream received so far."""
        return self._session.heard

    @property
    def language(self) -> str | None:
        """As asked for or detected."""
        return self._session.language


def _open(model: "Model", options: Start, recording: float | None) -> Any:
    chosen = session_options(options)
    new = model.session if recording is None else partial(model.recording_session, recording)
    try:
        return new(**chosen)
    except InvalidOptionError:
        # Clients name the language always. A model that knows this one, finds it itself, and cannot
        # be told, is right to ignore it; what else is wrong is raised again.
        if model.language_code(chosen.pop("language", "")) is None:
            raise
        return new(**chosen)


def session_options(options: Start) -> dict[str, Any]:
    """The options of :meth:`voxfast.Model.session` that a client has asked for."""
    chosen: dict[str, Any] = {
        "language": options.language or None,
        "prompt": options.prompt or None,
        "vocabulary": [*options.vocabulary] or None,
        "endpoint_ms": options.endpoint_ms,
        "delay_ms": options.delay_ms,
    }
    return {name: value for name, value in chosen.items() if value is not None}

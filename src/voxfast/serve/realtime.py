"""``/v1/realtime``: OpenAI's interface or vLLM's, told apart by the client's first event.

Both greet with ``session.created``, and what either's clients read in it is there. Then:

* a flat ``session.update`` (with ``model``, without ``session``) is vLLM's;
* so is a ``commit`` before any audio, unless the URL says ``intent=transcription``;
* everything else is OpenAI's.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from voxfast.serve import frames
from voxfast.serve.dialect import Action, Dialect, Event, Handshake, Problem, Service
from voxfast.serve.forms import HOSTED_MODELS
from voxfast.serve.openai_realtime import OpenAIRealtime
from voxfast.serve.vllm_realtime import VllmRealtime

__all__ = ["Realtime"]


class Realtime:
    """Speaks the dialect that the client does.

    Raises:
        Problem: if the URL names a model that is not there.
    """

    def __init__(self, handshake: Handshake, service: Service) -> None:
        service.check_model(handshake.one("model"), HOSTED_MODELS)
        self._handshake, self._service = handshake, service
        self._dialect: Dialect = OpenAIRealtime(handshake, service)
        self._is_chosen = False

    def open(self) -> Iterable[Action]:
        """Greet, in a way that fits both."""
        return self._dialect.open()

    def receive(self, frame: str | bytes) -> Iterable[Action]:
        """A client's event; the first sound one decides."""
        if not self._is_chosen:
            try:
                event = frames.read(frame)
            except Problem:
                return self._dialect.receive(frame)
            self._is_chosen = True
            if self._is_flat(event):
                self._dialect = VllmRealtime(self._handshake, self._service)
        return self._dialect.receive(frame)

    def event(self, event: Event) -> Iterable[Action]:
        """An event of the session."""
        return self._dialect.event(event)

    def _is_flat(self, event: Mapping[str, Any]) -> bool:
        match event.get("type"):
            case "session.update":
                return "session" not in event
            case "input_audio_buffer.commit":
                return self._handshake.one("intent") != "transcription"
        return False

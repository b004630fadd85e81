"""libespeak-ng through ctypes: text in, samples and the start of each word out.

The constants and structures are those of espeak-ng's public header ``speak_lib.h`` (1.51).
"""

import ctypes
import ctypes.util
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Espeak", "Speech", "VoiceSettings", "espeak"]

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_POSITION_IN_CHARACTERS = 1
_CHARS_UTF8 = 1
_EVENT_LIST_TERMINATED, _EVENT_WORD = 0, 1
_RATE, _PITCH, _PITCH_RANGE, _WORD_GAP = 1, 3, 4, 7  # espeak_PARAMETER


class _EventId(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class VoiceSettings:
    """How a phrase is spoken.

    Attributes:
        name: espeak-ng's accent and variant, such as ``en-us+f2``.
        rate: words per minute.
        pitch, pitch_range: 0 to 100, 50 is the voice's own.
        word_gap: additional pause between words, in units of 10 ms.
    """

    name: str
    rate: int = 160
    pitch: int = 50
    pitch_range: int = 50
    word_gap: int = 0


@dataclass(frozen=True)
class Speech:
    """What the synthesiser said.

    Attributes:
        samples: [N] int16 at ``Espeak.sample_rate``.
        word_starts: (character position in the text, counted from 0; sample) of each word.
    """

    samples: NDArray[np.int16]
    word_starts: list[tuple[int, int]]


class Espeak:
    """The synthesiser. The library's state is global: use ``espeak()``, one per process."""

    def __init__(self) -> None:
        self._library = _load_library()
        self.sample_rate: int = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, None, 0
        )
        if self.sample_rate <= 0:
            raise RuntimeError("espeak-ng finds no voices: install the package espeak-ng-data")
        self._pieces: list[NDArray[np.int16]] = []
        self._word_starts: list[tuple[int, int]] = []
        self._callback = _Callback(self._receive)  # the library keeps only a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        index = 0
        while events[index].type != _EVENT_LIST_TERMINATED:
            event = events[index]
            if event.type == _EVENT_WORD and event.text_position > 0:  # 0 closes the sentence
                self._word_starts.append((event.text_position - 1, event.sample))
            index += 1
        return 0

    def say(self, text: str, voice: VoiceSettings) -> Speech:
        """Speaks ``text``.

        Raises:
            ValueError: espeak-ng does not know the voice.
        """
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}: see `espeak-ng --voices`")
        for parameter, value in (
            (_RATE, voice.rate),
            (_PITCH, voice.pitch),
            (_PITCH_RANGE, voice.pitch_range),
            (_WORD_GAP, voice.word_gap),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces.clear()
        self._word_starts.clear()
        data = text.encode()
        self._library.espeak_Synth(
            data, len(data) + 1, 0, _POSITION_IN_CHARACTERS, 0, _CHARS_UTF8, None, None
        )
        samples = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)
        return Speech(samples, list(self._word_starts))


@cache
def espeak() -> Espeak:
    """The synthesiser of this process.

    Raises:
        RuntimeError: libespeak-ng or its voices are not installed.
    """
    return Espeak()


def _load_library() -> ctypes.CDLL:
    for name in (ctypes.util.find_library("espeak-ng"), "libespeak-ng.so.1", "libespeak-ng.dylib"):
        if name is None:
            continue
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError(
        "libespeak-ng is not installed: `apt-get install espeak-ng` or `brew install espeak-ng`"
    )

"""Voice detection: is someone speaking, and from when to when?

::

    detector = VoiceDetector()
    spans = SpeechSpans()
    for pcm in microphone():  # float32 or int16, mono, 16 kHz, any length
        for event in spans.step(detector.step(pcm)):
            print(event)  # SpeechStarted(time=1.184), SpeechEnded(time=3.52)

:func:`find_speech` does the same to a whole recording.
"""

from voxfast.vad.detector import FRAME_SECONDS, VoiceDetector
from voxfast.vad.spans import SpeechEnded, SpeechSpan, SpeechSpans, SpeechStarted, find_speech

__all__ = [
    "FRAME_SECONDS",
    "SpeechEnded",
    "SpeechSpan",
    "SpeechSpans",
    "SpeechStarted",
    "VoiceDetector",
    "find_speech",
]

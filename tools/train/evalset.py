"""Evaluation sets: audio files of held-out voices, and eval.json with the true word times."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray

from .augment import NOTHING, Acoustics
from .clips import Clip, ClipStyle, Noise, Pause, assemble, draw_scene
from .engines.espeak import HELD_OUT_VARIANTS, draw_voice, speak, voice_names
from .grammar import draw_phrase
from .pool import Pool
from .speech import SAMPLE_RATE, Phrase, Word

__all__ = ["EvalClip", "read_eval_set", "write_eval_set", "write_speaker_set"]

_STYLE = ClipStyle(
    pauses=(Pause(1.0, 0.1, 1.5),), lead_in=(0.2, 0.8), phrase_gain=(-3, 1), clip_gain=(-10, 2),
    tail=0.3, misses=30,
)  # fmt: skip
_LONG_STYLE = replace(_STYLE, pauses=(Pause(0.92, 0.1, 1.5), Pause(0.08, 3.0, 8.0)))
_SHORT_NOISE, _LONG_NOISE = (15.0, 40.0), (25.0, 45.0)  # dB below speech
_VOICE_SECONDS = 60  # the long clip changes its voice that often
# Lengths of the short clips in seconds, and how many of 40 have them.
_LENGTHS = (((2.2, 3.0), 14), ((3.0, 4.5), 16), ((5.0, 8.0), 7), ((10.0, 14.0), 3))


@dataclass(frozen=True)
class EvalClip:
    """One file of a set: its name, audio [N] float32 at 16 kHz, and true words."""

    name: str
    audio: NDArray[np.float32]
    words: list[Word]


class _Speaker:
    """Speaks phrases that, from three words on, the training pool does not have."""

    def __init__(self, known: set[tuple[str, ...]], rng: Generator) -> None:
        self._known, self._rng = known, rng

    def say(self, voice: str) -> Phrase:
        while True:
            texts = draw_phrase(self._rng)
            if len(texts) > 2 and texts in self._known:
                continue
            phrase = speak(texts, draw_voice(voice, self._rng))
            if phrase is not None:
                return phrase


def write_eval_set(
    folder: Path, short_clips: int, long_seconds: float, known: set[tuple[str, ...]], seed: int
) -> str:
    """Writes the set into ``folder`` and returns a line about it.

    Every second short clip and the long one have noise; the others are digital silence between
    the phrases. The long clip changes its voice every minute.

    Args:
        known: sentences of the training pool, not to be repeated.
    """
    rng = np.random.default_rng(seed)
    noise, speaker = Noise(seed), _Speaker(known, rng)
    voices = rng.permutation(voice_names(HELD_OUT_VARIANTS)).tolist()
    items = []
    for number, seconds in enumerate(_short_lengths(short_clips, rng)):
        clip = _speak_short(speaker, voices[number % len(voices)], seconds, rng)
        below = _SHORT_NOISE if number % 2 else None
        items.append(_write(folder / f"eval_{number:02d}.wav", clip, noise, below, rng))

    sections = rng.choice(voices, int(long_seconds // _VOICE_SECONDS) + 1).tolist()
    clip = assemble(
        lambda time: speaker.say(sections[int(time // _VOICE_SECONDS)]),
        long_seconds,
        _LONG_STYLE,
        rng,
    )
    path = folder / f"eval_long_{long_seconds:.0f}s.wav"
    items.append(_write(path, clip, noise, _LONG_NOISE, rng))
    document = {
        "sample_rate": SAMPLE_RATE,
        "voices_held_out": HELD_OUT_VARIANTS,
        "word_times": "espeak-ng word events; a word ends where the next one of its phrase "
        "starts, the last one with the last audible sample",
        "items": items,
    }
    (folder / "eval.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    words = sum(len(item["words"]) for item in items)
    return f"{len(items)} files, {words} words, {sum(i['duration'] for i in items):.0f} s"


def write_speaker_set(
    folder: Path, pools: Mapping[str, Pool], clips: int, seconds: float, seed: int
) -> str:
    """Writes clips of each of the ``pools`` into ``folder``; returns a line about them.

    Every second clip is as it was spoken, the others are as a microphone hears them.
    ``eval_clean.json`` has the former alone.
    """
    rng, noise, items = np.random.default_rng(seed), Noise(seed), []
    for name, pool in pools.items():
        said: list[list[str]] = []
        for number in range(clips):
            acoustics = Acoustics(alone=0) if number % 2 else NOTHING
            while True:
                clip = draw_scene(pool, seconds, acoustics, noise, rng)
                texts = [word.text for word in clip.words]
                # No phrase may have been short enough, or one that was there before.
                if clip.voices and (not texts or texts not in said):
                    break
            said.append(texts)
            item = _write(folder / f"{name}_{number:02d}.flac", clip, noise, None, rng)
            items.append({**item, "noise": "room, microphone, noise" if number % 2 else "none"})
    document = {
        "sample_rate": SAMPLE_RATE,
        "voices_held_out": sorted(pools),
        "word_times": "durations of the synthesisers, or the audible part of words said apart",
        "items": items,
    }
    clean = {**document, "items": [item for item in items if item["noise"] == "none"]}
    for name, part in (("eval.json", document), ("eval_clean.json", clean)):
        (folder / name).write_text(json.dumps(part, indent=1) + "\n", encoding="utf-8")
    words = sum(len(item["words"]) for item in items)
    return f"{len(items)} files, {words} words, {sum(i['duration'] for i in items):.0f} s"


def read_eval_set(folder: Path) -> Iterator[EvalClip]:
    """The clips of a set in the order of its eval.json."""
    document = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    for item in document["items"]:
        audio, _ = soundfile.read(folder / item["file"], dtype="float32")
        words = [Word(word["word"], word["start"], word["end"]) for word in item["words"]]
        yield EvalClip(item["file"], audio, words)


def _short_lengths(count: int, rng: Generator) -> list[float]:
    whole = [rng.uniform(*seconds) for seconds, share in _LENGTHS for _ in range(share)]
    chosen = np.linspace(0, len(whole) - 1, count).round().astype(int)
    return [float(whole[place]) for place in chosen]


def _speak_short(speaker: _Speaker, voice: str, seconds: float, rng: Generator) -> Clip:
    while True:
        clip = assemble(lambda _: speaker.say(voice), seconds, _STYLE, rng)
        if clip.words:
            return clip


def _write(
    path: Path, clip: Clip, noise: Noise, below: tuple[float, float] | None, rng: Generator
) -> dict[str, Any]:
    """Writes the audio file and returns its item of eval.json."""
    audio = clip.audio if below is None else noise.add(clip.audio, below, rng)
    audio = audio * min(1.0, 0.98 / max(float(np.abs(audio).max()), 1e-9))
    soundfile.write(path, audio, SAMPLE_RATE, subtype="PCM_16")
    return {
        "file": path.name,
        "duration": round(len(audio) / SAMPLE_RATE, 3),
        "transcript": " ".join(word.text for word in clip.words),
        "voice": clip.voices[0][0]
        if len(clip.voices) == 1
        else [{"voice": voice, "start": round(start, 2)} for voice, start in clip.voices],
        "noise": "none" if below is None else f"white/pink {below[0]:.0f}-{below[1]:.0f} dB",
        "words": [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
            for word in clip.words
        ],
    }

"""What happens to speech between a mouth and a file: rooms, microphones, telephones, other noise.

In the time domain: echo, interference, clipping, coarse samples, level. In the frequency domain,
where it costs nothing: the limits of a channel, and the length of the vocal tract, by a warp of the
mel filters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import butter, oaconvolve, sosfilt
from torch import Tensor

from .mel import MEL_BINS, N_MELS, mel_filterbank
from .speech import SAMPLE_RATE, Word, faded

__all__ = [
    "KINDS",
    "NOTHING",
    "Acoustics",
    "draw_channels",
    "draw_filterbanks",
    "echo",
    "gate",
    "hush",
    "interference",
    "lose",
    "mask_bands",
    "prolong",
    "stretch",
    "stretch_words",
]

Audio = NDArray[np.float32]
Range = tuple[float, float]

FRAME = 160  # samples, 10 ms
LEAST_GAP = 0.02  # seconds
LEAST_STRETCHED = 10  # frames
QUIET = 0.02  # amplitude; the peak of a phrase is 0.6
LEAST_ROOM = 480  # samples that stay between two words
ALONE = (0.3, 0.7)  # seconds that a word before a gap lasts at least, drawn from this range
PROLONGED = 1.4  # the most that a word is stretched which is long enough already
MOST_PROLONGED = 2.4  # the most that any word is
RELEASES = {"t": (2500, 7000), "d": (2000, 6500), "c": (1500, 4500), "p": (400, 3000)}  # Hz
SPEECH_LEVEL = 0.1  # nominal RMS of speech, to which other levels refer


@dataclass(frozen=True)
class Acoustics:
    """Probabilities and ranges, each of them to be left out for a comparison.

    Attributes:
        room: probability of an echo.
        noises: probability of white or pink noise; ``noise_below`` dB below speech.
        interference: probability of one of ``KINDS``, ``interference_below`` dB below speech.
        alone: probability that a clip has no speech but loud interference.
        babble: probability of other speakers, ``babble_below`` dB below speech.
        clipping, coarse: probability of overdriven samples, and of 8-bit µ-law.
        hushed: probability that s, f and their like are weaker than they were.
        lost: probability that ``lost_words`` of the words miss 20 to 60 ms.
        careful: probability that words before a gap are longer, their last stops released.
        gate: probability that only words pass, with their quiet ends cut off.
        evened: of those, probability that all words are brought to about the same peak.
        level: dB of the whole clip.
        telephone, narrow, microphone: probabilities of the three kinds of channel.
        tract: spread of the logarithm of the vocal tract's length; ``warped`` of the streams.
        mouth: the same of each wave by which its formants move apart or together.
        tilt: how strong a random colouring is.
        stretched: probability that the sounds of a word change their share of its time.
    """

    room: float = 0.35
    noises: float = 0.75
    noise_below: Range = (12.0, 45.0)
    interference: float = 0.2
    interference_below: Range = (10.0, 35.0)
    alone: float = 0.03
    babble: float = 0.12
    babble_below: Range = (14.0, 30.0)
    clipping: float = 0.06
    coarse: float = 0.05
    hushed: float = 0.45
    lost: float = 0.2
    lost_words: float = 0.4
    careful: float = 0.9
    gate: float = 0.55
    evened: float = 0.6
    level: Range = (-18.0, 3.0)
    telephone: float = 0.18
    narrow: float = 0.27
    microphone: float = 0.18
    tract: float = 0.08
    mouth: float = 0.035
    warped: float = 0.7
    tilt: float = 1.5
    stretched: float = 0.5


# Speech as it was synthesised.
NOTHING = Acoustics(
    room=0, noises=0, interference=0, alone=0, babble=0, clipping=0, coarse=0, hushed=0, lost=0,
    lost_words=0, careful=0, gate=0, evened=0, level=(0, 0), telephone=0, narrow=0, microphone=0,
    warped=0, tract=0, mouth=0, tilt=0, stretched=0,
)  # fmt: skip


def echo(audio: Audio, rng: Generator) -> Audio:
    """``audio`` in a small room: T60 0.1 to 0.6 s, the direct sound 2 to 18 dB above the echo."""
    t60 = rng.uniform(0.1, 0.6)
    response = rng.standard_normal(int(0.7 * t60 * SAMPLE_RATE))
    response *= np.exp(-6.9 / t60 / SAMPLE_RATE * np.arange(len(response)))
    response[: int(rng.uniform(0.001, 0.01) * SAMPLE_RATE)] = 0
    response *= amplitude(-rng.uniform(2, 18)) / np.sqrt((response**2).sum())
    response[0] = 1
    heard: Audio = oaconvolve(audio, response.astype(np.float32))[: len(audio)]
    return heard.astype(np.float32)


# Interference, [samples] of unit RMS.


def _hum(samples: int, rng: Generator) -> NDArray[np.floating]:
    """Mains hum with its harmonics."""
    base = float(rng.choice([50.0, 60.0]))
    return _tones(samples, [base * k for k in range(1, 9)], 1 / np.arange(1, 9), rng)


def _beeps(samples: int, rng: Generator) -> NDArray[np.floating]:
    """A tone of 300 to 3000 Hz, on and off."""
    tone = _tones(samples, [rng.uniform(300, 3000)], np.ones(1), rng)
    period = int(rng.uniform(0.2, 1.5) * SAMPLE_RATE)
    return tone * ((np.arange(samples) % period) < rng.uniform(0.2, 0.8) * period)


def _music(samples: int, rng: Generator) -> NDArray[np.floating]:
    """Notes of a chord with harmonics that decay, a new chord every half second or so."""
    sound = np.zeros(samples)
    at = 0
    while at < samples:
        length = min(int(rng.uniform(0.2, 0.8) * SAMPLE_RATE), samples - at)
        root = 110 * 2 ** (rng.integers(0, 25) / 12)
        for step in rng.choice([0, 3, 4, 5, 7, 9, 12], 3, replace=False).tolist():
            pitch = root * 2 ** (step / 12)
            note = _tones(length, [pitch * k for k in range(1, 6)], 0.6 ** np.arange(5), rng)
            sound[at : at + length] += note * np.exp(-np.arange(length) / SAMPLE_RATE * 4)
        at += length
    return sound


def _clicks(samples: int, rng: Generator) -> NDArray[np.floating]:
    """Keys and knocks: short bursts at random times."""
    sound = np.zeros(samples + SAMPLE_RATE)
    for at in rng.integers(0, samples, 1 + int(4 * samples / SAMPLE_RATE * rng.random())).tolist():
        length = int(rng.uniform(0.003, 0.04) * SAMPLE_RATE)
        decay = np.exp(-np.arange(4 * length) / length)
        sound[at : at + 4 * length] += rng.uniform(0.3, 1) * rng.standard_normal(4 * length) * decay
    return sound[:samples]


def _rumble(samples: int, rng: Generator) -> NDArray[np.floating]:
    """Fans, traffic, wind: noise below some 100 to 800 Hz that comes and goes."""
    low = butter(2, rng.uniform(100, 800), fs=SAMPLE_RATE, output="sos")
    slow = 1 + 0.8 * np.sin(2 * np.pi * rng.uniform(0.1, 2) * np.arange(samples) / SAMPLE_RATE)
    rumble: NDArray[np.floating] = sosfilt(low, rng.standard_normal(samples)) * slow
    return rumble


def _hiss(samples: int, rng: Generator) -> NDArray[np.floating]:
    """Water, breath, paper: noise of a band between 500 and 7500 Hz."""
    first = rng.uniform(500, 4000)
    band = butter(
        2, (first, rng.uniform(first + 500, 7500)), "bandpass", fs=SAMPLE_RATE, output="sos"
    )
    hiss: NDArray[np.floating] = sosfilt(band, rng.standard_normal(samples))
    return hiss


def _tones(
    samples: int, pitches: list[float], levels: NDArray[np.floating], rng: Generator
) -> NDArray[np.floating]:
    # float32: half the time of a batch with interference went into these sines.
    time = np.arange(samples, dtype=np.float32) * np.float32(2 * np.pi / SAMPLE_RATE)
    sound = np.zeros(samples, np.float32)
    for pitch, level in zip(pitches, levels.tolist(), strict=True):
        phase = np.float32(rng.uniform(0, 2 * np.pi))
        sound += np.float32(level) * np.sin(np.float32(pitch) * time + phase)
    return sound


KINDS: dict[str, Callable[[int, Generator], NDArray[np.floating]]] = {
    "hum": _hum, "beeps": _beeps, "music": _music, "clicks": _clicks, "rumble": _rumble,
    "hiss": _hiss,
}  # fmt: skip


def interference(samples: int, rng: Generator, kind: str | None = None) -> Audio:
    """[samples] of unit RMS, of the ``kind`` or of a random one."""
    sound = KINDS[kind or str(rng.choice(list(KINDS)))](samples, rng)
    return (sound / max(float(np.sqrt((sound**2).mean())), 1e-9)).astype(np.float32)


def coarse(audio: Audio) -> Audio:
    """8-bit µ-law, as on a telephone line."""
    compressed = np.sign(audio) * np.log1p(255 * np.abs(np.clip(audio, -1, 1))) / np.log(256)
    steps = np.round(compressed * 127) / 127
    expanded: NDArray[np.floating] = np.sign(steps) * (256 ** np.abs(steps) - 1) / 255
    return expanded.astype(np.float32)


def gate(
    audio: Audio, words: Sequence[Word], evened: bool, rng: Generator
) -> tuple[Audio, list[Word]]:
    """Words recorded apart, or a noise gate: silence between words, whose quiet ends are cut off.

    So the fricatives of "six" and "four" may be gone, and what begins a word is the noise of its
    own recording. Words without a gap between them stay together. 60 % are limited to 4 kHz; in
    75 % low frequencies alone open the gate, so that hardly any fricative does. With ``evened``,
    what passes at once is brought to the same peak, 3 dB more or less.
    """
    if rng.random() < 0.6:
        audio = _low_passed(audio, 8, rng.uniform(3400, 3950))
    guide = _low_passed(audio, 4, rng.uniform(900, 2500)) if rng.random() < 0.75 else audio
    below = amplitude(-rng.uniform(14, 36))
    floor = amplitude(-rng.uniform(45, 75))
    peak = np.abs(audio).max()
    passed = (floor * rng.standard_normal(len(audio), np.float32)).astype(np.float32)
    cut: list[Word] = []
    for group in _groups(words):
        first, after = group[0].start, group[-1].end
        piece = audio[int(first * SAMPLE_RATE) : int(after * SAMPLE_RATE)]
        begin, end = _loud_part(guide[int(first * SAMPLE_RATE) :][: len(piece)], below)
        # Never most of a word.
        most = 0.6 * (group[0].end - first), 0.6 * (after - group[-1].start)
        begin = min(begin, int(most[0] * SAMPLE_RATE))
        end = max(end, len(piece) - int(most[1] * SAMPLE_RATE))
        place = int(first * SAMPLE_RATE) + begin
        kept = faded(piece[begin:end])
        if evened:
            kept *= peak / max(1e-4, np.abs(kept).max()) * amplitude(rng.uniform(-3, 3))
        passed[place : place + len(kept)] += kept
        group[0] = group[0]._replace(start=place / SAMPLE_RATE)
        group[-1] = group[-1]._replace(end=(place + len(kept)) / SAMPLE_RATE)
        cut += group
    return passed, cut


def hush(audio: Audio, rng: Generator) -> Audio:
    """Fricatives 3 to 24 dB weaker, as a dull microphone or a speaker turned away has them.

    They are the 10 ms that have most of their energy above 1.5 to 2.5 kHz.
    """
    low = _low_passed(audio, 2, rng.uniform(1500, 2500))
    count = len(audio) // FRAME
    if count < 2:
        return audio
    energies = [(x[: count * FRAME].reshape(-1, FRAME) ** 2).sum(1) for x in (low, audio)]
    share = np.convolve(1 - energies[0] / np.maximum(energies[1], 1e-9), np.ones(3) / 3, "same")
    weaker = amplitude(-rng.uniform(3, 24))
    gains = np.where(share > 0.5, weaker, np.float32(1))
    # Between the middles of the frames the gain changes evenly: no clicks.
    places = (np.arange(len(audio), dtype=np.float32) - FRAME / 2) / FRAME
    hushed: Audio = audio * np.interp(places, np.arange(count), gains).astype(np.float32)
    return hushed


def prolong(audio: Audio, words: Sequence[Word], rng: Generator) -> tuple[Audio, list[Word]]:
    """Words before a gap as people say them alone: at least ``ALONE`` long, stops released.

    Synthesisers do not, not even slow ones: their "eight" takes 0.2 s and ends with its vowel,
    that of people 0.3 to 0.45 s and ends with the burst of its t. A vowel of 0.15 s between two
    silences is what a gate leaves of people's "six".
    """
    audio = audio.copy()
    said: list[Word] = []
    follows = [*(word.start for word in words[1:]), len(audio) / SAMPLE_RATE]
    for word, after in zip(words, follows, strict=False):  # without words, one end remains
        first, end = int(word.start * SAMPLE_RATE), int(word.end * SAMPLE_RATE)
        gap = np.abs(audio[end : int(after * SAMPLE_RATE)]) > QUIET  # other words may be there
        room = (int(gap.argmax()) if gap.any() else len(gap)) - LEAST_ROOM
        if room > LEAST_ROOM and end - first > 4 * FRAME:
            piece = audio[first:end]
            wanted = int(np.exp(rng.uniform(*np.log(ALONE))) * SAMPLE_RATE)
            longer = int(len(piece) * np.exp(rng.uniform(0, np.log(PROLONGED))))
            most = min(int(MOST_PROLONGED * len(piece)), len(piece) + room)
            length = min(max(wanted, longer), most)
            if length > len(piece):
                kept = int(0.3 * len(piece))
                piece = np.concatenate((piece[:kept], stretch(piece[kept:], length - kept)))
            room -= len(piece) - (end - first)
            burst = _release(word.text, float(np.abs(piece).max(initial=0)), rng)
            if len(burst) < room and rng.random() < 0.7:
                piece = np.concatenate((piece, burst))
            audio[first : first + len(piece)] = piece
            word = word._replace(end=(first + len(piece)) / SAMPLE_RATE)
        said.append(word)
    return audio, said


def _release(text: str, peak: float, rng: Generator) -> Audio:
    """The closure and the burst of a stop at the end of a word; nothing after other sounds."""
    if text[-1] not in RELEASES:
        return np.zeros(0, np.float32)
    closure = np.zeros(int(rng.uniform(0.02, 0.1) * SAMPLE_RATE), np.float32)
    length = int(rng.uniform(0.02, 0.1) * SAMPLE_RATE)
    band = butter(2, RELEASES[text[-1]], "bandpass", fs=SAMPLE_RATE, output="sos")
    burst = sosfilt(band, rng.standard_normal(length)) * np.exp(-3 * np.arange(length) / length)
    burst *= peak * amplitude(-rng.uniform(8, 28)) / max(float(np.abs(burst).max()), 1e-9)
    return np.concatenate((closure, burst.astype(np.float32)))


def stretch(audio: Audio, length: int) -> Audio:
    """``audio`` in ``length`` samples at the same pitch (WSOLA, Verhelst and Roelands, 1993)."""
    frame, hop, most = 2 * FRAME, FRAME, FRAME // 2  # samples; ``most`` is how far one is moved
    window = np.hanning(frame + 1)[:-1].astype(np.float32)
    padded = np.pad(audio, (hop, frame + 2 * most))
    out = np.zeros(length + 2 * frame, np.float32)
    place = 0
    for first in range(0, length + hop, hop):
        if first:  # near where it belongs, what goes on most like the piece before
            wanted = int(first * len(audio) / length)
            low = max(0, min(wanted, len(padded) - frame) - most)
            around = padded[low : low + frame + 2 * most]
            goes_on = padded[place + hop : place + hop + frame]
            place = low + int(np.correlate(around, goes_on, "valid").argmax())
        piece = padded[place : place + frame]
        out[first : first + len(piece)] += window[: len(piece)] * piece
    return out[hop : hop + length]


def lose(audio: Audio, words: Sequence[Word], part: float, rng: Generator) -> Audio:
    """``part`` of the words without 20 to 60 ms, as where packets are lost.

    So that no sound of a word is needed: a "six" may lack its s, or the closure of its k.
    """
    kept = audio.copy()
    for word in words:
        if rng.random() < part:
            length = min(rng.uniform(0.02, 0.06), 0.25 * (word.end - word.start))
            first = int(rng.uniform(word.start, word.end - length) * SAMPLE_RATE)
            kept[first : first + int(length * SAMPLE_RATE)] *= 0.01
    return kept


def _low_passed(audio: Audio, order: int, hertz: float) -> Audio:
    limit = butter(order, hertz, fs=SAMPLE_RATE, output="sos")
    passed: Audio = sosfilt(limit, audio).astype(np.float32)
    return passed


def _groups(words: Sequence[Word]) -> list[list[Word]]:
    """Words with gaps between the groups, and none within them."""
    groups: list[list[Word]] = []
    for word in words:
        if groups and word.start - groups[-1][-1].end < LEAST_GAP:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _loud_part(audio: Audio, below: float) -> tuple[int, int]:
    """First and last sample of what is louder than ``below`` times the loudest 20 ms."""
    frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME)
    if len(frames) < 3:
        return 0, len(audio)
    level = np.sqrt(np.convolve((frames**2).mean(1), [0.5, 0.5], "same"))
    loud = np.flatnonzero(level >= level.max() * below)
    return max(0, int(loud[0]) - 1) * FRAME, min(len(audio), (int(loud[-1]) + 2) * FRAME)


def clip_peaks(audio: Audio, rng: Generator) -> Audio:
    """Overdriven: what is above 0.3 to 0.8 of the peak is cut off."""
    top = float(np.abs(audio).max(initial=0)) * rng.uniform(0.3, 0.8)
    clipped: Audio = np.clip(audio, -top, top).astype(np.float32)
    return clipped


# In the frequency domain.


def draw_channels(rows: int, acoustics: Acoustics, rng: Generator) -> Tensor:
    """[rows, 1, bins] power gains of telephones, narrow recordings and cheap microphones."""
    gains = [_channel(acoustics, rng) for _ in range(rows)]
    return torch.from_numpy(np.stack(gains)[:, None].astype(np.float32))


def _channel(acoustics: Acoustics, rng: Generator) -> NDArray[np.float64]:
    frequencies = np.asarray(MEL_BINS)
    kind = rng.random()
    low, high = 0.0, float(frequencies[-1]) + 1000
    if kind < acoustics.telephone:
        low, high = rng.uniform(150, 350), rng.uniform(3200, 3900)
    elif (kind := kind - acoustics.telephone) < acoustics.narrow:
        high = rng.uniform(3700, 4000)
    elif kind - acoustics.narrow < acoustics.microphone:
        low, high = rng.uniform(50, 300), rng.uniform(4500, 8000)
    slope = rng.uniform(0.02, 0.08)  # dB per Hz beyond the limits, down to -60 dB
    beyond = 2 * np.maximum(0, low - frequencies) + np.maximum(0, frequencies - high)
    gain: NDArray[np.float64] = 10 ** (-np.minimum(60, slope * beyond) / 10)
    return gain


def draw_filterbanks(rows: int, acoustics: Acoustics, rng: Generator) -> Tensor:
    """[rows, bins, N_MELS]: mel filters for vocal tracts of other lengths and shapes.

    A filter looks between the bins of the spectrum, where the voice of a shorter or longer tract
    has what its bins have. Formants do not move in step from one mouth to another: two smooth
    waves below 4 kHz move them apart.
    """
    usual = mel_filterbank().numpy()
    banks = np.zeros((rows, *usual.shape), np.float32)
    for bank in banks:
        warped = rng.random() < acoustics.warped
        factor = float(np.exp(rng.normal(0, acoustics.tract))) if warped else 1.0
        shape = acoustics.mouth * warped * np.clip(rng.standard_normal(2), -2, 2)
        hertz = _warp(_bent(MEL_BINS, shape), factor)
        places = np.minimum(hertz / MEL_BINS[1], len(usual) - 1 - 1e-6)
        low = places.astype(int)
        part = (places - low)[:, None].astype(np.float32)
        np.add.at(bank, low, (1 - part) * usual)
        np.add.at(bank, low + 1, part * usual)
    return torch.from_numpy(banks)


def _bent(frequencies: NDArray[np.float64], shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequencies moved by waves of half a period and of one period up to 4 kHz."""
    phase = np.minimum(frequencies / 4000, 1) * np.pi
    return frequencies * np.exp(shape[0] * np.sin(phase) + shape[1] * np.sin(2 * phase))


def _warp(frequencies: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """``factor`` times as high up to 5.6 kHz or less, then straight to where the axis ends."""
    top = frequencies[-1]
    knee = 0.7 * top / max(factor, 1)
    above = knee * factor + (frequencies - knee) * (top - knee * factor) / (top - knee)
    return np.where(frequencies < knee, frequencies * factor, above)


def draw_tilts(rows: int, acoustics: Acoustics, rng: Generator) -> Tensor:
    """[rows, 1, N_MELS]: a smooth random colouring in log10, some 3 dB strong at ``tilt`` 1."""
    x = np.linspace(-1, 1, N_MELS)
    waves = [0.15 * np.cos(np.pi * x), 0.15 * np.sin(2 * np.pi * x)]
    ripples = [0.08 * np.cos(np.pi * (k * x + (k % 2) / 2)) for k in (3, 4, 5, 6)]
    shapes = np.stack((0.25 * x, *waves, *ripples))
    tilt = acoustics.tilt * rng.standard_normal((rows, len(shapes))) @ shapes
    return torch.from_numpy(tilt[:, None].astype(np.float32))


def mask_bands(mel: Tensor, rng: Generator) -> None:
    """Sets up to two bands of at most 13 bins of each stream to the stream's mean, in place."""
    for stream in mel:
        for _ in range(rng.integers(0, 3)):
            low = int(rng.integers(0, N_MELS - 10))
            stream[:, low : low + int(rng.integers(1, 14))] = stream.mean()


def stretch_words(
    mel: Tensor, words: Sequence[Word], probability: float, rng: Generator, first: int = 0
) -> None:
    """Gives the thirds of words other shares of their time, in place; their ends stay.

    So vowels get longer where consonants get shorter, as no single synthesiser varies them.

    Args:
        mel: [frames, N_MELS]; ``first`` is the frame at which the seconds of ``words`` begin.
    """
    for word in words:
        begin = first + max(0, int(word.start * SAMPLE_RATE / FRAME))
        count = min(first + int(word.end * SAMPLE_RATE / FRAME), len(mel)) - begin
        if count < LEAST_STRETCHED or rng.random() >= probability:
            continue
        shares = np.exp(0.35 * rng.standard_normal(3))
        ends = np.cumsum([0, *shares]) / shares.sum()
        source = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, 4), ends) * (count - 1)
        low = np.minimum(source.astype(int), count - 2)
        part = torch.from_numpy((source - low).astype(np.float32))[:, None]
        said = mel[begin : begin + count]
        mel[begin : begin + count] = torch.lerp(said[low], said[low + 1], part)


def amplitude(decibels: float) -> np.float32:
    return np.float32(10 ** (decibels / 20))

"""Voice detection: how much of speech is found, how much of noise is called speech, at what cost.

    python benches/vad.py [--clips 40] [--seconds 60] [--json FILE]

Speech: the evaluation clips of tests/data, whose word times are known, alone and with noise of
their own RMS minus 20 to 0 dB. "Found" is the time of the words that lies in a span, "called
speech" the time more than 0.2 s from any word that does. Noise alone: the kinds of
benches/rejection.py, telephone keys, and the real recordings, whose speech is not marked: for those
the part that is called speech is shown.

Beside voxfast: webrtcvad at its strictest, where it is installed (``pip install
webrtcvad-wheels``).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from evaluation import REAL_FOLDER, load_eval_items
from rejection import KINDS, LEVELS_DB, make_noise, pink, white
from roofline import product_rate
from vad_reference import reference

from voxfast._native import _ext
from voxfast.audio import SAMPLE_RATE, load_audio
from voxfast.vad import FRAME_SECONDS, VoiceDetector, find_speech
from voxfast.vad.detector import load_layers

STEP = SAMPLE_RATE // 100  # samples of a cell: decisions are compared every 10 ms
NEAR = 20  # cells around a word that are neither speech nor noise
BELOW_DB = (20, 10, 5, 0)
KEYS = ((697, 770, 852, 941), (1209, 1336, 1477))

Audio = NDArray[np.float32]
Cells = NDArray[np.bool_]


class Clip(NamedTuple):
    """A recording, and for each 10 ms of it whether a word is spoken and whether none is near."""

    audio: Audio
    speech: Cells
    noise: Cells


def cells(spans: Iterator[tuple[float, float]], count: int) -> Cells:
    """``count`` cells of 10 ms, those in the spans true."""
    marked = np.zeros(count, bool)
    for start, end in spans:
        marked[round(100 * start) : round(100 * end)] = True
    return marked


def clips(limit: int) -> list[Clip]:
    """Evaluation clips with words."""
    found = []
    for item in load_eval_items()[:limit]:
        speech = cells(((w.start, w.end) for w in item.words), len(item.audio) // STEP)
        near = np.convolve(speech, np.ones(2 * NEAR + 1), "same") > 0
        found.append(Clip(item.audio, speech, ~near))
    return found


def with_noise(clip: Clip, kind: str, below_db: float, everything: list[Clip], seed: int) -> Clip:
    rng = np.random.default_rng((seed, *kind.encode()))
    if kind == "babble":
        # Four other clips, backwards.
        noise = np.zeros(len(clip.audio))
        for other in rng.choice(len(everything), 4, replace=False).tolist():
            noise += np.resize(everything[other].audio[::-1], len(noise))
    else:
        noise = {"white": white, "pink": pink}[kind](len(clip.audio), rng)
    loud = clip.audio[np.repeat(clip.speech, STEP).nonzero()]
    gain = 10 ** (-below_db / 20) * np.sqrt((loud**2).mean() / (noise**2).mean())
    return clip._replace(audio=np.clip(clip.audio + gain * noise, -1, 1).astype(np.float32))


def telephone_keys(seconds: float, seed: int) -> Audio:
    """Dual tones of 0.1 to 0.3 s with pauses."""
    rng, audio = np.random.default_rng(seed), np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    at = 0
    while at < len(audio):
        n = np.arange(int(rng.uniform(0.1, 0.3) * SAMPLE_RATE))
        tone = sum(np.sin(2 * np.pi * float(rng.choice(row)) / SAMPLE_RATE * n) for row in KEYS)
        audio[at : at + len(n)] = 0.1 * tone[: len(audio) - at]
        at += len(n) + int(rng.uniform(0.1, 0.5) * SAMPLE_RATE)
    return audio


# -- detectors: cells of a recording in which there is speech


def voxfast(audio: Audio) -> Cells:
    return cells(iter(find_speech(audio)), len(audio) // STEP)


def webrtc(audio: Audio) -> Cells:
    import webrtcvad

    detector, samples = webrtcvad.Vad(3), (audio * 32767).astype(np.int16)
    frames = len(samples) // STEP
    found = [
        detector.is_speech(samples[i * STEP : (i + 1) * STEP].tobytes(), SAMPLE_RATE)
        for i in range(frames)
    ]
    return np.array(found, bool)


def detectors() -> dict[str, Callable[[Audio], Cells]]:
    try:
        import webrtcvad  # noqa: F401
    except ImportError:
        print("webrtcvad is not installed: shown without it", file=sys.stderr)
        return {"voxfast": voxfast}
    return {"voxfast": voxfast, "webrtcvad": webrtc}


# -- rows


def speech_row(name: str, heard: list[Clip], detect: Callable[[Audio], Cells]) -> dict[str, Any]:
    spoken = found = quiet = wrong = 0
    for clip in heard:
        marked = detect(clip.audio)
        spoken, found = spoken + clip.speech.sum(), found + (marked & clip.speech).sum()
        quiet, wrong = quiet + clip.noise.sum(), wrong + (marked & clip.noise).sum()
    return {"source": name, "found": float(found / spoken), "called_speech": float(wrong / quiet)}


def noise_row(name: str, audio: Audio, detect: Callable[[Audio], Cells]) -> dict[str, Any]:
    return {"source": name, "found": None, "called_speech": float(detect(audio).mean())}


def rows(
    detect: Callable[[Audio], Cells], limit: int, seconds: float, seed: int
) -> Iterator[dict[str, Any]]:
    everything = clips(limit)
    yield speech_row("evaluation clips", everything, detect)
    for kind in ("white", "pink", "babble"):
        for below_db in BELOW_DB:
            noisy = [with_noise(clip, kind, below_db, everything, seed) for clip in everything]
            yield speech_row(f"with {kind} noise, {below_db} dB below", noisy, detect)
    yield noise_row("silence", np.zeros(int(seconds * SAMPLE_RATE), np.float32), detect)
    for kind in KINDS:
        for level_db in LEVELS_DB:
            audio = make_noise(kind, level_db, seconds, seed)
            yield noise_row(f"{kind}, {level_db} dBFS", audio, detect)
    yield noise_row("telephone keys", telephone_keys(seconds, seed), detect)
    for path in sorted(REAL_FOLDER.iterdir()):
        if path.suffix in (".flac", ".wav"):
            yield noise_row(f"{path.name} (speech)", load_audio(path), detect)


def cost(frames: int = 3000) -> dict[str, float]:
    """Of a detector that is fed 80 ms at a time, as a stream is, beside NumPy and the least."""
    rng = np.random.default_rng(1)
    audio = (0.1 * rng.standard_normal(frames * 512)).astype(np.float32)
    detector = VoiceDetector()
    detector.step(audio[:16000])
    begin = time.process_time()
    for start in range(0, len(audio), 1280):
        detector.step(audio[start : start + 1280])
    took = (time.process_time() - begin) / frames
    begin = time.process_time()
    reference(audio[: 500 * 512])
    layers, _, _ = load_layers()
    convs, (gates, _) = layers[:-1], layers[-1]
    # How often each convolution is applied to a frame.
    products = gates.size + sum(n * w.size for n, (w, _) in zip((4, 2, 1, 1), convs, strict=True))
    return {
        "cpu_seconds_per_frame": took,
        "part_of_a_core": took / FRAME_SECONDS,
        "numpy_seconds_per_frame": (time.process_time() - begin) / 500,
        "least_seconds_per_frame": products * _ext.num_threads() / product_rate(),
    }


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=60, help="of each noise (default 60)")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {
        name: list(rows(detect, args.clips, args.seconds, args.seed))
        for name, detect in detectors().items()
    }
    table = Table()
    table.add_column("source")
    for name in results:
        table.add_column(f"{name}\nfound", justify="right")
        table.add_column("called\nspeech", justify="right")
    for group in zip(*results.values(), strict=True):
        shown = [percent(row[key]) for row in group for key in ("found", "called_speech")]
        table.add_row(group[0]["source"], *shown)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    spent = cost()
    took, numpy, least = (spent[f"{name}_seconds_per_frame"] for name in ("cpu", "numpy", "least"))
    print(
        f"{1e6 * took:.0f} µs of CPU per frame of 32 ms, "
        f"{100 * spent['part_of_a_core']:.2f} % of a core\n"
        f"NumPy in float64: {numpy / took:.1f} times as long\n"
        f"{took / least:.1f} times the least: its products on one core at NumPy's float32 rate"
    )
    if args.json:
        args.json.write_text(json.dumps({"cost": spent, "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

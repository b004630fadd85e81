"""Word errors on people: the free spoken digit dataset, and words written where none is known.

    python benches/humans.py FOLDER [--model MODEL ...] [--clips 40] [--seed 8]
                             [--speakers NAME ...] [--others FOLDER] [--json FILE]

FOLDER is one of

- the dataset as it can be downloaded (github.com/Jakobovski/free-spoken-digit-dataset): its
  ``recordings/`` or the folder above, files ``{digit}_{speaker}_{index}.wav``, 8 kHz;
- one file per speaker: ``{speaker}.flac``, all recordings in a row, and ``{speaker}.json`` with
  ``items``, a list of [word, first sample, end].

Of each speaker, ``--clips`` clips of 2 to 6 random digits are joined: each digit cut to its audible
part and brought to the same peak, gaps of 0.03 to 0.4 s (half of them below 0.12 s), 0.4 s before
and 0.5 s after, and noise 60 dB below full scale. The draw of a speaker depends on the seed and on
the name alone, so a figure can be repeated. Qwen3-ASR is told the language.

``--others``: recordings of other words than a demonstration knows (by default those of
tests/data/real); every word that is written there is one too many, and they are counted per minute.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

import voxfast
from voxfast.audio import SAMPLE_RATE, load_audio
from voxfast.bench.scoring import align, normalise_words, score
from voxfast.timed import Word

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OTHERS = Path(__file__).parent.parent / "tests" / "data" / "real"
AUDIO_FILES = (".wav", ".flac")

FRAME = 160  # samples, 10 ms
AUDIBLE_DB = 32  # below the loudest 20 ms
PEAK = 0.6
FADE = 80  # samples, 5 ms
BEFORE, AFTER = 0.4, 0.5  # seconds
NOISE = 0.001  # RMS; full scale is 1

Audio = NDArray[np.float32]
Recordings = dict[str, dict[str, list[Audio]]]  # by speaker and word, 16 kHz


class Clip(NamedTuple):
    """Joined words: [N] float32 at 16 kHz, and their times in seconds."""

    audio: Audio
    words: list[Word]


def read_recordings(folder: Path) -> Recordings:
    """Everything in ``folder``, in either form.

    Raises:
        SystemExit: there is nothing of either form.
    """
    found: Recordings = defaultdict(lambda: defaultdict(list))
    inside = folder / "recordings"
    for path in sorted((inside if inside.is_dir() else folder).glob("?_*_*.wav")):
        digit, speaker, _ = path.stem.split("_")
        found[speaker][DIGITS[int(digit)]].append(audible(*soundfile.read(path, dtype="float32")))
    for path in sorted(folder.glob("*.json")):
        if not path.with_suffix(".flac").exists():
            continue
        audio, rate = soundfile.read(path.with_suffix(".flac"), dtype="float32")
        for word, first, end in json.loads(path.read_text(encoding="utf-8"))["items"]:
            found[path.stem][word].append(audible(audio[first:end], rate))
    for words in found.values():
        for takes in words.values():  # the same order in both forms
            takes.sort(key=lambda audio: (len(audio), float(audio.sum())))
    if not found:
        raise SystemExit(
            f"{folder} has no recordings: neither {{digit}}_{{speaker}}_{{index}}.wav nor "
            "{speaker}.flac with {speaker}.json"
        )
    return found


def audible(audio: Audio, rate: int) -> Audio:
    """The audible part at 16 kHz, its peak at 0.6."""
    audio = soxr.resample(audio, rate, SAMPLE_RATE, quality="HQ")
    frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME)
    level = np.sqrt(np.convolve((frames**2).mean(1), [0.5, 0.5], "same"))
    loud = np.flatnonzero(level > level.max() * 10 ** (-AUDIBLE_DB / 20))
    audio = audio[max(0, int(loud[0]) - 1) * FRAME : (int(loud[-1]) + 2) * FRAME]
    return audio * np.float32(PEAK / np.abs(audio).max())


def join_words(pieces: list[tuple[str, Audio]], rng: np.random.Generator) -> Clip:
    """The ``pieces`` with gaps, silence around them, and a little noise."""
    ramp = np.linspace(0, 1, FADE, dtype=np.float32)
    parts, words, time = [np.zeros(int(BEFORE * SAMPLE_RATE), np.float32)], [], BEFORE
    for word, audio in pieces:
        audio = audio.copy()
        audio[:FADE] *= ramp
        audio[-FADE:] *= ramp[::-1]
        end = time + len(audio) / SAMPLE_RATE
        words.append(Word(word, time, end))
        gap = rng.uniform(0.03, 0.12) if rng.random() < 0.5 else rng.uniform(0.1, 0.4)
        parts += [audio, np.zeros(int(gap * SAMPLE_RATE), np.float32)]
        time = end + len(parts[-1]) / SAMPLE_RATE
    joined = np.concatenate([*parts, np.zeros(int(AFTER * SAMPLE_RATE), np.float32)])
    noise = NOISE * rng.standard_normal(len(joined))
    return Clip((joined + noise).astype(np.float32), words)


def draw_clips(
    speaker: str, recordings: dict[str, list[Audio]], count: int, seed: int
) -> Iterator[Clip]:
    rng = np.random.default_rng((seed, *speaker.encode()))
    known = sorted(recordings)
    for _ in range(count):
        pieces = []
        for _ in range(int(rng.integers(2, 7))):
            word = known[int(rng.integers(len(known)))]
            takes = recordings[word]
            pieces.append((word, takes[int(rng.integers(len(takes)))]))
        yield join_words(pieces, rng)


def figures(clips: list[Clip], heard: list[list[Word]]) -> dict[str, Any]:
    """A row of the table, with how often which words were taken for which."""
    result = score([clip.words for clip in clips], heard)
    confusions: Counter[str] = Counter()
    for clip, words in zip(clips, heard, strict=True):
        confusions += _confusions(clip.words, words, align(clip.words, words)[0])
    return {
        "words": result.n_words,
        "word_error_rate": result.word_error_rate,
        "end_error": result.end.mean_absolute,
        "end_bias": result.end.bias,
        "confusions": dict(confusions.most_common(12)),
    }


def _confusions(
    said: list[Word], heard: list[Word], pairs: list[tuple[Word, Word]]
) -> Counter[str]:
    """What stands between each two pairs of equal words: "five>four", "two>", ">on"."""
    counts: Counter[str] = Counter()
    i = j = 0
    for true, found in [*pairs, (None, None)]:
        after_i = len(said) if true is None else said.index(true, i)
        after_j = len(heard) if found is None else heard.index(found, j)
        left, right = said[i:after_i], heard[j:after_j]
        for place in range(max(len(left), len(right))):
            one = left[place].text if place < len(left) else ""
            other = right[place].text if place < len(right) else ""
            counts[f"{one}>{other}"] += 1
        i, j = after_i + 1, after_j + 1
    return counts


def run(model: voxfast.Model, sets: dict[str, list[Clip]]) -> dict[str, dict[str, Any]]:
    """The rows of one model: each speaker, and all of them."""
    heard = {
        speaker: [transcribe(model, clip.audio) for clip in clips]
        for speaker, clips in sets.items()
    }
    rows = {speaker: figures(clips, heard[speaker]) for speaker, clips in sets.items()}
    rows["all"] = figures(
        list(chain.from_iterable(sets.values())), list(chain.from_iterable(heard.values()))
    )
    return rows


def transcribe(model: voxfast.Model, audio: Audio) -> list[Word]:
    options: dict[str, Any] = {} if model.delays_ms else {"language": "en"}
    return normalise_words(voxfast.transcribe(audio, model=model, **options).words)


def written_per_minute(model: voxfast.Model, folder: Path) -> float:
    """Words that are written for all recordings of the folder."""
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in AUDIO_FILES]
    if not paths:
        raise SystemExit(f"{folder} has no {' or '.join(AUDIO_FILES)} files")
    audios = [load_audio(path) for path in paths]
    words = sum(len(transcribe(model, audio)) for audio in audios)
    return 60 * words * SAMPLE_RATE / sum(map(len, audios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=[voxfast.DEFAULT_MODEL])
    parser.add_argument("--clips", type=int, default=40, help="of each speaker (default 40)")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--speakers", nargs="+", help="only these")
    parser.add_argument("--others", type=Path, default=OTHERS, help="recordings of other words")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    recordings = read_recordings(args.folder)
    if unknown := set(args.speakers or ()) - set(recordings):
        parser.error(f"no speaker {', '.join(sorted(unknown))}: there are {', '.join(recordings)}")
    sets = {
        speaker: list(draw_clips(speaker, recordings[speaker], args.clips, args.seed))
        for speaker in args.speakers or sorted(recordings)
    }
    document: dict[str, Any] = {"seed": args.seed, "clips": args.clips, "models": {}}
    print("model  speaker  words  WER  word ends, mean (bias)")
    for name in args.model:
        with voxfast.load(name) as model:
            rows = run(model, sets)
            others = written_per_minute(model, args.others)
        for speaker, row in rows.items():
            print(f"{name}  {speaker}  {row['words']}  {row['word_error_rate']:.1%}  "
                  f"{1000 * row['end_error']:.0f} ms ({1000 * row['end_bias']:+.0f})")  # fmt: skip
        most = rows["all"]["confusions"]
        print(f"{name}  most frequent: {', '.join(f'{pair} {most[pair]}' for pair in most)}")
        print(f"{name}  other words: {others:.1f} written per minute", flush=True)
        document["models"][name] = {"speakers": rows, "others_per_minute": others}
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

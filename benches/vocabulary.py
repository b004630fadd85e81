"""A vocabulary: words found that were missed, others' errors, false insertions, and what it costs.

    python benches/vocabulary.py DATASET [--model MODEL ...] [--words WORD ...] [--weight 4 ...]
                                 [--distractors 0 10 100 1000] [--as-prompt] [--noise-db DB]
                                 [--limit N] [--without FOLDER] [--minutes 60] [--timed 60]
                                 [--seed 8] [--json FILE]
    python benches/vocabulary.py tests/data/eval/eval.json --noise-db 6
    python benches/vocabulary.py runs/rare/eval_speakers/eval_clean.json
        --model runs/rare/checkpoint
        --words $(python -c "from tools.train.grammar import RARE; print(*RARE)")

DATASET is one of ``voxfast bench``: a folder in LibriSpeech's layout, or clips with a manifest.
``--words`` are the rare words, which the vocabulary lists; by default those that the model misses
at least twice without one. ``--noise-db`` adds white noise at this ratio of speech to noise, so
that a model misses words that it knows. Distractors are made-up words of English syllables.

For each weight and number of distractors:

- recall of the rare words, before and after, and the part of the missed ones that was found;
- errors in all other words per word, before and after: substitutions, deletions, and insertions
  of words that are not rare;
- false insertions: words of the vocabulary, distractors too, where nobody said them, before and
  after: in clips in which a rare word is said, and where none is, in the other clips and in the
  recordings of ``--without``;
- processor time with the vocabulary, relative to that without: of ``--timed`` of the clips, fed in
  blocks of 320 ms, with and without in turn; median of the clips' ratios, and that of the sums.

``--as-prompt`` gives the rare words and distractors to Qwen3-ASR as context in its prompt, too.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import voxfast
from voxfast.audio import SAMPLE_RATE, load_audio
from voxfast.bench.dataset import load_dataset
from voxfast.bench.extras import need
from voxfast.bench.scoring import normalise, normalise_words
from voxfast.models.vocabulary import DEFAULT_WEIGHT

AUDIO_FILES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")
SYLLABLES = [
    "ba", "ben", "cor", "da", "del", "fen", "fin", "gal", "gor", "hel", "in", "ka", "ker", "lan",
    "lo", "mar", "mi", "mon", "nel", "no", "par", "pen", "ra", "rin", "sal", "sen", "ta", "ter",
    "tor", "va", "vel", "win", "zo",
]  # fmt: skip

BLOCK = 5120  # samples, 320 ms

Audio = NDArray[np.float32]


class Clip(NamedTuple):
    """[N] float32 at 16 kHz, and the words that are said."""

    audio: Audio
    words: list[str]


class Outcome(NamedTuple):
    """What became of the clips.

    Attributes:
        said: rare words in the references, with how often.
        found: those that were recognised.
        other_words, other_errors: of words that are not rare.
        false: words of the vocabulary that nobody said, in clips that have a rare word; and
        false_without: in the others.
    """

    said: Counter[str]
    found: Counter[str]
    other_words: int
    other_errors: int
    false: int
    false_without: int


def read_clips(args: argparse.Namespace) -> list[Clip]:
    """The clips of the data set, with noise if it is asked for."""
    rng = np.random.default_rng(args.seed)
    clips = []
    for clip in load_dataset(args.dataset, args.limit):
        audio = load_audio(clip.path)
        if args.noise_db is not None:
            level = np.sqrt(np.mean(audio**2)) * 10 ** (-args.noise_db / 20)
            audio = (audio + level * rng.standard_normal(len(audio))).astype(np.float32)
        clips.append(Clip(audio, normalise(clip.text).split()))
    return clips


def distractors(count: int, seed: int, known: set[str]) -> list[str]:
    """Made-up words of two to four syllables, none of them in ``known``."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        word = "".join(rng.choice(SYLLABLES, rng.integers(2, 5)))
        if word not in known:
            found[word] = None
    return list(found)


def transcribe(model: voxfast.Model, audio: Audio, options: dict[str, Any]) -> list[str]:
    """The words. Blocks would not show in them."""
    with model.session(**options) as session:
        words = [*session.feed(audio), *session.finish()]
    return [word.text for word in normalise_words(words)]


def seconds(model: voxfast.Model, audio: Audio, options: dict[str, Any]) -> float:
    """Processor time of a stream; the vocabulary is compiled before."""
    with model.session(**options) as session:
        begin = time.process_time()
        for at in range(0, len(audio), BLOCK):
            session.feed(audio[at : at + BLOCK])
        session.finish()
        return time.process_time() - begin


def ratios(
    model: voxfast.Model, audios: Sequence[Audio], plain: dict[str, Any], options: dict[str, Any]
) -> NDArray[np.float64]:
    """[N, 2] seconds without the vocabulary and with it; neither is always the first."""
    spent = np.zeros((len(audios), 2))
    for number, audio in enumerate(track(audios, "processor time")):
        for which in (0, 1) if number % 2 else (1, 0):
            spent[number, which] = seconds(model, audio, options if which else plain)
    return spent


def judge(
    clips: Sequence[Clip],
    heard: Sequence[list[str]],
    rare: set[str],
    listed: set[str],
) -> Outcome:
    """Compare clips with what was written."""
    said, found = Counter[str](), Counter[str]()
    others = errors = 0
    false = [0, 0]
    for clip, words in zip(clips, heard, strict=True):
        said.update(word for word in clip.words if word in rare)
        others += sum(word not in rare for word in clip.words)
        for kind, one, other in aligned(clip.words, words):
            if kind == "equal":
                found.update({one} & rare)
                continue
            errors += bool(one) and one not in rare
            errors += not one and other not in rare
            false[rare.isdisjoint(clip.words)] += other in listed
    return Outcome(said, found, others, errors, *false)


def aligned(said: list[str], heard: list[str]) -> list[tuple[str, str, str]]:
    """(kind of edit, said word, heard word); "" stands for none."""
    if not said or not heard:
        return [("delete", word, "") for word in said] + [("insert", "", word) for word in heard]
    steps = []
    for chunk in need("jiwer").process_words(" ".join(said), " ".join(heard)).alignments[0]:
        ones = said[chunk.ref_start_idx : chunk.ref_end_idx]
        others = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for i in range(max(len(ones), len(others))):
            one, other = (words[i] if i < len(words) else "" for words in (ones, others))
            steps.append((chunk.type, one, other))
    return steps


def missed_words(clips: Sequence[Clip], heard: Sequence[list[str]], least: int = 2) -> list[str]:
    """Words that were said and not recognised, at least so often."""
    counts = Counter(
        one
        for clip, words in zip(clips, heard, strict=True)
        for kind, one, _ in aligned(clip.words, words)
        if one and kind != "equal"
    )
    return sorted(word for word, count in counts.items() if count >= least)


def listed_words(
    model: voxfast.Model, audios: Sequence[Audio], listed: set[str], options: dict[str, Any]
) -> int:
    """How many words of the vocabulary are written."""
    return sum(word in listed for audio in audios for word in transcribe(model, audio, options))


def read_without(folder: Path, minutes: float) -> list[Audio]:
    """Recordings in which no word of the vocabulary is said, at most so many minutes."""
    audios, left = [], minutes * 60 * SAMPLE_RATE
    for path in sorted(folder.rglob("*")):
        if path.suffix in AUDIO_FILES and left > 0:
            audios.append(load_audio(path)[: int(left)])
            left -= len(audios[-1])
    if not audios:
        raise SystemExit(f"{folder} has no {', '.join(AUDIO_FILES)} files")
    return audios


def run(model: voxfast.Model, clips: list[Clip], args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each weight and number of distractors."""
    usual: dict[str, Any] = {} if model.delays_ms else {"language": "en"}
    plain = [transcribe(model, clip.audio, usual) for clip in track(clips, model.name)]
    rare = args.words or missed_words(clips, plain)
    if not rare:
        raise SystemExit("no word is missed twice: name --words, or add noise with --noise-db")
    print(f"{model.name}: {len(rare)} rare words: {' '.join(rare)}")
    without = read_without(args.without, args.minutes) if args.without else []
    others = [clip.audio for clip in clips if set(rare).isdisjoint(clip.words)]
    hours = sum(map(len, [*others, *without])) / SAMPLE_RATE / 3600
    known = {word for clip in clips for word in clip.words}
    places = np.linspace(0, len(clips), min(args.timed, len(clips)), endpoint=False).astype(int)
    timed = [clips[place].audio for place in places]
    rows = []
    for weight in args.weight:
        for count in args.distractors:
            entries = [*rare, *distractors(count, args.seed, known | set(rare))]
            options = {**usual, "vocabulary": [(word, weight) for word in entries]}
            if args.as_prompt:
                options["prompt"] = ", ".join(entries)
            title = f"{weight:g} nats, {count} more"
            heard = [transcribe(model, clip.audio, options) for clip in track(clips, title)]
            listed = set(entries)
            before, after = (judge(clips, words, set(rare), listed) for words in (plain, heard))
            false = [
                one.false_without + listed_words(model, without, listed, given)
                for one, given in ((before, usual), (after, options))
            ]
            spent = ratios(model, timed, usual, options)
            rows.append(row(weight, count, before, after, false, hours, spent))
    return rows


def row(
    weight: float,
    count: int,
    before: Outcome,
    after: Outcome,
    false: list[int],
    hours: float,
    spent: NDArray[np.float64],
) -> dict[str, Any]:
    said = before.said.total()
    missed = said - before.found.total()
    return {
        "weight": weight,
        "distractors": count,
        "said": said,
        "recall_before": before.found.total() / max(1, said),
        "recall_after": after.found.total() / max(1, said),
        "found_of_missed": (after.found.total() - before.found.total()) / max(1, missed),
        "other_words": before.other_words,
        "other_errors_before": before.other_errors / max(1, before.other_words),
        "other_errors_after": after.other_errors / max(1, after.other_words),
        "false_beside_before": before.false,
        "false_beside_after": after.false,
        "false_without_before": false[0],
        "false_without_after": false[1],
        "hours_without": hours,
        "time": float(np.median(spent[:, 1] / spent[:, 0])) if len(spent) else None,
        "time_of_sums": spent[:, 1].sum() / spent[:, 0].sum() if len(spent) else None,
    }


def table(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table(title=name)
    for title in (
        "weight", "distractors", "recall of rare words", "of missed ones found",
        "errors in other words", "false insertions", "without any", "hours", "time",
    ):  # fmt: skip
        shown.add_column(title, justify="right")
    for one in rows:
        shown.add_row(
            f"{one['weight']:g}",
            str(one["distractors"]),
            f"{one['recall_before']:.1%} → {one['recall_after']:.1%} of {one['said']}",
            f"{one['found_of_missed']:.0%}",
            f"{one['other_errors_before']:.2%} → {one['other_errors_after']:.2%}",
            f"{one['false_beside_before']} → {one['false_beside_after']}",
            f"{one['false_without_before']} → {one['false_without_after']}",
            f"{one['hours_without']:.2f}",
            "–" if one["time"] is None else f"{one['time']:.3f} ({one['time_of_sums']:.3f})",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", nargs="+", default=[voxfast.DEFAULT_MODEL])
    parser.add_argument("--words", nargs="+", help="the rare words")
    parser.add_argument("--weight", nargs="+", type=float, default=[DEFAULT_WEIGHT])
    parser.add_argument("--distractors", nargs="+", type=int, default=[0, 10, 100, 1000])
    parser.add_argument("--as-prompt", action="store_true", help="for Qwen3-ASR, in its prompt too")
    parser.add_argument("--noise-db", type=float, help="ratio of speech to white noise")
    parser.add_argument("--limit", type=int, help="clips")
    parser.add_argument("--without", type=Path, help="recordings without the words")
    parser.add_argument("--minutes", type=float, default=60, help="of them at most")
    parser.add_argument("--timed", type=int, default=60, help="clips that are timed; 0: none")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    clips = read_clips(args)
    document: dict[str, Any] = {"seed": args.seed, "noise_db": args.noise_db, "models": {}}
    for name in args.model:
        with voxfast.load(name) as model:
            rows = document["models"][name] = run(model, clips, args)
        Console(width=120).print(table(name, rows))
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

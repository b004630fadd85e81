"""``voxfast align-heads``: measure which heads of a Qwen3-ASR checkpoint follow the audio."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxfast.cli import options
from voxfast.cli.console import UsageError, note, progress_bar, say

if TYPE_CHECKING:
    from voxfast.bench.attended import AttendedClip
    from voxfast.bench.dataset import Clip
    from voxfast.bench.word_timing import TimingScores
    from voxfast.models.qwen3_asr.heads import AlignmentHeads

_EPILOG = """\
The clips are a data set whose words have times: JSON with a list "items" of
  {"file": "a.wav", "text": "hello", "words": [{"word": "hello", "start": 0.3, "end": 0.6}]},
files relative to it, times in seconds. A hundred short clips of one language will do.

Without "words", the heads that are known for the checkpoint are kept, and only the margins of
words are measured, at the pauses that the voice detector finds in the clips.

examples:
  voxfast align-heads --model ./my-qwen3-asr clips.json
  voxfast align-heads --model qwen3-asr-0.6b clips.json -o heads.json --figure heads.png
"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "align-heads",
        help="find the heads of a Qwen3-ASR checkpoint that follow the audio",
        description="Transcribe clips whose word times are known, ask every head of the decoder "
        "where in the audio it looks for each word, and write down the heads that look at the "
        "right place, best first, and how far words reach around it. Streaming with Qwen3-ASR "
        "needs them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIPS.json")
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="a folder, an alias, or owner/name"
    )
    parser.add_argument("--dtype", choices=options.DTYPES, default="auto", help="default: its own")
    parser.add_argument("--language", metavar="CODE", help="what is spoken; default: it says so")
    parser.add_argument(
        "--limit", type=options.in_range(1, 10**9), metavar="N", help="only the first clips"
    )
    parser.add_argument(
        "--max-seconds",
        type=options.in_range(1, 1200),
        default=30,
        metavar="S",
        help="leave longer clips out (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="FILE",
        help="default: alignment_heads.json in the model's folder, where sessions find it",
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the map of all heads")
    options.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and write; returns the exit code."""
    from voxfast.audio import duration
    from voxfast.bench.attended import attend
    from voxfast.bench.dataset import load_dataset
    from voxfast.bench.extras import need
    from voxfast.errors import CheckpointError
    from voxfast.hub import resolve
    from voxfast.models.qwen3_asr.config import is_qwen3_asr
    from voxfast.models.qwen3_asr.heads import FILE
    from voxfast.models.qwen3_asr.languages import requested_language
    from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
    from voxfast.models.qwen3_asr.weights import load_qwen3_asr
    from voxfast.models.traits import read_traits

    # Whatever can be wrong is looked at before a large model is loaded.
    language = requested_language(args.language)
    if args.figure:
        need("matplotlib")
    clips = [clip for path in args.clips for clip in load_dataset(path)]
    lengths = {clip: duration(clip.path) or 0.0 for clip in clips}
    short = [clip for clip in clips if lengths[clip] <= args.max_seconds][: args.limit]
    if not short:
        raise UsageError(f"no clip is of {args.max_seconds} s or less; see --max-seconds")
    is_timed = _is_timed(short)
    folder = resolve(args.model)
    if not is_qwen3_asr(folder):
        raise CheckpointError(f"{args.model}: only Qwen3-ASR has alignment heads, and this is none")
    known = None if is_timed else _known_heads(folder, args)
    output = args.output or folder / FILE
    # Only what is missing is added to a file that is there.
    adds = known is not None and known.source == output and known.timing is None
    if args.output is None and output.exists() and not adds:
        raise UsageError(f"{output} is there already; --output names another file")

    model = load_qwen3_asr(folder, options.chosen_dtype(args.dtype))
    tokenizer = Qwen3ASRTokenizer(folder, model.args.text.vocab_size)
    with _progress(sum(lengths[clip] for clip in short), args) as progress:
        heard = attend(model, tokenizer, short, language=language, done=progress)
    if known is None:
        _write_heads(heard, folder, output, args.figure)
    else:
        _write_timing(heard, known, output)
    if args.output is None and read_traits(folder).attention is not None:
        note(f"voxfast: voxfast.json in {folder} has word times of its own, which sessions use")
    return 0


def _is_timed(clips: "Sequence[Clip]") -> bool:
    """Whether the data set gives the times of its words.

    Raises:
        DatasetError: if it does for some clips only.
    """
    from voxfast.errors import DatasetError

    untimed = [clip for clip in clips if clip.words is None]
    if untimed and len(untimed) < len(clips):
        raise DatasetError(
            f"{untimed[0].path}: the data set gives no times of its words, but those of other clips"
        )
    return not untimed


def _known_heads(folder: Path, args: argparse.Namespace) -> "AlignmentHeads":
    """The heads of the checkpoint, where the clips cannot tell them.

    Raises:
        UsageError: if they are not known.
    """
    from voxfast.models.checkpoint import read_json
    from voxfast.models.qwen3_asr.heads import find_alignment_heads

    if args.figure:
        raise UsageError("--figure shows the heads, which only word times can tell")
    known = find_alignment_heads(folder, read_json(folder / "config.json"))
    if known is None:
        raise UsageError(
            f"the alignment heads of {args.model} are not known, and to measure them the data set "
            'must give the times of its words ("words")'
        )
    return known


def _write_heads(
    heard: "Sequence[AttendedClip]", folder: Path, output: Path, figure: Path | None
) -> None:
    """Measure the heads and the timing of words, and write both."""
    from voxfast.bench.heads import draw_heads, measure_heads
    from voxfast.bench.word_timing import measure_timing
    from voxfast.models.qwen3_asr.options import Qwen3Tuning

    scores = measure_heads(heard)
    timing = measure_timing(heard, scores.listed()[: Qwen3Tuning().n_heads])
    output.write_text(scores.as_json(folder.name, timing), encoding="utf-8")
    for layer, head in scores.ranking()[:10]:
        share, error = scores.shares[layer, head], scores.errors[layer, head]
        say(f"layer {layer:2d}, head {head:2d}: {100 * share:5.1f} % of the words, {error:.3f} s\n")
    say(f"{output}: {len(scores.listed())} heads, from {scores.n_words} words\n")
    if scores.n_words < 0.5 * scores.n_spoken:
        note(f"voxfast: only {scores.n_words} of {scores.n_spoken} words were recognised")
    _tell(timing)
    if figure:
        title = f"{folder.name}: share of {scores.n_words} words that each head finds"
        draw_heads(scores, figure, title)
        say(f"{figure}\n")


def _write_timing(heard: "Sequence[AttendedClip]", known: "AlignmentHeads", output: Path) -> None:
    """Measure the timing of words, and write it with the heads that are known.

    Raises:
        DatasetError: if too few pauses were found.
    """
    from voxfast.bench.heads import lines_of_json
    from voxfast.bench.word_timing import LEAST_EDGES, measure_timing
    from voxfast.errors import DatasetError
    from voxfast.models.checkpoint import read_json
    from voxfast.models.qwen3_asr.options import Qwen3Tuning

    timing = measure_timing(heard, known.heads[: Qwen3Tuning().n_heads])
    if timing is None:
        raise DatasetError(
            f"the clips have fewer than {LEAST_EDGES} pauses behind and before words that were "
            "recognised; give more clips, or the times of their words"
        )
    output.write_text(lines_of_json(read_json(known.source) | timing.as_json()), encoding="utf-8")
    say(f"{output}: {len(known.heads)} heads, as they were known\n")
    _tell(timing)


def _tell(scores: "TimingScores | None") -> None:
    if scores is None:
        note("voxfast: too few words to measure how far they reach around what is attended to")
        return
    say(
        f"words begin {scores.timing.start_lead:.3f} s before the audio attended to, and end "
        f"{scores.timing.end_trail:.3f} s behind its start: medians of {scores.n_starts} and "
        f"{scores.n_ends} words, from {scores.source}\n"
    )


@contextlib.contextmanager
def _progress(total: float, args: argparse.Namespace) -> Iterator[Callable[[float], None]]:
    """What is told of every clip that is done; a bar where somebody looks at one."""
    if args.quiet or not sys.stderr.isatty():
        yield lambda seconds: None
        return
    done = 0.0
    with progress_bar("measuring", total) as show:

        def add(seconds: float) -> None:
            nonlocal done
            done += seconds
            show(done)

        yield add

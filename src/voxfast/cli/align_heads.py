"""``voxfast align-heads``: measure which heads of a Qwen3-ASR checkpoint follow the audio."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from voxfast.cli import options
from voxfast.cli.console import UsageError, note, progress_bar, say

_EPILOG = """\
The clips are a data set whose words have times: JSON with a list "items" of
  {"file": "a.wav", "text": "hello", "words": [{"word": "hello", "start": 0.3, "end": 0.6}]},
files relative to it, times in seconds. A hundred short clips of one language will do.

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
        "right place, best first. Streaming with Qwen3-ASR needs them.",
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
    from voxfast.bench.dataset import load_dataset
    from voxfast.bench.extras import need
    from voxfast.bench.heads import draw_heads, measure_heads
    from voxfast.errors import CheckpointError
    from voxfast.hub import resolve
    from voxfast.models.qwen3_asr.config import is_qwen3_asr
    from voxfast.models.qwen3_asr.heads import FILE
    from voxfast.models.qwen3_asr.languages import requested_language
    from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
    from voxfast.models.qwen3_asr.weights import load_qwen3_asr

    # Whatever can be wrong is looked at before a large model is loaded.
    language = requested_language(args.language)
    if args.figure:
        need("matplotlib")
    clips = [clip for path in args.clips for clip in load_dataset(path)]
    lengths = {clip: duration(clip.path) or 0.0 for clip in clips}
    short = [clip for clip in clips if lengths[clip] <= args.max_seconds][: args.limit]
    if not short:
        raise UsageError(f"no clip is of {args.max_seconds} s or less; see --max-seconds")
    folder = resolve(args.model)
    if not is_qwen3_asr(folder):
        raise CheckpointError(f"{args.model}: only Qwen3-ASR has alignment heads, and this is none")
    output = args.output or folder / FILE
    if args.output is None and output.exists():
        raise UsageError(f"{output} is there already; --output names another file")

    model = load_qwen3_asr(folder, options.chosen_dtype(args.dtype))
    tokenizer = Qwen3ASRTokenizer(folder, model.args.text.vocab_size)
    with _progress(sum(lengths[clip] for clip in short), args) as progress:
        scores = measure_heads(model, tokenizer, short, language=language, done=progress)
    output.write_text(scores.as_json(folder.name), encoding="utf-8")
    for layer, head in scores.ranking()[:10]:
        share, error = scores.shares[layer, head], scores.errors[layer, head]
        say(f"layer {layer:2d}, head {head:2d}: {100 * share:5.1f} % of the words, {error:.3f} s\n")
    say(f"{output}: {len(scores.listed())} heads, from {scores.n_words} words\n")
    if scores.n_words < 0.5 * scores.n_spoken:
        note(f"voxfast: only {scores.n_words} of {scores.n_spoken} words were recognised")
    if args.figure:
        title = f"{folder.name}: share of {scores.n_words} words that each head finds"
        draw_heads(scores, args.figure, title)
        say(f"{args.figure}\n")
    return 0


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

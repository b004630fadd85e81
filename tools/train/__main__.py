"""Makes a checkpoint from nothing: ``python -m tools.train --out DIR``; see README.md.

Every step leaves its result in a folder of DIR. Pools, evaluation set and tokenizer are kept as
they are once made; training resumes where it was saved; export and verification are repeated.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from .checkpoint import TOKENIZER, save_checkpoint
from .config import Recipe
from .evalset import write_eval_set
from .pool import Pool, write_pool
from .speech import HELD_OUT_VARIANTS, TRAINING_VARIANTS, voice_names
from .tokenizer import MERGES, load_tokenizer, word_tokens, write_tokenizer
from .trainer import Trainer
from .verify import verify

STEPS = ("tokenizer", "pool", "dev", "eval", "train", "verify")
VERIFIED_DELAYS = (3, 6, 12)

SMOKE = Recipe(
    seconds=20, hours=0.02, dev_hours=0.01, threads=1, compile=False, batch=2, positions=100,
    warm_up=5, report_every=15, dev_clips=2, dev_seconds=3, short_clips=3, long_seconds=10,
)  # fmt: skip


class Run:
    """The steps of one recipe in the folder ``out``."""

    def __init__(self, out: Path, recipe: Recipe) -> None:
        self._out, self._recipe = out, recipe
        self._checkpoint = out / "checkpoint"

    def tokenizer(self) -> None:
        def make(folder: Path) -> str:
            return f"{write_tokenizer(folder / TOKENIZER)} tokens"

        _once(self._out / "tokenizer", {"merges": MERGES}, make)

    def pool(self) -> None:
        self._pool("pool", self._recipe.hours, TRAINING_VARIANTS, 1)

    def dev(self) -> None:
        self._pool("dev", self._recipe.dev_hours, HELD_OUT_VARIANTS, 2)

    def _pool(self, name: str, hours: float, variants: Sequence[str], offset: int) -> None:
        seed = 1000 * self._recipe.seed + offset
        voices = voice_names(variants)
        settings = {"hours": hours, "seed": seed, "voices": voices}
        _once(self._out / name, settings, lambda at: write_pool(at, hours, voices, seed))

    def eval(self) -> None:
        recipe = self._recipe
        settings = {
            "short_clips": recipe.short_clips,
            "long_seconds": recipe.long_seconds,
            "seed": 1000 * recipe.seed + 3,
            "avoids": {"hours": recipe.hours},  # the sentences of this pool
        }

        def make(folder: Path) -> str:
            known = Pool(self._out / "pool").sentences()
            return write_eval_set(
                folder, recipe.short_clips, recipe.long_seconds, known, 1000 * recipe.seed + 3
            )

        _once(self._out / "eval", settings, make)

    def train(self) -> None:
        folder = self._out / "train"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps(asdict(self._recipe), indent=1) + "\n")
        path = self._out / "tokenizer" / TOKENIZER
        tokenizer = load_tokenizer(path)
        trainer = Trainer(folder, self._recipe)
        model = trainer.run(
            Pool(self._out / "pool"), Pool(self._out / "dev"), tokenizer, word_tokens(tokenizer)
        )
        self._checkpoint.mkdir(exist_ok=True)
        print(f"  exported: {save_checkpoint(self._checkpoint, model)}")
        shutil.copyfile(path, self._checkpoint / TOKENIZER)

    def verify(self) -> None:
        verify(self._checkpoint, self._out / "eval", self._out / "results.json", VERIFIED_DELAYS)


def _once(folder: Path, settings: dict[str, object], make: Callable[[Path], str]) -> None:
    """Makes ``folder`` unless it was made before with the same settings.

    Raises:
        SystemExit: it was made with other settings.
    """
    note = "made_with.json"
    if (folder / note).exists():
        if json.loads((folder / note).read_text(encoding="utf-8")) != settings:
            raise SystemExit(f"{folder} was made with other settings: delete it, or choose --out")
        print("  kept")
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    print(f"  {make(partial)}")
    (partial / note).write_text(json.dumps(settings) + "\n", encoding="utf-8")
    partial.rename(folder)


def _parse() -> argparse.Namespace:
    default = Recipe()
    parser = argparse.ArgumentParser(prog="python -m tools.train", description=__doc__)
    add = parser.add_argument
    names = ", ".join(STEPS)
    add("steps", nargs="*", metavar="STEP", help=f"steps to run, by default all: {names}")
    add("--out", type=Path, required=True, help="folder for all results")
    add("--seconds", type=float, help=f"training time (default {default.seconds:.0f})")
    add("--hours", type=float, help=f"speech to synthesise (default {default.hours})")
    add("--seed", type=int, help=f"(default {default.seed})")
    add("--threads", type=int, help=f"(default {default.threads})")
    add("--no-compile", dest="compile", action="store_const", const=False,
        help="train without torch.compile, which needs a C++ compiler")  # fmt: skip
    add("--smoke", action="store_true",
        help="a tiny run: proves that everything runs, not that it learns")  # fmt: skip
    options = parser.parse_args()
    if unknown := set(options.steps) - set(STEPS):
        parser.error(f"no step {', '.join(sorted(unknown))}: choose from {names}")
    return options


def main() -> None:
    options = _parse()
    given = {
        name: getattr(options, name) for name in ("seconds", "hours", "seed", "threads", "compile")
    }
    changes = {name: value for name, value in given.items() if value is not None}
    recipe = replace(SMOKE if options.smoke else Recipe(), **changes)
    torch.set_num_threads(recipe.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(options.out, recipe)
    for step in options.steps or STEPS:
        print(f"{step}:", flush=True)
        begin = time.monotonic()
        getattr(run, step)()
        print(f"  {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Makes a checkpoint from nothing: ``python -m tools.train MODEL --out DIR``; see README.md.

Every step leaves its result in a folder of DIR. Evaluation set and tokenizer are kept as they are
once made; pools grow and training resumes where they were saved; verification is repeated.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .augment import NOTHING
from .calibrate import calibrate, draw_calibration
from .config import Recipe
from .evalset import read_eval_set, write_eval_set, write_speaker_set
from .mixture import CALIBRATION_POOLS, POOLS
from .pool import MANIFEST, Mixture, Pool
from .qwen3_asr import steps as qwen3_asr
from .synthesis import fill
from .trainer import Trainer, take_mean
from .verify import verify
from .voxtral import names as voxtral_names
from .voxtral import rare as voxtral_rare
from .voxtral import steps as voxtral

MODELS: dict[str, Any] = {
    "voxtral-numbers": voxtral,
    "qwen3-asr-numbers": qwen3_asr,
    "voxtral-names": voxtral_names,
    "voxtral-rare": voxtral_rare,
}
KINDS = ("others", "names", "slow", "digits")  # of pools, beside engines
STEPS = ("tokenizer", "pools", "eval", "speakers", "train", "calibrate", "verify")


class Run:
    """The steps of one recipe in the folder ``out``.

    Args:
        model: of ``MODELS``.
        pools: folder of the pools.
        engines: the synthesisers that may be used, by default all.
        start: checkpoint to start from.
        mean: folders of other runs, with whose last weights the mean is exported.
    """

    def __init__(
        self,
        model: str,
        out: Path,
        recipe: Recipe,
        pools: Path | None = None,
        engines: Sequence[str] = (),
        start: Path | None = None,
        mean: Sequence[Path] = (),
    ) -> None:
        self._model, self._out, self._recipe, self._start = MODELS[model], out, recipe, start
        self._mean = [folder / "train" / "state.pt" for folder in mean]
        self._pools, self._engines = pools or out / "pools", engines
        self._checkpoint = out / "checkpoint"
        self._tokenizer, self._eval = out / "tokenizer", out / "eval"

    def tokenizer(self) -> None:
        _once(self._tokenizer, {}, lambda folder: self._model.tokenizer(folder, self._recipe))

    def pools(self) -> None:
        needed = (*self._recipe.mixture, *CALIBRATION_POOLS, *self._recipe.evaluation)
        for name in self._allowed(needed):
            hours = fill(
                self._pools / name,
                POOLS[name],
                self._recipe.hours * POOLS[name].hours,
                self._recipe.shard_seconds,
            )
            print(f"  {name}: {hours:.2f} h")

    def eval(self) -> None:
        recipe = self._recipe
        seed = 1000 * recipe.seed + 3
        settings: dict[str, object] = {
            "short_clips": recipe.short_clips,
            "long_seconds": recipe.long_seconds,
            "seed": seed,
        }

        def make(folder: Path) -> str:
            known: set[tuple[str, ...]] = set()
            for pool in self._open(["espeak"]).values():
                known |= pool.sentences()
            return write_eval_set(folder, recipe.short_clips, recipe.long_seconds, known, seed)

        _once(self._eval, settings, make)

    def speakers(self) -> None:
        recipe = self._recipe
        settings: dict[str, Any] = {
            "clips": recipe.speaker_clips,
            "seconds": recipe.speaker_seconds,
            "seed": 1000 * recipe.seed + 4,
        }

        def make(folder: Path) -> str:
            return write_speaker_set(folder, self._open(recipe.evaluation), **settings)

        _once(self._out / "eval_speakers", settings, make)

    def train(self) -> None:
        for state in self._mean:
            if not state.exists():  # told now, not after hours
                raise SystemExit(
                    f"--mean: {state} is missing: name the --out of a run that trained"
                )
        folder = self._out / "train"
        folder.mkdir(parents=True, exist_ok=True)
        pools = self._open(self._recipe.mixture)
        parts = {name: self._recipe.mixture[name] for name in pools}
        for name, pool in pools.items():
            print(f"  {name}: {pool.seconds / 3600:.2f} h, part {parts[name]}")
        task = self._model.task(
            self._recipe, self._tokenizer, self._open(CALIBRATION_POOLS), self._start
        )
        trainer = Trainer(folder, self._recipe, task)
        note = {**asdict(self._recipe), "start": str(self._start), "pools": list(pools)}
        path = folder / f"recipe_{trainer.step}.json"
        path.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        trainer.run(self._model.batches(self._recipe, self._tokenizer, Mixture(pools, parts)))
        take_mean(task.trainee.cpu(), self._mean)
        self._checkpoint.mkdir(exist_ok=True)
        print(f"  exported: {self._model.export(self._checkpoint, self._tokenizer, task)}")

    def calibrate(self) -> None:
        """Needs voxfast in the same environment."""
        pools = self._open(CALIBRATION_POOLS)
        mixture = Mixture(pools, dict.fromkeys(pools, 1.0))
        rng = np.random.default_rng(self._recipe.seed)
        clips = draw_calibration(mixture, self._recipe.calibration_clips, rng)
        self._model.find_heads(self._checkpoint, clips)
        traits, timing = self._model.TRAITS, self._model.fit_timing
        print(f"  {calibrate(self._checkpoint, clips, traits, timing)}")

    def verify(self) -> None:
        for folder in (self._eval, self._out / "eval_speakers"):
            clips = list(read_eval_set(folder))
            by_torch = self._model.transcripts(self._checkpoint, clips)
            results = self._out / f"results_{folder.name}.json"
            print(f"  {folder.name}:")
            verify(by_torch, self._checkpoint, folder, clips, results)

    def _allowed(self, names: Iterable[str]) -> list[str]:
        if not self._engines:
            return list(names)
        return [name for name in names if POOLS[name].engine.partition("_")[0] in self._engines]

    def _open(self, names: Iterable[str]) -> dict[str, Pool]:
        """The pools that have been begun; says which ones have not."""
        found, missing = {}, []
        for name in self._allowed(names):
            if (self._pools / name / MANIFEST).exists():
                found[name] = Pool(self._pools / name)
            else:
                missing.append(name)
        if missing:
            print(f"  not made yet, left out: {', '.join(missing)}")
        return found


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


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.train", description=__doc__)
    add = parser.add_argument
    names = ", ".join(STEPS)
    add("model", choices=MODELS)
    add("steps", nargs="*", metavar="STEP", help=f"steps to run, by default all: {names}")
    add("--out", type=Path, required=True, help="folder for all results")
    add(
        "--pools",
        type=Path,
        help="folder of the pools, which both models share (default OUT/pools)",
    )
    add("--engines", nargs="+", default=(), metavar="ENGINE",
        help="use only these synthesisers (default all)")  # fmt: skip
    add("--start", type=Path, metavar="CHECKPOINT", help="go on from these weights")
    add("--mean", nargs="+", default=(), type=Path, metavar="RUN",
        help="export the mean with the last weights of these runs (their --out)")  # fmt: skip
    add("--without", nargs="+", default=(), metavar="NAME",
        help="leave out of training: engines, kinds of texts, entries of Acoustics")  # fmt: skip
    add("--train-steps", type=int, metavar="N", help="steps of training")
    add("--hours", type=float, help="times the hours of the table of pools (default 1)")
    add("--peak-rate", type=float, help="learning rate")
    add("--warm-up", type=int, metavar="N", help="steps until the rate is at its peak")
    add("--seed", type=int)
    add("--threads", type=int, help="of the training process (default 2)")
    add("--workers", type=int, help="processes that make batches (default 1)")
    add("--device", help="cpu (default) or cuda")
    add("--no-compile", dest="compile", action="store_const", const=False,
        help="train without torch.compile, which needs a C++ compiler")  # fmt: skip
    add("--smoke", action="store_true",
        help="a tiny run: proves that everything runs, not that it learns")  # fmt: skip
    # Intermixed: steps may stand after options, too.
    options = parser.parse_intermixed_args(arguments)
    if unknown := set(options.steps) - set(STEPS):
        parser.error(f"no step {', '.join(sorted(unknown))}: choose from {names}")
    return options


def leave_out(recipe: Recipe, names: Iterable[str]) -> Recipe:
    """``recipe`` without some engines or some of what is done to the speech.

    Raises:
        SystemExit: there is nothing of that name.
    """
    for name in names:
        mixture = {
            pool: part
            for pool, part in recipe.mixture.items()
            if POOLS[pool].engine != name and not (name in KINDS and pool.endswith(f"_{name}"))
        }
        if len(mixture) < len(recipe.mixture):
            recipe = replace(recipe, mixture=mixture)
        elif hasattr(NOTHING, name) and not name.endswith("_below"):
            changed = replace(recipe.acoustics, **{name: getattr(NOTHING, name)})
            recipe = replace(recipe, acoustics=changed)
        else:
            raise SystemExit(f"--without: neither an engine nor an entry of Acoustics: {name}")
    return recipe


def main() -> None:
    options = parse()
    names = ("hours", "seed", "threads", "workers", "device", "compile", "peak_rate", "warm_up")
    given = {"steps": options.train_steps, **{name: getattr(options, name) for name in names}}
    changes = {name: value for name, value in given.items() if value is not None}
    model = MODELS[options.model]
    recipe = replace(model.SMOKE if options.smoke else model.RECIPE, **changes)
    recipe = leave_out(recipe, options.without)
    torch.set_num_threads(recipe.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(
        options.model, options.out, recipe, options.pools, options.engines, options.start,
        options.mean,
    )  # fmt: skip
    steps = options.steps or STEPS
    if options.smoke and options.start is None and not options.steps:
        print("calibrate: left out, because a smoke run learns no word to calibrate with")
        steps = tuple(step for step in STEPS if step != "calibrate")
    for step in steps:
        print(f"{step}:", flush=True)
        begin = time.monotonic()
        getattr(run, step)()
        print(f"  {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()

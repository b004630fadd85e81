"""The training loop of both models: steps, learning rate, states on disk, and a log."""

import copy
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .clips import Noise, draw_clip
from .config import Recipe
from .pool import Pool
from .scoring import Score
from .speech import Word

__all__ = ["Batches", "Losses", "Task", "Trainer", "dev_clips", "take_mean"]

WEIGHT_DECAY = 0.03
LOWEST_RATE = 1e-6
DEV_NOISE = (12.0, 45.0)
AVERAGED = 0.98  # of the losses that are reported


class Losses(NamedTuple):
    """What is minimised, and the cross-entropies in nats that it is made of."""

    total: Tensor
    parts: dict[str, Tensor]


class Batches(Protocol):
    def __getitem__(self, number: int) -> tuple[Tensor, ...]: ...


class Task(Protocol):
    """What is learnt.

    Attributes:
        batch_type: the named tuple of a batch.
    """

    batch_type: Any

    @property
    def trainee(self) -> nn.Module:
        """The model as its attribute ``model``, with what only training has."""
        ...

    def losses(self, forward: Any, batch: Any, done: float) -> Losses:
        """Of a batch; ``forward`` is the trainee, compiled or not, ``done`` 0 to 1."""
        ...

    def evaluate(self, model: Any) -> Mapping[str, Score]:
        """Scores of ``model``, on the CPU, on the held-out pools."""
        ...


class Trainer:
    """Trains for ``recipe.steps``, saves to ``folder`` as it goes, and resumes from there."""

    def __init__(self, folder: Path, recipe: Recipe, task: Task) -> None:
        self._folder, self._recipe, self._task = folder, recipe, task
        trainee = task.trainee.to(recipe.device)
        # One size for each kind of batch. With sizes that vary, inductor fails at the third kind
        # of Qwen3-ASR (torch 2.13).
        self._forward: Any = torch.compile(trainee, dynamic=False) if recipe.compile else trainee
        self._optimizer = torch.optim.AdamW(_parameter_groups(trainee), betas=(0.9, 0.98))
        self._half = recipe.device != "cpu" or _fast_bfloat16()
        self.step = 0
        self.elapsed = 0.0  # seconds, over all runs
        self._average: dict[str, float] = {}
        if self._state.exists():
            self._load()

    @property
    def _state(self) -> Path:
        return self._folder / "state.pt"

    def run(self, batches: Batches) -> None:
        """Trains until the steps are done."""
        before = self.elapsed
        begin = saved = reported = time.monotonic()
        for batch in _ahead(batches, self.step, self._recipe):
            self.learn(batch)
            now = time.monotonic()
            self.elapsed = before + now - begin
            done = self.step == self._recipe.steps
            if self.step % 50 == 0 or done:
                print(f"  {self._line()}", flush=True)
            if done or now - saved >= self._recipe.save_every:
                self.save()
                saved = now
            if done or now - reported >= self._recipe.report_every:
                self._report()
                reported = time.monotonic()

    def learn(self, batch: tuple[Tensor, ...]) -> Losses:
        """One step on ``batch``; returns its losses."""
        done = min(1.0, self.step / self._recipe.steps)
        warm = min(1.0, (self.step + 1) / self._recipe.warm_up)
        rate = self._recipe.peak_rate * warm * (0.5 + 0.5 * math.cos(math.pi * done))
        for group in self._optimizer.param_groups:
            group["lr"] = rate + LOWEST_RATE
        device = self._recipe.device
        here = self._task.batch_type(*(part.to(device) for part in batch))
        with torch.autocast(device, torch.bfloat16, enabled=self._half):
            losses = self._task.losses(self._forward, here, done)
        self._optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._task.trainee.parameters(), 1.0)
        self._optimizer.step()
        self.step += 1
        for name, loss in losses.parts.items():
            now = loss.item()
            before = self._average.get(name, now)
            self._average[name] = AVERAGED * before + (1 - AVERAGED) * now
        return losses

    def _line(self) -> str:
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in self._average.items())
        return f"step {self.step} of {self._recipe.steps}, {self.elapsed:.0f} s: {losses}"

    def save(self) -> None:
        """Writes ``state.pt``, from which a later run goes on."""
        temporary = self._state.with_suffix(".partial")
        torch.save(
            {
                "trainee": self._task.trainee.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "step": self.step,
                "elapsed": self.elapsed,
                "average": self._average,
            },
            temporary,
        )
        temporary.replace(self._state)

    def _report(self) -> None:
        """Prints the scores on the held-out pools, and writes a line of ``log.jsonl``."""
        # The reference decoders run on the CPU.
        model = copy.deepcopy(cast(nn.Module, self._task.trainee.model)).cpu().eval()
        scores = self._task.evaluate(model)
        line = {
            "step": self.step,
            "seconds": round(self.elapsed, 1),
            "losses": self._average,
            "dev": {
                name: {**asdict(score), "wer": score.word_error_rate}
                for name, score in scores.items()
            },
        }
        with (self._folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"  step {self.step}:", flush=True)
        for name, result in scores.items():
            print(f"    {name}: {result}", flush=True)

    def _load(self) -> None:
        state = torch.load(self._state, weights_only=True, map_location=self._recipe.device)
        self._task.trainee.load_state_dict(state["trainee"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        self._average = state["average"]
        print(f"  resumed: {self._line()}", flush=True)


def take_mean(trainee: nn.Module, states: Sequence[Path]) -> None:
    """Makes the weights the mean of themselves and of those in other runs' ``state.pt``."""
    all_weights = [trainee.state_dict()] + [
        torch.load(path, weights_only=True, map_location="cpu")["trainee"] for path in states
    ]
    mean = {
        name: torch.stack([weights[name].float() for weights in all_weights]).mean(0)
        for name in all_weights[0]
    }
    trainee.load_state_dict(mean)


def dev_clips(pool: Pool, recipe: Recipe) -> list[tuple[NDArray[np.float32], list[Word]]]:
    """A few clips to follow the training by, every second one with noise."""
    rng, noise = np.random.default_rng(999), Noise()
    clips = []
    for number in range(recipe.dev_clips):
        clip = draw_clip(pool, recipe.dev_seconds, rng)
        noisy = noise.add(clip.audio, DEV_NOISE, rng) if number % 2 else clip.audio
        clips.append((noisy, clip.words))
    return clips


def _fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 faster than float32: 8 times, or a thirtieth."""
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(256, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
        rounds = []
        for _ in range(5):
            begin = time.perf_counter()
            a @ b
            rounds.append(time.perf_counter() - begin)
        times[dtype] = min(rounds)
    return times[torch.bfloat16] < times[torch.float32]


def _ahead(batches: Batches, first: int, recipe: Recipe) -> Iterator[tuple[Tensor, ...]]:
    """The batches from ``first`` on, made by other processes ahead of time."""
    numbers = _Range(batches, first, recipe.steps)
    yield from DataLoader(numbers, batch_size=None, num_workers=recipe.workers, prefetch_factor=4)


class _Range(Dataset[tuple[Tensor, ...]]):
    def __init__(self, batches: Batches, first: int, after: int) -> None:
        self._batches, self._first, self._count = batches, first, after - first

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> tuple[Tensor, ...]:
        if not 0 <= place < self._count:
            raise IndexError(place)
        torch.set_num_threads(1)  # of the process that makes batches
        return self._batches[self._first + place]


def _parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices and convolutions, none for norms and biases."""
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]

"""The training loop: next output of every position, and an auxiliary loss on the audio."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .batches import IGNORED, NO_WORD, Batch, Batches
from .clips import Noise, draw_clip
from .config import ModelConfig, Recipe
from .decode import transcribe
from .model import VoxtralRealtime
from .pool import Pool
from .scoring import Score, score
from .speech import Word
from .stream import PAD

__all__ = ["Losses", "Trainee", "Trainer"]

PAD_WEIGHT = 0.7  # most targets are [STREAMING_PAD]
WEIGHT_DECAY = 0.03
LOWEST_RATE = 1e-6
UNTIMED_STEPS = 2  # compiling and first touches do not count as training time
DEV_DELAY = 6  # positions, 480 ms
DEV_NOISE = (12.0, 45.0)
AVERAGED = 0.98  # of the losses that are reported


class Losses(NamedTuple):
    """Cross-entropies in nats: of the outputs, and of the auxiliary labels."""

    outputs: Tensor
    auxiliary: Tensor


class Trainee(nn.Module):
    """The model, and the auxiliary head that only exists in training.

    The head reads from the audio embedding which word is being spoken and which one has just
    ended. Without it no word was learnt in the first 622 steps of voxtral-numbers, with it the
    same model did; see README.md.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = VoxtralRealtime(config)
        self.head = nn.Linear(config.decoder.dim, 2 * (NO_WORD + 1))
        nn.init.normal_(self.head.weight, std=0.05)

    def forward(self, mel: Tensor, inputs: Tensor, delays: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the outputs [B, P, vocab_size] and of the labels [B, P, 2, words + 1]."""
        logits, audio = self.model(mel, inputs, delays)
        return logits, self.head(audio).unflatten(-1, (2, -1))


class Trainer:
    """Trains for ``recipe.seconds``, saves to ``folder`` as it goes, and resumes from there."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self._folder, self._recipe = folder, recipe
        self.trainee = Trainee(recipe.model)
        self._forward: Any = torch.compile(self.trainee) if recipe.compile else self.trainee
        self._optimizer = torch.optim.AdamW(_parameter_groups(self.trainee), betas=(0.9, 0.98))
        self._weights = torch.ones(recipe.model.vocab_size)
        self._weights[PAD] = PAD_WEIGHT
        self.step = 0
        self.elapsed = 0.0  # seconds of training, over all runs
        self._average: tuple[float, float] | None = None
        if self._state.exists():
            self._load()

    @property
    def _state(self) -> Path:
        return self._folder / "state.pt"

    def run(
        self, pool: Pool, dev_pool: Pool, tokenizer: Tekkenizer, tokens: Mapping[str, Sequence[int]]
    ) -> VoxtralRealtime:
        """Trains until the time is used up and returns the model."""
        batches = Batches(pool, tokens, self._recipe)
        dev = _DevSet(dev_pool, self._recipe)
        reported, started = self.elapsed, self.step
        while self.elapsed < self._recipe.seconds:
            begin = time.monotonic()
            self.learn(batches[self.step])
            if self.step - started > UNTIMED_STEPS:
                self.elapsed += time.monotonic() - begin
            done = self.elapsed >= self._recipe.seconds
            if self.step % 50 == 0 or done:
                print(f"  {self._line()}", flush=True)
            if done or self.elapsed - reported >= self._recipe.report_every:
                self.save()
                self._report(dev.score(self.trainee.model, tokenizer))
                reported = self.elapsed
        return self.trainee.model

    def learn(self, batch: Batch) -> Losses:
        """One step on ``batch``; returns its losses."""
        done = min(1.0, self.elapsed / self._recipe.seconds)
        warm = min(1.0, (self.step + 1) / self._recipe.warm_up)
        rate = self._recipe.peak_rate * warm * (0.5 + 0.5 * math.cos(math.pi * done))
        for group in self._optimizer.param_groups:
            group["lr"] = rate + LOWEST_RATE
        losses = self._losses(batch)
        self._optimizer.zero_grad(set_to_none=True)
        # The auxiliary loss leads at first and fades to almost nothing.
        (losses.outputs + (1.05 - done) * losses.auxiliary).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        self._optimizer.step()
        self.step += 1
        now = (losses.outputs.item(), losses.auxiliary.item())
        before = self._average or now
        self._average = (
            AVERAGED * before[0] + (1 - AVERAGED) * now[0],
            AVERAGED * before[1] + (1 - AVERAGED) * now[1],
        )
        return losses

    def _losses(self, batch: Batch) -> Losses:
        with torch.autocast("cpu", torch.bfloat16):
            logits, labels = self._forward(batch.mel, batch.inputs, batch.delays)
        outputs = functional.cross_entropy(
            logits.float().flatten(0, 1),
            batch.targets.flatten(),
            self._weights,
            ignore_index=IGNORED,
        )
        auxiliary = functional.cross_entropy(labels.float().flatten(0, 2), batch.labels.flatten())
        return Losses(outputs, auxiliary)

    def _line(self) -> str:
        outputs, auxiliary = self._average or (math.nan, math.nan)
        return (
            f"step {self.step}, {self.elapsed:.0f} of {self._recipe.seconds:.0f} s: "
            f"loss {outputs:.4f}, auxiliary {auxiliary:.4f}"
        )

    def save(self) -> None:
        """Writes ``state.pt``, from which a later run goes on."""
        temporary = self._state.with_suffix(".partial")
        torch.save(
            {
                "trainee": self.trainee.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "step": self.step,
                "elapsed": self.elapsed,
                "average": self._average,
            },
            temporary,
        )
        temporary.replace(self._state)

    def _report(self, dev: Score) -> None:
        """Prints, and writes a line of ``log.jsonl``."""
        outputs, auxiliary = self._average or (math.nan, math.nan)
        line = {
            "step": self.step,
            "seconds": round(self.elapsed, 1),
            "loss": outputs,
            "auxiliary": auxiliary,
            "dev": asdict(dev),
        }
        with (self._folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"  step {self.step}, saved; dev: {dev}", flush=True)

    def _load(self) -> None:
        state = torch.load(self._state, weights_only=True)
        self.trainee.load_state_dict(state["trainee"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        self._average = state["average"]
        print(f"  resumed: {self._line()}", flush=True)


class _DevSet:
    """A few clips to follow the training by; nothing is chosen by their score."""

    def __init__(self, pool: Pool, recipe: Recipe) -> None:
        rng, noise = np.random.default_rng(999), Noise()
        self._audios: list[NDArray[np.float32]] = []
        self._words: list[list[Word]] = []
        for number in range(recipe.dev_clips):
            clip = draw_clip(pool, recipe.dev_seconds, rng)
            noisy = number % 2 == 1
            self._audios.append(noise.add(clip.audio, DEV_NOISE, rng) if noisy else clip.audio)
            self._words.append(clip.words)

    def score(self, model: VoxtralRealtime, tokenizer: Tekkenizer) -> Score:
        heard = transcribe(model, tokenizer, self._audios, DEV_DELAY)
        return score(zip(self._words, heard, strict=True))


def _parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices and convolutions, none for norms and biases."""
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]

"""Which heads of a Qwen3-ASR checkpoint attend to the audio being spoken: measured on clips.

The model transcribes clips whose word times are known. For every word that it got right, and
for every head of its decoder, the query that predicts the word's first token is asked for the
audio position that it attends to. A head is as good as the share of words that it finds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxfast.bench.attended import POSITION_SECONDS, AttendedClip
from voxfast.bench.extras import need
from voxfast.bench.word_timing import TimingScores

__all__ = ["HeadScores", "draw_heads", "lines_of_json", "measure_heads"]

LEAST_SHARE = 0.5  # of the words that a head must find to be listed


@dataclass(frozen=True)
class HeadScores:
    """What was measured.

    Attributes:
        shares: [layers, heads], the share of words whose attended frame lies within the word,
            give or take ``tolerance``.
        errors: [layers, heads], the median distance in seconds between the attended frame's
            middle and the word's.
        n_words: words that were recognised, on which all is measured.
        n_spoken: words in the clips.
        n_clips: how many clips there were.
        tolerance: seconds.
    """

    shares: NDArray[np.float64]
    errors: NDArray[np.float64]
    n_words: int
    n_spoken: int
    n_clips: int
    tolerance: float

    def ranking(self) -> list[tuple[int, int]]:
        """All heads (layer, head), best first: by share, then by error."""
        _, n_heads = self.shares.shape
        order = np.lexsort((self.errors.ravel(), -self.shares.ravel()))
        return [(int(i) // n_heads, int(i) % n_heads) for i in order]

    def listed(self) -> list[tuple[int, int]]:
        """The heads worth using, best first; one at least."""
        ranking = self.ranking()
        return [head for head in ranking if self.shares[head] >= LEAST_SHARE] or ranking[:1]

    def as_json(self, model: str, timing: TimingScores | None = None) -> str:
        """The content of ``alignment_heads.json``, for a checkpoint of that name."""
        n_layers, n_heads = self.shares.shape
        content = {
            "model": model,
            "num_layers": n_layers,
            "num_heads": n_heads,
            "clips": self.n_clips,
            "words": self.n_words,
            "words_spoken": self.n_spoken,
            "definition": "share of the recognised words for which the query that predicts the "
            f"first token attends most to audio within the word, give or take {self.tolerance} s",
            **({} if timing is None else timing.as_json()),
            "alignment_heads_compact": [list(head) for head in self.listed()],
            "scores": [
                {
                    "layer": layer,
                    "head": head,
                    "score": round(float(self.shares[layer, head]), 4),
                    "median_abs_error_s": round(float(self.errors[layer, head]), 4),
                }
                for layer, head in self.ranking()
            ],
        }
        return lines_of_json(content)


def lines_of_json(content: Mapping[str, Any]) -> str:
    """JSON with a line for each key, and for each of the scores: people read the file, too."""
    lines = []
    for key, value in content.items():
        text = json.dumps(value)
        if key == "scores":
            rows = ",\n  ".join(map(json.dumps, value))
            text = f"[\n  {rows}\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def measure_heads(clips: Sequence[AttendedClip], *, tolerance: float = 0.16) -> HeadScores:
    """Measure all heads of the decoder.

    Args:
        clips: with the times of their words; at least one word was recognised.
        tolerance: seconds that an attended frame's middle may lie outside the word.
    """
    pairs = [
        (word.first, clip.spoken[word.spoken])
        for clip in clips
        for word in clip.words
        if word.spoken is not None
    ]
    time = np.stack([first for first, _ in pairs]) + POSITION_SECONDS / 2  # [words, layers, heads]
    start = np.array([word.start for _, word in pairs])[:, None, None]
    end = np.array([word.end for _, word in pairs])[:, None, None]
    inside = (time >= start - tolerance) & (time <= end + tolerance)
    return HeadScores(
        inside.mean(axis=0),
        np.median(np.abs(time - (start + end) / 2), axis=0),
        len(pairs),
        sum(len(clip.spoken) for clip in clips),
        len(clips),
        tolerance,
    )


# ---- the map ----------------------------------------------------------------------------


def draw_heads(scores: HeadScores, path: Path, title: str) -> None:
    """Draw the map of layers and heads, those that are listed ringed.

    Args:
        path: the picture, of any format that matplotlib writes.
        title: what stands above it.

    Raises:
        ImportError: without matplotlib.
    """
    need("matplotlib").use("agg")
    plt = need("matplotlib.pyplot")
    n_layers, n_heads = scores.shares.shape
    size = (max(6.0, 2.0 + 0.32 * n_heads), max(3.4, 1.6 + 0.26 * n_layers))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    shown = axes.imshow(100 * scores.shares, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    layers, heads = zip(*scores.listed(), strict=True)
    axes.scatter(heads, layers, s=110, facecolors="none", edgecolors="#d55e00", linewidths=2)
    axes.set(xlabel="head", ylabel="layer")
    axes.set_title(f"{title}; ringed: in the file", fontsize=10)
    axes.set_xticks(range(0, n_heads, 1 if n_heads <= 16 else 4))
    axes.set_yticks(range(0, n_layers, 1 if n_layers <= 16 else 4))
    figure.colorbar(shown, label="words found, %")
    figure.savefig(path, dpi=130)
    plt.close(figure)

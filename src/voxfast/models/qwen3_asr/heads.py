"""Finding the alignment heads of a Qwen3-ASR checkpoint.

While a token is predicted, some heads of the decoder attend to the audio in which it is
spoken (AlignAtt, arXiv 2305.11408). They differ between checkpoints, are measured once, and
stored in ``alignment_heads.json`` beside the weights, with the margins of words around the
audio that they attend to.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.models.checkpoint import read_json
from voxfast.models.traits import AttentionTiming, read_seconds
from voxfast.models.values import integer, section

__all__ = ["FILE", "AlignmentHeads", "find_alignment_heads"]

logger = logging.getLogger(__name__)

FILE = "alignment_heads.json"
MEASURED = Path(__file__).parent / "measured_heads"


@dataclass(frozen=True)
class AlignmentHeads:
    """Heads (layer, query head), best first, their file, and the timing of words if it has one."""

    heads: tuple[tuple[int, int], ...]
    source: Path
    timing: AttentionTiming | None = None

    def best(self, n: int) -> dict[int, list[int]]:
        """The first ``n`` heads, or all if there are fewer: layer → query heads, ascending.

        Raises:
            InvalidOptionError: if n is below 1.
        """
        if n < 1:
            raise InvalidOptionError(f"at least 1 alignment head must be used; got {n}")
        layers: dict[int, list[int]] = {}
        for layer, head in sorted(self.heads[:n]):
            layers.setdefault(layer, []).append(head)
        return layers


def find_alignment_heads(
    folder: Path, config: dict[str, Any], override: Path | None = None
) -> AlignmentHeads | None:
    """The alignment heads of a checkpoint, or None if they were never measured.

    In this order: the requested file, ``alignment_heads.json`` in the folder, and those of the
    published models, for checkpoints of the same sizes.

    Args:
        folder: of the checkpoint.
        config: its ``config.json``.
        override: a file to read instead.

    Raises:
        CheckpointError: if a file is malformed, or of another model.
    """
    thinker = section(config, "thinker_config") if "thinker_config" in config else config
    text, audio = section(thinker, "text_config"), section(thinker, "audio_config")
    n_layers = integer(text, "num_hidden_layers", 1, 1024)
    n_heads = integer(text, "num_attention_heads", 1, 1024)
    own = folder / FILE
    if override is not None or own.is_file():
        return _read(override or own, n_layers, n_heads)
    for path in sorted(MEASURED.glob("*.json")):
        measured = read_json(path)
        if measured["text_config"].items() <= text.items() and (
            measured["audio_config"].items() <= audio.items()
        ):
            logger.info("using the alignment heads that were measured for %s", measured["model"])
            return _read(path, n_layers, n_heads)
    return None


def _read(path: Path, n_layers: int, n_heads: int) -> AlignmentHeads:
    """The heads in a file, validated against the sizes of the decoder."""
    content = read_json(path)
    for key, size in (("num_layers", n_layers), ("num_heads", n_heads)):
        if content.get(key, size) != size:
            raise CheckpointError(
                f"{path}: {key!r} is {content[key]!r:.60}, but the model has {size}; these "
                "heads are those of another model"
            )
    pairs = content.get("alignment_heads_compact")
    if not isinstance(pairs, list) or not pairs:
        raise CheckpointError(
            f"{path}: 'alignment_heads_compact' must list [layer, head] pairs, best first; it is "
            f"{pairs!r:.60}"
        )
    heads: dict[tuple[int, int], None] = {}
    for pair in pairs:
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and all(type(number) is int for number in pair)
            and 0 <= pair[0] < n_layers
            and 0 <= pair[1] < n_heads
        ):
            raise CheckpointError(
                f"{path}: {pair!r:.60} is not a head of {n_layers} layers of {n_heads} heads"
            )
        if (head := (pair[0], pair[1])) in heads:
            raise CheckpointError(f"{path}: the head {pair} is listed twice")
        heads[head] = None
    timing = read_seconds(path, content, "attention_timing", AttentionTiming)
    return AlignmentHeads(tuple(heads), path, timing)

"""Qwen3-ASR as an engine: a checkpoint, and the options its streams take."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from voxfast.errors import InvalidOptionError
from voxfast.models.checkpoint import read_json
from voxfast.models.family import check_names
from voxfast.models.qwen3_asr.heads import find_alignment_heads
from voxfast.models.qwen3_asr.languages import requested_language
from voxfast.models.qwen3_asr.stream import Qwen3Options, Qwen3Stream
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.qwen3_asr.weights import load_qwen3_asr
from voxfast.models.traits import read_traits

__all__ = ["LoadedQwen3ASR"]

DEFAULT_DELAY_MS = 320
# Milliseconds; what is below makes no sense, what is above no model was trained for.
_RANGES = {
    "delay_ms": (0, 10_000),
    "block_ms": (20, 10_000),
    "rewind_ms": (0, 30_000),
    "min_steps": (0, 1000),
    "buffer_ms": (3_000, 30_000),
    "trim_ms": (3_000, 30_000),
    "keep_ms": (1_000, 29_000),
    "pause_ms": (1_500, 30_000),
    "context_tokens": (0, 4096),
    "n_heads": (1, 1 << 20),
}


class LoadedQwen3ASR:
    """See :class:`voxfast.models.family.LoadedCheckpoint`."""

    delays_ms: tuple[int, ...] = ()  # any
    offline_block_seconds = 5.0  # an inference each; twice as much fits into the buffer

    def __init__(self, name: str, folder: Path, dtype: mx.Dtype | None) -> None:
        self._name, self._folder = name, folder
        self._traits = read_traits(folder)
        self._config = read_json(folder / "config.json")
        self._model = load_qwen3_asr(folder, dtype)
        self._tokenizer = Qwen3ASRTokenizer(folder, self._model.args.text.vocab_size)
        self.description = self._traits.description or f"Qwen3-ASR, from {folder}"
        self.is_demo = self._traits.demo

    @property
    def dtype(self) -> mx.Dtype:
        return self._model.dtype

    def stream(self, **options: Any) -> Qwen3Stream:
        check_names(self._name, options, Qwen3Options)
        chosen = Qwen3Options(**options)
        if chosen.delay_ms is None:
            chosen = replace(chosen, delay_ms=DEFAULT_DELAY_MS)
        _check(chosen)
        language = requested_language(chosen.language)
        heads = self._heads(chosen)
        return Qwen3Stream(self._model, self._tokenizer, heads, chosen, self._traits, language)

    def _heads(self, chosen: Qwen3Options) -> Mapping[int, Sequence[int]]:
        override = None if chosen.heads_file is None else Path(chosen.heads_file)
        found = find_alignment_heads(self._folder, self._config, override)
        if found is not None:
            return found.best(chosen.n_heads)
        if chosen.guess_heads:
            args = self._model.args.text
            middle = range(args.n_layers * 2 // 5, -(-args.n_layers * 3 // 5))
            return {layer: list(range(args.n_heads)) for layer in middle}
        raise InvalidOptionError(
            f"nobody has measured the alignment heads of {self._name}, without which it cannot "
            f"be streamed; measure them with: voxfast align-heads --model {self._name} (or ask "
            "for guess_heads=True, which takes all heads of the middle layers)"
        )


def _check(chosen: Qwen3Options) -> None:
    for name, (least, most) in _RANGES.items():
        value = getattr(chosen, name)
        if type(value) is not int or not least <= value <= most:
            raise InvalidOptionError(
                f"{name} must be an integer from {least} to {most}; got {value!r:.60}"
            )
    if not chosen.keep_ms + 1000 <= chosen.trim_ms <= chosen.buffer_ms - chosen.block_ms:
        raise InvalidOptionError(
            "trim_ms must be a second above keep_ms, and one block below buffer_ms; got "
            f"{chosen.keep_ms}, {chosen.trim_ms}, {chosen.buffer_ms} and blocks of "
            f"{chosen.block_ms}"
        )
    for name in ("language", "prompt"):
        if not isinstance(getattr(chosen, name), str | None):
            raise InvalidOptionError(f"{name} must be text; got {getattr(chosen, name)!r:.60}")
    if not isinstance(chosen.heads_file, str | Path | None):
        raise InvalidOptionError(f"heads_file must be a path; got {chosen.heads_file!r:.60}")

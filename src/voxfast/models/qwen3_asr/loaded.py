"""A loaded Qwen3-ASR checkpoint, which opens streams."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from voxfast.errors import InvalidOptionError
from voxfast.models.checkpoint import read_json
from voxfast.models.counts import PassCount
from voxfast.models.qwen3_asr.heads import find_alignment_heads
from voxfast.models.qwen3_asr.languages import (
    LANGUAGES,
    language_code,
    requested_language,
)
from voxfast.models.qwen3_asr.options import Qwen3Tuning, read_options
from voxfast.models.qwen3_asr.stream import Qwen3Stream
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer
from voxfast.models.qwen3_asr.weights import load_qwen3_asr
from voxfast.models.traits import AttentionTiming, read_traits
from voxfast.models.vocabulary import Vocabulary, VocabularyCompiler
from voxfast.nn import rows_are_independent

__all__ = ["LoadedQwen3ASR"]


class LoadedQwen3ASR:
    """See :class:`voxfast.models.family.LoadedCheckpoint`."""

    delays_ms: tuple[int, ...] = ()  # any
    offline_block_seconds = 5.0  # between two reports of progress
    offline_whole_seconds = 12.0  # what the buffer holds before older audio is dropped

    def __init__(
        self, name: str, folder: Path, dtype: mx.Dtype | None, kv_bits: int | None = None
    ) -> None:
        self._name, self._folder = name, folder
        self._traits = read_traits(folder)
        self._config = read_json(folder / "config.json")
        self._model = load_qwen3_asr(folder, dtype, self._config)
        self._model.kv_bits = kv_bits
        self._tokenizer = Qwen3ASRTokenizer(folder, self._model.args.text.vocab_size)
        self._compile = VocabularyCompiler(self._tokenizer.encode, self._tokenizer.piece)
        self.description = self._traits.description or f"Qwen3-ASR, from {folder}"
        self.is_demo = self._traits.demo
        self.languages = ("en",) if self.is_demo else tuple(sorted(LANGUAGES.values()))

    @property
    def dtype(self) -> mx.Dtype:
        return self._model.dtype

    @property
    def pass_count(self) -> PassCount:
        return self._model.pass_count

    def language_code(self, language: str) -> str | None:
        code = language_code(language)
        return code if code in self.languages else None

    def vocabulary(self, entries: object) -> Vocabulary | None:
        return self._compile(entries)

    def stream(self, **options: Any) -> Qwen3Stream:
        chosen = read_options(self._name, options)
        language = requested_language(chosen.language)
        heads, timing = self._attention(chosen.tuning)
        traits = replace(self._traits, attention=timing)
        return Qwen3Stream(
            self._model,
            self._tokenizer,
            heads,
            chosen,
            traits,
            language,
            is_parallel=rows_are_independent(self._model.decoder),
        )

    def _attention(
        self, tuning: Qwen3Tuning
    ) -> tuple[Mapping[int, Sequence[int]], AttentionTiming | None]:
        """The alignment heads, layer → query heads, and the timing of words, if it is known.

        What a requested file says wins over ``voxfast.json``, and that over the other files of
        heads.
        """
        override = None if tuning.heads_file is None else Path(tuning.heads_file)
        found = find_alignment_heads(self._folder, self._config, override)
        if found is not None:
            requested = None if override is None else found.timing
            return found.best(tuning.n_heads), requested or self._traits.attention or found.timing
        if tuning.guess_heads:
            args = self._model.args.text
            middle = range(args.n_layers * 2 // 5, -(-args.n_layers * 3 // 5))
            return {layer: list(range(args.n_heads)) for layer in middle}, self._traits.attention
        raise InvalidOptionError(
            f"nobody has measured the alignment heads of {self._name}, without which it cannot "
            f"be streamed; measure them with: voxfast align-heads --model {self._name} (or ask "
            "for tuning=voxfast.Qwen3Tuning(guess_heads=True), which takes all heads of the middle "
            "layers)"
        )

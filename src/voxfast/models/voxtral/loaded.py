"""A loaded Voxtral Realtime checkpoint, and the options of its streams."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from voxfast.audio import SAMPLE_RATE
from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.models.counts import PassCount
from voxfast.models.family import check_names, is_automatic
from voxfast.models.traits import read_traits
from voxfast.models.vocabulary import Vocabulary, VocabularyCompiler
from voxfast.models.voxtral.opening import Openings
from voxfast.models.voxtral.passes import PassCosts
from voxfast.models.voxtral.script_lock import (
    LANGUAGES,
    ScriptLock,
    held_language,
    language_code,
    script_lock,
)
from voxfast.models.voxtral.stream import BlankGuard, VoxtralStream
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.weights import load_voxtral
from voxfast.nn import rows_are_independent

__all__ = ["LoadedVoxtral", "VoxtralOptions"]

MAX_BLOCK = 128  # positions


@dataclass(frozen=True, kw_only=True)
class VoxtralOptions:
    """Options of ``Model.session`` for Voxtral Realtime.

    Attributes:
        delay_ms: how far the text follows the audio: more context, fewer errors. One of
            ``Model.delays_ms``; None takes the default of the checkpoint.
        language: None or "auto": Voxtral finds the language itself. The code or name of one that
            has a script of its own (ar, hi, ja, ko, ru, zh): nothing is written in another
            script but digits and punctuation.
        latin: with ``language``, allow Latin letters, too.
        prompt: None: Voxtral has no prompt.
        block_ms: audio per step of the encoder, a multiple of 80. Larger blocks cost less per
            second on large models, and add their duration to the latency.
        blank_guard: ends runs of blanks that mute speech; None switches it off.
    """

    delay_ms: int | None = None
    language: str | None = None
    latin: bool = False
    prompt: str | None = None
    block_ms: int = 80
    blank_guard: BlankGuard | None = None


class LoadedVoxtral:
    """See :class:`voxfast.models.family.LoadedCheckpoint`."""

    offline_block_seconds = 1.0
    offline_whole_seconds = math.inf  # its text is a stream, which pauses do not disturb

    def __init__(
        self, name: str, folder: Path, dtype: mx.Dtype | None, kv_bits: int | None = None
    ) -> None:
        self._name = name
        self._traits = read_traits(folder)
        self._model = load_voxtral(folder, dtype)
        self._model.kv_bits = kv_bits
        self._tokenizer = VoxtralTokenizer(folder / "tekken.json", self._model.args.vocab_size)
        self.description = self._traits.description or f"Voxtral Realtime, from {folder}"
        self.is_demo = self._traits.demo
        self.delays_ms = self._traits.delays_ms
        self.languages = ("en",) if self.is_demo else LANGUAGES
        self._compile = VocabularyCompiler(self._tokenizer.encode, self._tokenizer.piece)
        self._costs = PassCosts()
        self._openings = Openings(self._model, self._tokenizer)
        self._locks: dict[tuple[str, bool], ScriptLock] = {}
        self._check_times(folder)

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

    def stream(self, **options: Any) -> VoxtralStream:
        check_names(self._name, options, VoxtralOptions)
        chosen = VoxtralOptions(**options)
        delay_ms = self._tokenizer.default_delay_ms if chosen.delay_ms is None else chosen.delay_ms
        self._check(chosen, delay_ms)
        is_parallel = rows_are_independent(self._model)
        return VoxtralStream(
            self._model,
            self._tokenizer,
            self._traits,
            delay_ms,
            block=chosen.block_ms // self._tokenizer.position_ms,
            guard=chosen.blank_guard,
            lock=self._lock(chosen),
            costs=self._costs if is_parallel else None,
            openings=self._openings if is_parallel else None,
        )

    def _lock(self, chosen: VoxtralOptions) -> ScriptLock | None:
        """What the language allows to write, computed once per language."""
        if is_automatic(chosen.language):
            return None
        assert chosen.language is not None
        key = (held_language(chosen.language), chosen.latin)
        if key not in self._locks:
            self._locks[key] = script_lock(
                *key,
                self._tokenizer.piece,
                self._tokenizer.vocab_size,
                self._model.args.vocab_size,
                self._model.dtype,
            )
        return self._locks[key]

    def _check_times(self, folder: Path) -> None:
        """Check that the files of a checkpoint agree on the duration of a position."""
        position, samples = self._tokenizer.position_ms, self._model.args.samples_per_position
        if position * SAMPLE_RATE != 1000 * samples:
            raise CheckpointError(
                f"{folder}: positions last {position} ms by tekken.json and "
                f"{1000 * samples / SAMPLE_RATE:g} ms by the configuration"
            )
        odd = [d for d in self.delays_ms if d % position]
        if odd or self._tokenizer.default_delay_ms not in self.delays_ms:
            raise CheckpointError(
                f"{folder}: delays of {', '.join(map(str, self.delays_ms[:20]))} ms must be "
                f"multiples of {position} ms and include {self._tokenizer.default_delay_ms} ms, "
                "which tekken.json recommends"
            )

    def _check(self, chosen: VoxtralOptions, delay_ms: int) -> None:
        delays = ", ".join(map(str, self.delays_ms))
        if type(delay_ms) is not int:
            raise InvalidOptionError(
                f"delay_ms must be an integer, one of {delays}; got {delay_ms!r:.60}"
            )
        if delay_ms not in self.delays_ms:
            raise InvalidOptionError(
                f"{self._name} was trained for delays of {delays} ms; got delay_ms={delay_ms!r}"
            )
        if not is_automatic(chosen.language) and not isinstance(chosen.language, str):
            raise InvalidOptionError(f"language must be a code or a name; got {chosen.language!r}")
        if type(chosen.latin) is not bool:
            raise InvalidOptionError(f"latin must be True or False; got {chosen.latin!r:.40}")
        if chosen.prompt:
            raise InvalidOptionError(
                f"{self._name} takes no prompt; got prompt={chosen.prompt!r:.40}"
            )
        position_ms = self._tokenizer.position_ms
        if chosen.block_ms not in range(position_ms, MAX_BLOCK * position_ms + 1, position_ms):
            raise InvalidOptionError(
                f"block_ms must be a multiple of {position_ms}, {MAX_BLOCK * position_ms} at "
                f"most; got {chosen.block_ms!r}"
            )

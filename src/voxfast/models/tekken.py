"""The tokenizer of Voxtral Realtime: token ids to bytes, and the stream's paddings."""

import binascii
from pathlib import Path
from typing import Any

from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.models.checkpoint import read_json

__all__ = ["VoxtralTokenizer"]

MAX_DELAY_MS = 10_000
MAX_LEFT_PAD = 1024  # positions; all published checkpoints have 32
# Positions that the longest word may take after the audio has ended (mistral_common).
WORD_POSITIONS = 10


class VoxtralTokenizer:
    """What streaming needs of ``tekken.json``: no text is ever encoded, so no merges.

    Attributes:
        bos, eos: ids that open the prompt, and that end a text (a stream goes on after it).
        pad: id of ``[STREAMING_PAD]``: nothing to write at this position.
        word: id of ``[STREAMING_WORD]``: a word or a group of words follows.
        vocab_size: number of tokens, special ones included.
        n_left_pad: positions of silence before the audio.
        position_ms: milliseconds of audio in one position.
        default_delay_ms: the delay that the checkpoint recommends.

    Args:
        path: the file.
        vocab_size: rows of the model's embedding; the tokenizer may not have more.

    Raises:
        CheckpointError: if the file is missing, broken, not a streaming tokenizer, or of
            another model.
    """

    def __init__(self, path: Path, vocab_size: int) -> None:
        if not path.is_file():
            raise CheckpointError(f"{path}: the tokenizer is missing")
        content = read_json(path)
        try:
            self._read_tokens(content)
            self._read_audio(content["audio"])
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise CheckpointError(f"{path}: not a usable tokenizer ({error!r:.200})") from error
        if self.vocab_size > vocab_size:
            raise CheckpointError(
                f"{path}: has {self.vocab_size} tokens, but the model only {vocab_size}"
            )

    def _read_tokens(self, content: dict[str, Any]) -> None:
        """Special tokens come first; the vocabulary's ranks follow them, cut to size."""
        vocabulary, config = content["vocab"], content["config"]
        self._n_special: int = config["default_num_special_tokens"]
        self.vocab_size: int = config["default_vocab_size"]
        special = {entry["token_str"]: entry["rank"] for entry in content["special_tokens"]}
        n_text = self.vocab_size - self._n_special
        if not 0 < self._n_special < self.vocab_size or n_text > len(vocabulary):
            raise ValueError(
                f"{self.vocab_size!r:.20} tokens, {self._n_special!r:.20} of them special, of "
                f"{len(vocabulary)} in the vocabulary"
            )
        self._pieces: list[bytes] = []
        for rank, entry in enumerate(vocabulary[:n_text]):
            if entry["rank"] != rank:
                raise ValueError(f"rank {entry['rank']!r:.20} where {rank} was due")
            self._pieces.append(binascii.a2b_base64(entry["token_bytes"], strict_mode=True))
        names = ("<s>", "</s>", "[STREAMING_PAD]", "[STREAMING_WORD]")
        for name in names:
            if type(special[name]) is not int or not 0 <= special[name] < self._n_special:
                raise ValueError(f"{name} cannot be token {special[name]!r:.20}")
        self.bos, self.eos, self.pad, self.word = (special[name] for name in names)

    def _read_audio(self, audio: dict[str, Any]) -> None:
        if audio["transcription_format"] != "streaming":
            raise ValueError("not a tokenizer of a streaming model")
        hop, rate = audio["audio_encoding_config"]["hop_length"], audio["sampling_rate"]
        position, delay = 1000 / audio["frame_rate"], audio["transcription_delay_ms"]
        if (hop, rate) != (160, 16000) or not (10 <= position <= 1000 and position % 10 == 0):
            raise ValueError(
                f"positions must be multiples of 10 ms, of 160 samples at 16000 Hz; here they last "
                f"{position!r:.20} ms, hops {hop!r:.20} samples at {rate!r:.20} Hz"
            )
        if not 0 < delay <= MAX_DELAY_MS or delay % position:
            raise ValueError(
                f"a delay of {delay!r:.20} ms; expected a multiple of {position:g} up to "
                f"{MAX_DELAY_MS}"
            )
        pad = audio["streaming_n_left_pad_tokens"]
        if type(pad) is not int or not 0 <= pad <= MAX_LEFT_PAD:
            raise ValueError(f"{pad!r:.20} positions of padding; {MAX_LEFT_PAD} at most")
        self.position_ms, self.default_delay_ms, self.n_left_pad = int(position), int(delay), pad

    def n_delay(self, delay_ms: int) -> int:
        """Positions in a delay.

        Raises:
            InvalidOptionError: if it is no positive multiple of a position.
        """
        if not isinstance(delay_ms, int) or delay_ms <= 0 or delay_ms % self.position_ms:
            raise InvalidOptionError(
                f"delay_ms must be a positive multiple of {self.position_ms}; got {delay_ms!r}"
            )
        return delay_ms // self.position_ms

    def n_right_pad(self, delay_ms: int) -> int:
        """Positions of silence that bring out the last word of an utterance."""
        return self.n_delay(delay_ms) + 1 + WORD_POSITIONS

    def piece(self, token: int) -> bytes | None:
        """The bytes of a text token; None for a special one."""
        if token < self._n_special or token >= self.vocab_size:
            return None
        return self._pieces[token - self._n_special]

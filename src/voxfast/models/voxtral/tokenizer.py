"""The tokenizer of Voxtral Realtime: token ids to bytes, and the stream's paddings."""

from pathlib import Path
from typing import Any

from voxfast.audio import SAMPLE_RATE
from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.features import HOP_LENGTH
from voxfast.models.checkpoint import read_json

__all__ = ["VoxtralTokenizer"]

MAX_DELAY_MS = 10_000
MAX_LEFT_PAD = 1024  # positions; all published checkpoints have 32


class VoxtralTokenizer:
    """The parts of ``tekken.json`` that streaming needs, read by ``mistral_common``.

    That library allocates memory by the sizes in the file and computes with its times, so these
    are validated first.

    Attributes:
        bos, eos: ids that begin the prompt, and that end a text (the stream goes on).
        pad: id of ``[STREAMING_PAD]``, the blank: no text at this position.
        word: id of ``[STREAMING_WORD]``: a word or a group of words follows.
        vocab_size: number of tokens, including special ones.
        n_left_pad: positions of silence before the audio.
        position_ms: milliseconds of audio per position.
        default_delay_ms: the delay recommended for the checkpoint.

    Args:
        path: the file.
        vocab_size: size of the model's embedding, the upper limit for the tokenizer.

    Raises:
        CheckpointError: if the file is missing, broken, not a streaming tokenizer, or of
            another model.
    """

    def __init__(self, path: Path, vocab_size: int) -> None:
        if not path.is_file():
            raise CheckpointError(f"{path}: the tokenizer is missing")
        try:
            content = read_json(path)
            _check_sizes(content)
            _check_audio(content["audio"])
            self._read(path)
        except CheckpointError:
            raise
        except (
            Exception
        ) as error:  # pydantic's, KeyError, binascii's: a broken file, whatever it was
            raise CheckpointError(f"{path}: not a usable tokenizer ({error!r:.200})") from error
        if self.vocab_size > vocab_size:
            raise CheckpointError(
                f"{path}: has {self.vocab_size} tokens, but the model only {vocab_size}"
            )

    def _read(self, path: Path) -> None:
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer  # 0.4 s: only when needed

        tekken = Tekkenizer.from_file(path)
        audio = tekken.audio
        assert audio is not None
        self._tekken, self._audio = tekken, audio
        self.bos, self.eos = tekken.bos_id, tekken.eos_id
        self.pad = tekken.get_special_token("[STREAMING_PAD]")
        self.word = tekken.get_special_token("[STREAMING_WORD]")
        self.vocab_size: int = tekken.n_words
        self._n_special: int = tekken.num_special_tokens
        self.n_left_pad: int = audio.n_left_pad_tokens
        self.position_ms = int(audio.frame_duration_ms)
        self.default_delay_ms = int(audio.transcription_delay_ms or 0)

    def n_delay(self, delay_ms: int) -> int:
        """Positions in a delay.

        Raises:
            InvalidOptionError: if it is not a positive multiple of a position.
        """
        if not isinstance(delay_ms, int) or delay_ms <= 0 or delay_ms % self.position_ms:
            raise InvalidOptionError(
                f"delay_ms must be an integer, a positive multiple of {self.position_ms}; "
                f"got {delay_ms!r:.60}"
            )
        return int(self._audio.get_num_delay_tokens(delay_ms))

    def n_right_pad(self, delay_ms: int) -> int:
        """Positions of silence after which the last word of an utterance is written."""
        return int(self._audio.n_right_pad_tokens(delay_ms))

    def encode(self, text: str) -> list[int]:
        """Text tokens of a text; what looks like a special token is text."""
        return list(self._tekken.encode(text, bos=False, eos=False))

    def piece(self, token: int) -> bytes | None:
        """The bytes of a text token; None for a special one."""
        if token < self._n_special or token >= self.vocab_size:
            return None
        return bytes(self._tekken.id_to_byte_piece(token))


def _check_sizes(content: dict[str, Any]) -> None:
    """Check the sizes: special tokens first, then the ranks of the vocabulary, truncated."""
    vocabulary, config = content["vocab"], content["config"]
    n_special, n_tokens = config["default_num_special_tokens"], config["default_vocab_size"]
    if not 0 < n_special < n_tokens or n_tokens - n_special > len(vocabulary):
        raise ValueError(
            f"{n_tokens!r:.20} tokens, {n_special!r:.20} of them special, of "
            f"{len(vocabulary)} in the vocabulary"
        )
    for rank, entry in enumerate(vocabulary[: n_tokens - n_special]):
        if entry["rank"] != rank:
            raise ValueError(f"rank {entry['rank']!r:.20} where {rank} was due")
    special = {entry["token_str"]: entry["rank"] for entry in content["special_tokens"]}
    for name in ("<s>", "</s>", "[STREAMING_PAD]", "[STREAMING_WORD]"):
        if type(special[name]) is not int or not 0 <= special[name] < n_special:
            raise ValueError(f"{name} cannot be token {special[name]!r:.20}")


def _check_audio(audio: dict[str, Any]) -> None:
    if audio["transcription_format"] != "streaming":
        raise ValueError("not a tokenizer of a streaming model")
    hop, rate = audio["audio_encoding_config"]["hop_length"], audio["sampling_rate"]
    position, delay = 1000 / audio["frame_rate"], audio["transcription_delay_ms"]
    if (hop, rate) != (HOP_LENGTH, SAMPLE_RATE) or not (
        10 <= position <= 1000 and position % 10 == 0
    ):
        raise ValueError(
            f"positions must be multiples of 10 ms, of {HOP_LENGTH} samples at {SAMPLE_RATE} Hz; "
            f"here they last {position!r:.20} ms, hops {hop!r:.20} samples at {rate!r:.20} Hz"
        )
    if not 0 < delay <= MAX_DELAY_MS or delay % position:
        raise ValueError(
            f"a delay of {delay!r:.20} ms; expected a multiple of {position:g} up to {MAX_DELAY_MS}"
        )
    pad = audio["streaming_n_left_pad_tokens"]
    if type(pad) is not int or not 0 <= pad <= MAX_LEFT_PAD:
        raise ValueError(f"{pad!r:.20} positions of padding; {MAX_LEFT_PAD} at most")

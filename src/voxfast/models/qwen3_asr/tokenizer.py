"""The tokenizer of Qwen3-ASR: prompts and text to token ids, token ids to bytes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.models.checkpoint import MAX_JSON, check_file, read_json
from voxfast.models.qwen3_asr.byte_level_bpe import ByteLevelBPE, byte_alphabet, read_merges

__all__ = ["Qwen3ASRTokenizer"]

_AUDIO = "<|audio_pad|>"
_NEEDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_end|>")
_PROMPT = (
    "<|im_start|>system\n{context}<|im_end|>\n"
    f"<|im_start|>user\n<|audio_start|>{_AUDIO}<|audio_end|><|im_end|>\n"
    "<|im_start|>assistant\n"
)


class Qwen3ASRTokenizer:
    """The parts of the tokenizer that streaming needs.

    Attributes:
        ends: ids that end a text.
        asr_text: id of ``<asr_text>``, the separator of language and text.

    Args:
        folder: with ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``.
        vocab_size: size of the model's embedding, the upper limit for token ids.

    Raises:
        CheckpointError: if a file is missing, broken, or of another model.
    """

    def __init__(self, folder: Path, vocab_size: int) -> None:
        vocabulary = read_json(folder / "vocab.json")
        config = read_json(folder / "tokenizer_config.json")
        check_file(folder / "merges.txt", MAX_JSON)
        if not all(type(token) is int for token in vocabulary.values()):
            raise CheckpointError(f"{folder}: vocab.json must give every token an integer")
        try:
            alphabet = byte_alphabet()
            self._pieces = {
                token: bytes(alphabet[character] for character in piece)
                for piece, token in vocabulary.items()
            }
            added = _added_tokens(config)
            merges = read_merges((folder / "merges.txt").read_text("utf-8"))
            self._bpe = ByteLevelBPE(vocabulary, merges, added)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{folder}: not a usable tokenizer ({error!r:.200})") from error
        for name in ("<asr_text>", _AUDIO, *_NEEDED):
            if added.get(name) is None:
                raise CheckpointError(f"{folder}: not a tokenizer of Qwen3-ASR: it has no {name}")
            if added[name] in self._pieces or list(added.values()).count(added[name]) > 1:
                raise CheckpointError(f"{folder}: {name} must be a token of its own")
        self.asr_text, self._audio = added["<asr_text>"], added[_AUDIO]
        self.ends = frozenset({added["<|endoftext|>"], added["<|im_end|>"]})
        self._added = frozenset(added.values())
        # The embedding does not check its indices.
        tokens = self._added | self._pieces.keys()
        if min(tokens) < 0 or max(tokens) >= vocab_size:
            raise CheckpointError(
                f"{folder}: the tokenizer has tokens {min(tokens)} to {max(tokens)}, but the model "
                f"0 to {vocab_size - 1}"
            )

    def prompt(self, context: str = "") -> tuple[list[int], list[int]]:
        """The tokens before and after the audio embeddings.

        Args:
            context: text of the system turn: names and terms that are going to be spoken.

        Raises:
            InvalidOptionError: if the context contains a special token, or invalid Unicode.
        """
        try:
            is_plain = self._added.isdisjoint(self.encode(context))
        except UnicodeEncodeError as error:
            raise InvalidOptionError(
                f"prompt= must be Unicode without lone surrogates; got {context!r:.80}"
            ) from error
        if not is_plain:
            raise InvalidOptionError(
                f"prompt= may not hold the text of special tokens; got {context!r:.80}"
            )
        tokens = self.encode(_PROMPT.replace("{context}", context))
        place = tokens.index(self._audio)
        return tokens[:place], tokens[place + 1 :]

    def language_prefix(self, name: str) -> list[int]:
        """The header that the model writes before a text in this language."""
        return self.encode(f"language {name}<asr_text>")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self._bpe.encode(text)

    def text(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without special ones and incomplete characters."""
        return b"".join(self.piece(token) or b"" for token in tokens).decode("utf-8", "ignore")

    def piece(self, token: int) -> bytes | None:
        """The bytes of a text token; None for a special one."""
        return self._pieces.get(token)


def _added_tokens(config: dict[str, Any]) -> dict[str, int]:
    """Ids of the added tokens by their text."""
    added = (config.get("added_tokens_decoder") or {}).items()
    return {str(token["content"]): int(number) for number, token in added if token["content"]}

"""The tokenizer of Qwen3-ASR: prompts and text to token ids, token ids to bytes."""

from pathlib import Path

from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.models.checkpoint import MAX_JSON, check_file, read_json

__all__ = ["Qwen3ASRTokenizer"]


class Qwen3ASRTokenizer:
    """What streaming needs of the tokenizer, read through ``mlx_qwen3_asr``.

    Attributes:
        ends: ids that end a text.
        asr_text: id of ``<asr_text>``, which stands between the language and the text.

    Args:
        folder: with ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``.
        vocab_size: rows of the model's embedding; the tokenizer may not have more.

    Raises:
        CheckpointError: if a file is missing, broken, or of another model.
    """

    def __init__(self, folder: Path, vocab_size: int) -> None:
        from mlx_qwen3_asr.tokenizer import Tokenizer

        # Checked here, because the library would go and download what it misses.
        vocabulary = read_json(folder / "vocab.json")
        added = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
        check_file(folder / "merges.txt", MAX_JSON)
        if not all(type(token) is int for token in vocabulary.values()):
            raise CheckpointError(f"{folder}: vocab.json must give every token an integer")
        try:
            self._tokenizer = Tokenizer(str(folder))
            special = self._tokenizer.encode("<asr_text>")
            prompt = self._tokenizer.build_prompt_tokens(1)
            alphabet = _alphabet()
            self._pieces = {
                token: bytes(alphabet[character] for character in piece)
                for piece, token in vocabulary.items()
            }
            self.ends = frozenset(self._tokenizer.EOS_TOKEN_IDS)
            # All that can be looked up in the embedding, which takes what it is given.
            tokens = {*self._pieces, *self.ends, *prompt, *map(int, added)}
        except (
            OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError
        ) as error:  # fmt: skip
            raise CheckpointError(f"{folder}: not a usable tokenizer ({error!r:.200})") from error
        if len(special) != 1 or special[0] in self._pieces:
            raise CheckpointError(f"{folder}: not a tokenizer of Qwen3-ASR: it has no <asr_text>")
        self.asr_text: int = special[0]
        audio = self._tokenizer.AUDIO_TOKEN_ID
        if prompt.count(audio) != 1 or audio in self._pieces:
            raise CheckpointError(f"{folder}: <|audio_pad|> must be a token of its own")
        if min(tokens) < 0 or max(tokens) >= vocab_size:
            raise CheckpointError(
                f"{folder}: the tokenizer has tokens {min(tokens)} to {max(tokens)}, but the model "
                f"0 to {vocab_size - 1}"
            )

    def prompt(self, context: str = "") -> tuple[list[int], list[int]]:
        """What stands before the audio embeddings and after them.

        Args:
            context: text for the system turn: names and terms that are going to be spoken.

        Raises:
            InvalidOptionError: if the context holds a special token's text.
        """
        if any(token not in self._pieces for token in self.encode(context)):
            raise InvalidOptionError(
                f"prompt= may not hold the text of special tokens; got {context!r:.80}"
            )
        tokens: list[int] = self._tokenizer.build_prompt_tokens(1, context=context)
        place = tokens.index(self._tokenizer.AUDIO_TOKEN_ID)
        return tokens[:place], tokens[place + 1 :]

    def language_prefix(self, name: str) -> list[int]:
        """What the model itself writes before a text in that language."""
        return self.encode(f"language {name}<asr_text>")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        tokens: list[int] = self._tokenizer.encode(text)
        return tokens

    def piece(self, token: int) -> bytes | None:
        """The bytes of a text token; None for a special one."""
        return self._pieces.get(token)


def _alphabet() -> dict[str, int]:
    """The characters that stand for bytes in a byte-level vocabulary, as GPT-2 chose them.

    Printable bytes of Latin-1 stand for themselves, the others for code points from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }

"""vocab.json, merges.txt and tokenizer_config.json: byte-level BPE with the real special ids.

Ids are either real, as in the published checkpoints, or compact: the row of the small embedding
that training uses, merges first, then the special tokens.
"""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import regex

from ..grammar import VOCABULARY

__all__ = ["FILES", "SPECIAL", "Tokenizer", "write_tokenizer"]

FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")
MERGES = 200
SPECIAL = {
    151643: "<|endoftext|>",
    151644: "<|im_start|>",
    151645: "<|im_end|>",
    151669: "<|audio_start|>",
    151670: "<|audio_end|>",
    151676: "<|audio_pad|>",
    151704: "<asr_text>",
}
END, AUDIO = 151645, 151676
# Of the prompt and of the language: seen in every example, so they are merged first.
FREQUENT = ("system", "user", "assistant", "language", " English")
_PIECES = regex.compile(r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")


def _byte_characters() -> dict[int, str]:
    """GPT-2's printable character of each byte, those that print as themselves first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    return characters | {byte: chr(256 + place) for place, byte in enumerate(others)}


def _merges(count: int) -> list[tuple[str, str]]:
    """The first ``count`` merges over the vocabulary, with and without a space before a word."""
    characters = _byte_characters()
    texts = [*FREQUENT, *(f" {word}" for word in VOCABULARY), *VOCABULARY]
    spellings = [[characters[byte] for byte in text.encode()] for text in texts]
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for place, pieces in enumerate(spellings):
            for pair in pairwise(pieces):
                pairs[pair] += 3 if place < len(FREQUENT) else 1
        chosen = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(chosen)
        spellings = [_merge(pieces, chosen) for pieces in spellings]
    return merges


def _merge(pieces: Sequence[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    place = 0
    while place < len(pieces):
        if tuple(pieces[place : place + 2]) == pair:
            merged.append(pieces[place] + pieces[place + 1])
            place += 2
        else:
            merged.append(pieces[place])
            place += 1
    return merged


def write_tokenizer(folder: Path) -> int:
    """Writes the three files; returns the number of ids in use."""
    merges = _merges(MERGES)
    characters = _byte_characters()
    ids = {character: place for place, character in enumerate(characters.values())}
    for left, right in merges:
        ids[left + right] = len(ids)
    vocabulary, merged, config = (folder / name for name in FILES)
    vocabulary.write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    merged.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config.write_text(json.dumps(_config(), indent=1), encoding="utf-8")
    return len(ids) + len(SPECIAL)


def _config() -> dict[str, object]:
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072,
        "split_special_tokens": False,
        "added_tokens_decoder": {
            str(number): {
                "content": content,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": content != "<asr_text>",
            }
            for number, content in SPECIAL.items()
        },
    }


class Tokenizer:
    """Text to compact ids and back, for the texts of training and of its evaluation.

    Attributes:
        real: [rows] the real id of each compact id.
        first, rest: compact ids of each word of the vocabulary, as the first one of a transcript
            and after a space.
        language: compact ids of "language English<asr_text>".
        end, audio: compact ids of <|im_end|> and <|audio_pad|>.
    """

    def __init__(self, folder: Path) -> None:
        vocabulary, merged, _ = (folder / name for name in FILES)
        self._ids: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))
        lines = merged.read_text(encoding="utf-8").splitlines()[1:]
        self._ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}
        self._characters = _byte_characters()
        self._bytes = {character: byte for byte, character in self._characters.items()}
        self._texts = {number: text for text, number in self._ids.items()}
        self.real = [*range(len(self._ids)), *SPECIAL]
        self._compact = {real: compact for compact, real in enumerate(self.real)}
        self.end, self.audio = self._compact[END], self._compact[AUDIO]
        self.first = {word: self.encode(word) for word in VOCABULARY}
        self.rest = {word: self.encode(f" {word}") for word in VOCABULARY}
        self.language = [*self.encode("language English"), self._special("<asr_text>")]

    def _special(self, content: str) -> int:
        return next(self._compact[real] for real, text in SPECIAL.items() if text == content)

    def encode(self, text: str) -> list[int]:
        """Compact ids of plain text, without special tokens."""
        ids: list[int] = []
        for piece in _PIECES.findall(text):
            parts = [self._characters[byte] for byte in piece.encode()]
            while len(parts) > 1:
                best = min(pairwise(parts), key=lambda pair: self._ranks.get(pair, len(self._ids)))
                if best not in self._ranks:
                    break
                parts = _merge(parts, best)
            ids += [self._ids[part] for part in parts]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of compact ids; special tokens are left out."""
        characters = "".join(self._texts.get(number, "") for number in ids)
        return bytes(self._bytes[c] for c in characters).decode(errors="replace")

    def prompt(self, audio_tokens: int, context: str = "", *, forced: bool = True) -> list[int]:
        """The chat template: system context, audio, and the language where it is ``forced``."""
        start, end, newline = self._special("<|im_start|>"), self.end, self.encode("\n")
        audio = [self.audio] * audio_tokens
        return [
            start, *self.encode("system\n"), *self.encode(context), end, *newline,
            start, *self.encode("user\n"),
            self._special("<|audio_start|>"), *audio, self._special("<|audio_end|>"), end, *newline,
            start, *self.encode("assistant\n"), *(self.language if forced else []),
        ]  # fmt: skip

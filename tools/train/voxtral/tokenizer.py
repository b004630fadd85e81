"""A tekken.json for the vocabulary: 1000 special tokens, 256 bytes and byte-pair merges."""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from ..grammar import VOCABULARY
from ..mel import HOP, N_FFT, N_MELS
from ..speech import SAMPLE_RATE
from .stream import FIRST_TEXT_ID, LEFT_PAD, POSITION_SECONDS

__all__ = [
    "MERGES",
    "RARE_MERGES",
    "byte_pair_merges",
    "load_tokenizer",
    "word_tokens",
    "write_tokenizer",
]

MERGES = 152  # 27 of the 71 words become one token and 44 two, so that both cases are trained
RARE_MERGES = 64  # more, of the rare words: they become two to four tokens, as names do

# A piece is a run of letters, digits or other signs with the space before it, or blanks alone.
_PATTERN = r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+"

_SPECIAL = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    11: "<pad>",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    32: "[STREAMING_PAD]",
    33: "[STREAMING_WORD]",
    34: "[TRANSCRIBE]",
    35: "[REPEAT_AUDIO_TEXT]",
    36: "[NEXT_AUDIO_TEXT]",
}


def byte_pair_merges(
    texts: Sequence[str], count: int, known: Sequence[bytes] = (), spared: Sequence[str] = ()
) -> list[bytes]:
    """The next ``count`` merges of byte-pair encoding over ``texts``, the commonest pair first.

    Of equally common pairs the greater one in byte order is taken, so that the result is always
    the same.

    Args:
        known: merges that there are already.
        spared: texts whose spelling may not change.

    Raises:
        ValueError: the texts do not have that many pairs.
    """
    spellings = [_spell(text, known) for text in texts]
    kept = {a + b for text in spared for a, b in pairwise(_spell(text, known))}
    merges: list[bytes] = []
    while len(merges) < count:
        pairs = Counter(
            (a, b) for pieces in spellings for a, b in pairwise(pieces) if a + b not in kept
        )
        if not pairs:
            raise ValueError(f"{len(texts)} texts give only {len(merges)} merges, not {count}")
        chosen = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(b"".join(chosen))
        spellings = [_merge(pieces, chosen) for pieces in spellings]
    return merges


def _spell(text: str, merges: Sequence[bytes]) -> list[bytes]:
    pieces = [bytes([byte]) for byte in text.encode()]
    for merged in merges:
        for length in range(1, len(merged)):
            pieces = _merge(pieces, (merged[:length], merged[length:]))
    return pieces


def _merge(pieces: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    merged: list[bytes] = []
    for piece in pieces:
        # A piece that was merged just now is longer than pair[0] and cannot match it again.
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def write_tokenizer(path: Path, words: Sequence[str] = VOCABULARY) -> int:
    """Writes tekken.json and returns the size of the vocabulary, special tokens included.

    Words beyond ``VOCABULARY`` have merges of their own, which leave its spelling as it is.
    """
    common = [f" {word}" for word in VOCABULARY]
    rare = [f" {word}" for word in words if word not in VOCABULARY]
    merges = byte_pair_merges(common, MERGES)
    if rare:
        merges += byte_pair_merges(rare, RARE_MERGES, merges, common)
    texts = [*(bytes([byte]) for byte in range(256)), *merges]
    document = {
        "config": {
            "pattern": _PATTERN,
            "num_vocab_tokens": len(texts),
            "default_vocab_size": FIRST_TEXT_ID + len(texts),
            "default_num_special_tokens": FIRST_TEXT_ID,
            "version": "v13",
        },
        "vocab": [_entry(rank, text) for rank, text in enumerate(texts)],
        "special_tokens": [
            {"rank": rank, "token_str": _SPECIAL.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
            for rank in range(FIRST_TEXT_ID)
        ],
        "version": 1,
        "type": "Tekken",
        "audio": {
            "sampling_rate": SAMPLE_RATE,
            "frame_rate": 1 / POSITION_SECONDS,
            "transcription_format": "streaming",
            "transcription_delay_ms": 480,
            "streaming_look_ahead_ms": 2.5,
            "streaming_look_back_ms": 52.5,
            "streaming_n_left_pad_tokens": LEFT_PAD,
            "audio_encoding_config": {
                "num_mel_bins": N_MELS,
                "hop_length": HOP,
                "window_size": N_FFT,
            },
        },
    }
    path.write_text(json.dumps(document, indent=0, ensure_ascii=False), encoding="utf-8")
    return FIRST_TEXT_ID + len(texts)


def _entry(rank: int, text: bytes) -> dict[str, object]:
    try:
        shown: str | None = text.decode()
    except UnicodeDecodeError:
        shown = None  # half a character; the bytes are what counts
    return {"rank": rank, "token_bytes": base64.b64encode(text).decode(), "token_str": shown}


def load_tokenizer(path: Path) -> Tekkenizer:
    """The tokenizer of a tekken.json."""
    return Tekkenizer.from_file(path)


def word_tokens(tokenizer: Tekkenizer, words: Sequence[str] = VOCABULARY) -> dict[str, list[int]]:
    """Text ids of every word, with its leading space."""
    return {word: tokenizer.encode(f" {word}", bos=False, eos=False) for word in words}

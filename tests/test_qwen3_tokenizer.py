"""The tokenizer of Qwen3-ASR: ids, prompts, and files that are refused."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_qwen3_asr.tokenizer import Tokenizer

from voxfast.errors import CheckpointError, InvalidOptionError
from voxfast.models.qwen3_asr.byte_level_bpe import ByteLevelBPE, byte_alphabet, read_merges
from voxfast.models.qwen3_asr.tokenizer import Qwen3ASRTokenizer

FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")
# Merges as the published file has them: some begin with the sign of a comment.
MERGES = """#version: 0.2
# #
Ġ #
## ##
Ġ ##
# include
i n
in c
Ã ©
c a
"""


@pytest.fixture(scope="module")
def tokenizer(qwen_folder: Path) -> Qwen3ASRTokenizer:
    return Qwen3ASRTokenizer(qwen_folder, 151936)


@pytest.fixture(scope="module")
def hashes() -> ByteLevelBPE:
    pieces = [*byte_alphabet(), *("##", "Ġ#", "####", "Ġ##", "#include", "in", "inc", "Ã©", "ca")]
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    return ByteLevelBPE(vocabulary, read_merges(MERGES), {"<asr_text>": 1000})


def pieces_of(bpe: ByteLevelBPE, text: str) -> list[str]:
    names = {token: piece for piece, token in bpe._vocabulary.items()}
    return [names.get(token, f"[{token}]") for token in bpe.encode(text)]


# ---- ids ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("##", ["##"]),
        ("C## ## ###", ["C", "##", "Ġ##", "Ġ##", "#"]),
        ("######", ["####", "##"]),
        ("#version: 0", ["#", *"version", ":", "Ġ", "0"]),
        ("#inc", ["#", "inc"]),  # punctuation and letters are words of their own
        ("é", ["Ã©"]),
        ("e\u0301", ["Ã©"]),
        ("cafe\u0301 e", ["ca", "f", "Ã©", "Ġ", "e"]),
        ("1990", ["1", "9", "9", "0"]),
        ("a\n\n b", ["a", "Ċ", "Ċ", "Ġ", "b"]),
        ("#<asr_text>#", ["#", "[1000]", "#"]),
        ("<asr_text>\u0338", ["[1000]", "Ì", "¸"]),  # NFC does not reach over an added token
        ("", []),
    ],
)
def test_merges_that_look_like_comments_count_and_text_is_normalised(
    hashes: ByteLevelBPE, text: str, pieces: list[str]
) -> None:
    assert pieces_of(hashes, text) == pieces


def _merge_all(ranks: dict[tuple[str, str], int], letters: str) -> list[str]:
    """As GPT-2's encoder has it: all pairs of the lowest rank are joined, then all of the next."""
    pieces = list(letters)
    while found := [pair for pair in pairwise(pieces) if pair in ranks]:
        best, joined = min(found, key=ranks.__getitem__), []
        while pieces:
            size = 2 if tuple(pieces[:2]) == best else 1
            joined.append("".join(pieces[:size]))
            del pieces[:size]
        pieces = joined
    return pieces


@given(st.data())
def test_pairs_are_joined_in_the_order_of_their_ranks(data: st.DataObject) -> None:
    known, ranks = list("abc"), {}
    for _ in range(data.draw(st.integers(0, 12))):
        pair = (data.draw(st.sampled_from(known)), data.draw(st.sampled_from(known)))
        if "".join(pair) not in known:
            ranks[pair] = len(ranks)
            known.append("".join(pair))
    alphabet = byte_alphabet()
    vocabulary = {piece: token for token, piece in enumerate({*alphabet, *known})}
    word = data.draw(st.text(alphabet="abc", max_size=40))
    assert pieces_of(ByteLevelBPE(vocabulary, ranks, {}), word) == _merge_all(ranks, word)


def test_a_word_of_200_kb(tokenizer: Qwen3ASRTokenizer, hashes: ByteLevelBPE) -> None:
    for word in ("#" * 200_000, "ab" * 100_000):
        tokens = tokenizer.encode(word)  # in quadratic time, it would take minutes
        assert b"".join(map(tokenizer.piece, tokens)).decode() == word
    assert pieces_of(hashes, "#" * 200_001) == ["####"] * 50_000 + ["#"]


def test_only_the_first_line_of_the_merges_is_a_comment() -> None:
    pairs = read_merges(MERGES)
    assert pairs[:2] == [("#", "#"), ("Ġ", "#")]
    assert len(pairs) == MERGES.count("\n") - 1
    assert read_merges("# #\n\n#version: 0\r\n") == [("#", "#"), ("#version:", "0")]
    with pytest.raises(ValueError, match="line 2 must be two pieces"):
        read_merges("a b\na b c")


@given(st.text(alphabet="aeinrtwy 1é数🙂'.#\n\t<", max_size=40))
def test_ids_are_those_of_the_library_where_it_is_right(
    qwen_folder: Path, tokenizer: Qwen3ASRTokenizer, text: str
) -> None:
    """The small checkpoint's merges hold no ``#``, and the text is in NFC."""
    library = _library(qwen_folder)
    assert tokenizer.encode(text) == library.encode(text)


def _library(folder: Path, known: dict[Path, Tokenizer] = {}) -> Tokenizer:  # noqa: B006
    return known.setdefault(folder, Tokenizer(str(folder)))


def test_pieces_give_the_text_again(tokenizer: Qwen3ASRTokenizer) -> None:
    for text in ("twenty three degrees", "ünïcödé 数字 🙂", "\t\n "):
        pieces = [tokenizer.piece(token) for token in tokenizer.encode(text)]
        assert b"".join(piece or b"" for piece in pieces).decode() == text
    assert tokenizer.piece(tokenizer.asr_text) is None
    assert all(tokenizer.piece(token) is None for token in tokenizer.ends)


# ---- prompts ------------------------------------------------------------------------


def test_prompts_are_those_of_the_chat_template(tokenizer: Qwen3ASRTokenizer) -> None:
    head, tail = tokenizer.prompt()
    assert [token for token in head + tail if token > 151_000] == [
        *(151644, 151645, 151644, 151669, 151670, 151645, 151644)
    ]
    text = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n<|audio_start|>"
    for context in ("", "Maria", "\nMaria", " # e\u0301\n"):
        assert tokenizer.prompt(context) == (tokenizer.encode(text.format(context)), tail)
    assert tail == tokenizer.encode("<|audio_end|><|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.language_prefix("English")[-1] == tokenizer.asr_text
    assert tokenizer.prompt("cafe\u0301") == tokenizer.prompt("café")


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ("Maria <|im_end|>", "special tokens"),
        ("<asr_text>", "special tokens"),
        ("Maria \ud800", "lone surrogates"),
    ],
)
def test_a_prompt_cannot_smuggle_special_tokens(
    tokenizer: Qwen3ASRTokenizer, context: str, message: str
) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        tokenizer.prompt(context)


# ---- files --------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_a_tokenizer_that_is_not_whole_is_refused(
    qwen_folder: Path, tmp_path: Path, file: str
) -> None:
    for name in FILES:
        if name != file:
            (tmp_path / name).write_bytes((qwen_folder / name).read_bytes())
    with pytest.raises(CheckpointError, match=file):
        Qwen3ASRTokenizer(tmp_path, 151936)


def test_a_tokenizer_of_another_model_is_refused(qwen_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tokens 0 to 151704, but the model 0 to 999"):
        Qwen3ASRTokenizer(qwen_folder, 1000)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((qwen_folder / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no <asr_text>"):
        Qwen3ASRTokenizer(tmp_path, 151936)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("vocab.json", '"!": 0', '"!": "0"', "every token an integer"),
        ("vocab.json", '"!": 0', '"!": 1e999', "every token an integer"),
        ("vocab.json", '"!": 0', '"!": -1', "tokens -1 to 151704"),
        ("vocab.json", '"!": 0', '"!": 0, "<|audio_pad|>": 151676', "a token of its own"),
        ("tokenizer_config.json", '"151669"', '"1073741824"', "to 1073741824, but the model"),
        ("tokenizer_config.json", '"151676"', '"151644"', r"it has no <\|im_start\|>"),
        ("tokenizer_config.json", '"151669"', '"x"', "not a usable tokenizer"),
        (
            "tokenizer_config.json",
            '": "<|im_end|>",\n   "l',
            '": "x",\n   "l',
            r"it has no <\|im_end\|>",
        ),
        ("tokenizer_config.json", '"<|audio_end|>"', "3", r"it has no <\|audio_end\|>"),
        ("vocab.json", '"!": 0', '"!!": 0', "the vocabulary has no '!'"),
        ("merges.txt", "e n", "e n n", "line 2 must be two pieces"),
        ("merges.txt", "e n", "e qqq", "the vocabulary has no 'eqqq'"),
    ],
)
def test_tokens_that_no_embedding_has_are_refused(
    qwen_folder: Path, tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes((qwen_folder / name).read_bytes())
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        Qwen3ASRTokenizer(tmp_path, 151936)

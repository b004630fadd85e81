"""What the tokenizer takes from mistral_common, and what it refuses before that."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from voxfast.errors import CheckpointError
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer


def test_it_reads_what_mistral_common_reads(voxtral_folder: Path) -> None:
    path = voxtral_folder / "tekken.json"
    theirs, ours = Tekkenizer.from_file(path), VoxtralTokenizer(path, 1408)
    audio = theirs.audio
    assert audio is not None
    assert (ours.bos, ours.eos) == (theirs.bos_id, theirs.eos_id)
    assert ours.pad == theirs.get_special_token("[STREAMING_PAD]")
    assert ours.word == theirs.get_special_token("[STREAMING_WORD]")
    assert (ours.vocab_size, ours.n_left_pad) == (theirs.n_words, audio.n_left_pad_tokens)
    assert ours.position_ms == audio.frame_duration_ms
    assert ours.default_delay_ms == audio.transcription_delay_ms
    for delay in (80, 240, 480, 960, 2400):
        assert ours.n_delay(delay) == audio.get_num_delay_tokens(delay)
        assert ours.n_right_pad(delay) == audio.n_right_pad_tokens(delay)
    n_special = theirs.num_special_tokens
    assert all(ours.piece(token) is None for token in (0, n_special - 1, theirs.n_words, 1 << 40))
    pieces = [theirs.id_to_byte_piece(token) for token in range(n_special, theirs.n_words)]
    assert [ours.piece(token) for token in range(n_special, theirs.n_words)] == pieces


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["config"].update(default_num_special_tokens=1 << 48), "tokens"),
        (lambda t: t["config"].update(default_vocab_size=1 << 40), "1099511627776 tokens"),
        (lambda t: t["audio"].update(streaming_n_left_pad_tokens=1 << 40), "of padding; 1024"),
        (lambda t: t["audio"].update(transcription_delay_ms=8e9), "delay of 8000000000.0 ms"),
        (lambda t: t["audio"].update(frame_rate=0), "division by zero"),
        (lambda t: t["audio"].update(frame_rate=13), "multiples of 10 ms"),
        (lambda t: t["audio"].update(sampling_rate=8000), "at 8000 Hz"),
        (lambda t: t["audio"].update(transcription_format="instruct"), "streaming"),
        (lambda t: t.update(audio=3), "not a usable tokenizer"),
        (lambda t: t["vocab"][7].update(rank=8), "rank 8 where 7 was due"),
        (lambda t: t["vocab"][7].update(token_bytes="?"), "not a usable tokenizer"),
        (lambda t: t["special_tokens"][32].update(rank=5000), "cannot be token 5000"),
    ],
)
def test_sizes_and_times_that_cannot_be_are_refused(
    voxtral_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = json.loads((voxtral_folder / "tekken.json").read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        VoxtralTokenizer(path, 1408)

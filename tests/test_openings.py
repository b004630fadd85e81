"""Streams that begin behind an opening that was computed before write what they would without."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem

from voxfast.models.traits import read_traits
from voxfast.models.voxtral.network import Voxtral
from voxfast.models.voxtral.opening import MOST_OPENINGS, Openings
from voxfast.models.voxtral.passes import PassCosts
from voxfast.models.voxtral.stream import VoxtralStream
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.weights import load_voxtral
from voxfast.timed import Token


@pytest.fixture(scope="module", params=[mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def network(request: pytest.FixtureRequest, voxtral_folder: Path) -> Voxtral:
    return load_voxtral(voxtral_folder, request.param)


@pytest.fixture
def tokenizer(voxtral_folder: Path) -> VoxtralTokenizer:
    return VoxtralTokenizer(voxtral_folder / "tekken.json", 1408)


class Stream(VoxtralStream):
    """A stream that keeps its tokens."""

    def __init__(
        self,
        network: Voxtral,
        tokenizer: VoxtralTokenizer,
        folder: Path,
        openings: Openings | None = None,
        delay_ms: int = 480,
    ) -> None:
        self.tokens: list[Token] = []
        super().__init__(
            network,
            tokenizer,
            read_traits(folder),
            delay_ms,
            costs=PassCosts(),
            openings=openings,
            on_token=self.tokens.append,
        )


def advance(*streams: Stream) -> None:
    while due := [stream for stream in streams if stream.due]:
        due[0].step(due[1:])


@pytest.mark.parametrize("left_pad", [0, 1, 2, 32])
def test_streams_of_one_opening_write_what_they_would_alone(
    network: Voxtral,
    tokenizer: VoxtralTokenizer,
    voxtral_folder: Path,
    eval_items: list[EvalItem],
    left_pad: int,
) -> None:
    """Ids and probabilities, bit for bit, of several at once and of a later one."""
    tokenizer.n_left_pad = left_pad
    parts = [item.audio[:24000] for item in eval_items[:3]]
    expected = []
    for audio in parts:
        alone = Stream(network, tokenizer, voxtral_folder)
        alone.push(audio)
        advance(alone)
        expected.append(alone.tokens)
    openings = Openings(network, tokenizer)
    streams = [Stream(network, tokenizer, voxtral_folder, openings) for _ in parts]
    for at in range(0, len(parts[0]), 1280):
        for stream, audio in zip(streams, parts, strict=True):
            stream.push(audio[at : at + 1280])
        advance(*streams)
    later = Stream(network, tokenizer, voxtral_folder, openings)
    later.push(parts[0])
    advance(later)
    assert [stream.tokens for stream in [*streams, later]] == [*expected, expected[0]]
    assert all(len(tokens) > 10 for tokens in expected)


def test_an_opening_is_computed_once_and_few_are_kept(
    network: Voxtral, tokenizer: VoxtralTokenizer
) -> None:
    openings = Openings(network, tokenizer)
    before = network.pass_count.passes
    for n_delay in (6, 6, 3, 6, 12):
        assert openings.get(n_delay, 12).prompt == [tokenizer.pad] * (n_delay + 2)
    assert network.pass_count.passes - before == 3
    assert len(openings._read) == MOST_OPENINGS


def test_what_an_opening_has_computed_is_not_computed_again(
    network: Voxtral, tokenizer: VoxtralTokenizer, voxtral_folder: Path
) -> None:
    """The prompt has 39 positions, of which 8 are left."""
    openings = Openings(network, tokenizer)
    stream = Stream(network, tokenizer, voxtral_folder, openings)
    rows = network.pass_count.rows
    for _ in range(8):
        stream.push(np.zeros(1280, np.float32))
        advance(stream)
    assert len(stream.tokens) == 1
    assert network.pass_count.rows - rows == 8

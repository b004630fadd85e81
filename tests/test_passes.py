"""Passes of several rows: the tokens of one row at a time, and never much slower."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem

from voxfast import ops
from voxfast.models.traits import read_traits
from voxfast.models.voxtral.network import DecoderRows, Voxtral
from voxfast.models.voxtral.passes import MAX_ROWS, Acceptance, PassCosts
from voxfast.models.voxtral.stream import BlankGuard, VoxtralStream
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.weights import load_voxtral
from voxfast.timed import Token

RowsOf = Callable[[int], int]


class FixedRows(PassCosts):
    """Stands in for measurements: every pass has the rows that a function of ``due`` says."""

    def __init__(self, rows: RowsOf) -> None:
        super().__init__()
        self.rows = rows


@pytest.fixture
def fixed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Acceptance, "rows", lambda self, due, costs, beside=0: costs.rows(due))


@pytest.fixture(scope="module", params=[mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def network(request: pytest.FixtureRequest, voxtral_folder: Path) -> Voxtral:
    return load_voxtral(voxtral_folder, request.param)


def transcribe(
    network: Voxtral,
    folder: Path,
    audio: np.ndarray,
    chunk: int,
    rows: RowsOf | None,
    delay_ms: int = 480,
    guard: BlankGuard | None = None,
    left_pad: int | None = None,
) -> tuple[list[Token], int]:
    """The tokens, and the passes that they took. One by one without ``rows``."""
    tokens: list[Token] = []
    tokenizer = VoxtralTokenizer(folder / "tekken.json", 1408)
    tokenizer.n_left_pad = left_pad or tokenizer.n_left_pad
    stream = VoxtralStream(
        network,
        tokenizer,
        read_traits(folder),
        delay_ms,
        guard=guard,
        costs=None if rows is None else FixedRows(rows),
        on_token=tokens.append,
    )
    for utterance in np.array_split(audio, 2):
        for at in range(0, len(utterance), chunk):
            stream.push(utterance[at : at + chunk])
            run(stream)
        stream.end_utterance()
    stream.end_stream()
    run(stream)
    return tokens, stream._tokens.passes


def run(stream: VoxtralStream) -> None:
    while stream.due:
        stream.step()


def test_a_row_has_the_same_logits_alone_and_in_a_pass(network: Voxtral) -> None:
    """The premise of all that follows."""
    rng = np.random.default_rng(5)
    alone, together = (network.decoder_state(6, MAX_ROWS, start=77) for _ in range(2))
    for rows in (1, 7, 48, 2, 31, 5, 48):
        audio = mx.array(rng.standard_normal((rows, network.args.decoder.dim))).astype(
            network.dtype
        )
        tokens = mx.array(rng.integers(0, 1000, rows))
        passed = network.decode([DecoderRows(audio, tokens, together, rows)]).astype(mx.float32)
        one = [
            network.decode([DecoderRows(audio[i : i + 1], tokens[i : i + 1], alone)])
            for i in range(rows)
        ]
        expected = mx.concatenate(one).astype(mx.float32)
        assert np.array_equal(np.array(passed), np.array(expected))
        assert passed.shape[0] == rows


@pytest.mark.usefixtures("fixed_rows")
@pytest.mark.parametrize("delay_ms", [240, 480, 960])
@pytest.mark.parametrize("guard", [None, BlankGuard(longest_run=4, least_margin=1e6)])
def test_passes_write_what_single_rows_write(
    network: Voxtral,
    voxtral_folder: Path,
    eval_items: list[EvalItem],
    delay_ms: int,
    guard: BlankGuard | None,
) -> None:
    """Ids and probabilities, bit for bit; a guard that often intervenes among them."""
    rng = np.random.default_rng(delay_ms)

    def any_rows(due: int) -> int:  # one row often, so that passes are prepared while one runs
        return int(rng.choice([1, due, rng.integers(1, due + 1)]))

    audio = np.concatenate([item.audio for item in eval_items[delay_ms // 240 :: 9]])[:400_000]
    expected, _ = transcribe(network, voxtral_folder, audio, 1280, None, delay_ms, guard)
    for chunk, rows in ((16_000, any_rows), (61_441, lambda due: due), (7_680, lambda due: due)):
        found, passes = transcribe(network, voxtral_folder, audio, chunk, rows, delay_ms, guard)
        assert found == expected
        assert passes < len(found)


@pytest.mark.usefixtures("fixed_rows")
def test_wrong_guesses_cost_passes_and_nothing_else(
    network: Voxtral, voxtral_folder: Path, eval_items: list[EvalItem]
) -> None:
    """Speech after silence: the first guesses are blanks, and most passes reject some rows."""
    audio = np.concatenate([np.zeros(40_000, np.float32), eval_items[3].audio])
    expected, single = transcribe(network, voxtral_folder, audio, len(audio), None)
    found, passes = transcribe(network, voxtral_folder, audio, len(audio), lambda due: due)
    assert found == expected
    assert single == len(expected)
    assert passes < 0.35 * len(expected)


@pytest.mark.usefixtures("fixed_rows")
def test_a_checkpoint_with_little_padding_before_the_audio(
    network: Voxtral, voxtral_folder: Path, eval_items: list[EvalItem]
) -> None:
    """More is encoded at once than the padding is long."""
    audio = eval_items[3].audio
    expected, _ = transcribe(network, voxtral_folder, audio, 1280, None, left_pad=4)
    found, _ = transcribe(network, voxtral_folder, audio, 40_000, lambda due: due, left_pad=4)
    assert found == expected


def test_composed_ops_take_one_row_at_a_time(
    voxtral_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLX's products depend on the number of rows, so a guess could be right for the wrong row."""
    import voxfast

    asked: list[object] = []
    make = VoxtralStream.__init__

    def noting(self: VoxtralStream, *args: object, **options: object) -> None:
        asked.append(options["costs"])
        make(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(VoxtralStream, "__init__", noting)
    with voxfast.load(voxtral_folder) as model:
        with ops.use_native(False):
            model.session()
        model.session()
        model.session()
    assert asked[0] is None
    assert isinstance(asked[1], PassCosts)
    assert asked[1] is asked[2]  # one machine, one model


# How many rows a pass takes


def drive(
    cost: Callable[[int], float], accept: Callable[[int], int], due: int, passes: int
) -> tuple[float, int]:
    """Seconds and positions of so many passes on a machine with these costs."""
    costs, acceptance = PassCosts(), Acceptance()
    seconds, positions = 0.0, 0
    for _ in range(passes):
        rows = acceptance.rows(due, costs)
        assert 1 <= rows <= due
        accepted = min(accept(rows), rows)
        costs.note(rows, cost(rows))
        acceptance.note(rows, accepted)
        seconds, positions = seconds + cost(rows), positions + accepted
    return seconds, positions


@pytest.mark.parametrize("row_cost", [0.1, 0.3, 0.7, 1.0])
def test_guesses_that_never_hold_cost_nearly_nothing(row_cost: float) -> None:
    seconds, positions = drive(lambda n: 1 + row_cost * (n - 1), lambda n: 1, 48, 20_000)
    assert seconds / positions < 1.02


def test_rows_that_cost_nothing_are_all_taken() -> None:
    seconds, positions = drive(lambda n: 1.0, lambda n: 1 + n // 4, 48, 500)
    assert positions / seconds > 12


def test_rows_at_full_price_are_not_taken_for_half_the_tokens() -> None:
    seconds, positions = drive(lambda n: float(n), lambda n: (n + 1) // 2, 48, 5_000)
    assert seconds / positions < 1.02


def test_audio_that_becomes_easy_again_is_noticed() -> None:
    passes = iter(range(100_000))
    seconds, positions = drive(
        lambda n: 1 + 0.15 * (n - 1),
        lambda n: 1 if next(passes) < 3_000 else 1 + n // 2,
        24,
        9_000,
    )
    assert positions / seconds > 1.3


def test_a_first_measurement_that_waited_is_forgotten() -> None:
    costs, acceptance = PassCosts(), Acceptance()
    costs.note(1, 0.01)
    costs.note(48, 5.0)
    rows = []
    for _ in range(200):
        rows.append(acceptance.rows(48, costs))
        costs.note(rows[-1], 0.01)
        acceptance.note(rows[-1], max(1, rows[-1] // 3))
    assert rows[-1] > 16


def test_a_pass_that_waited_for_other_work_counts_little() -> None:
    costs = PassCosts()
    for _ in range(20):
        costs.note(1, 1.0)
        costs.note(4, 1.5)
    costs.note(1, 100.0)
    assert costs.estimate(1) == pytest.approx(1.1)
    assert costs.estimate(2) == pytest.approx(1.1 + 0.4 / 3)
    assert costs.estimate(MAX_ROWS) > 1.5

"""A vocabulary in streams of both families: exact in every arrangement, quiet in silence."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from evaluation import EvalItem
from numpy.typing import NDArray

import voxfast
from voxfast import ops
from voxfast.models.qwen3_asr.audio import Audio
from voxfast.models.qwen3_asr.decoding import Decoder
from voxfast.models.qwen3_asr.passes import Asking, run_alone
from voxfast.models.qwen3_asr.utterance import Utterance
from voxfast.models.speller import Speller
from voxfast.models.traits import read_traits
from voxfast.models.vocabulary import compile_vocabulary
from voxfast.models.voxtral.network import Voxtral
from voxfast.models.voxtral.passes import Acceptance, PassCosts
from voxfast.models.voxtral.stream import BlankGuard, VoxtralStream, step
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.models.voxtral.weights import load_voxtral
from voxfast.timed import Token

RowsOf = Callable[[int], int]
Entries = list[tuple[str, float]]
# Beside words that the demonstrations know, beginnings and ends of them in other words.
RIVALS: Entries = [
    ("fort", 9.0), ("fourty", 9.0), ("nineteenth", 9.0), ("sixte", 8.0), ("turn right", 9.0),
    ("threes", 9.0), ("thirty", 10.0), ("zero hour", 9.0), ("twent", 9.0), ("kitchen door", 6.0),
    ("eights", 9.0), ("stop", 3.0), ("seventy", 2.0), ("plus", 9.0),
]  # fmt: skip


class FixedRows(PassCosts):
    """Stands in for measurements: every pass has the rows that a function of ``due`` says."""

    def __init__(self, rows: RowsOf) -> None:
        super().__init__()
        self.rows = rows


@pytest.fixture
def fixed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Acceptance, "rows", lambda self, due, costs, beside=0: costs.rows(due))


@pytest.fixture(scope="module")
def network(voxtral_folder: Path) -> Voxtral:
    return load_voxtral(voxtral_folder, mx.float32)


@pytest.fixture(scope="module")
def tokenizer(voxtral_folder: Path) -> VoxtralTokenizer:
    return VoxtralTokenizer(voxtral_folder / "tekken.json", 1408)


@pytest.fixture(scope="module")
def audio(eval_items: list[EvalItem]) -> NDArray[np.float32]:
    """Two clips in so much noise that the model is in doubt."""
    rng = np.random.default_rng(3)
    clips = ((eval_items[1].audio, 0.05), (eval_items[7].audio, 0.15))
    noisy = [clip + level * rng.standard_normal(len(clip)) for clip, level in clips]
    return np.concatenate(noisy).astype(np.float32)


class Run:
    """A stream of voxtral-numbers that writes down its tokens.

    Args:
        changes: vocabularies by the sample before which they are set.
    """

    def __init__(
        self,
        network: Voxtral,
        tokenizer: VoxtralTokenizer,
        folder: Path,
        changes: dict[int, Entries],
        rows: RowsOf | None,
        guard: BlankGuard | None = None,
    ) -> None:
        self.tokens: list[Token] = []
        self.changes = {
            at: compile_vocabulary(entries, tokenizer.encode, tokenizer.piece)
            for at, entries in changes.items()
        }
        self.stream = VoxtralStream(
            network,
            tokenizer,
            read_traits(folder),
            480,
            guard=guard,
            costs=None if rows is None else FixedRows(rows),
            on_token=self.tokens.append,
        )

    def push(self, audio: NDArray[np.float32], at: int, end: int) -> None:
        """The samples from ``at`` to ``end``, with the changes between them."""
        places = [place for place in self.changes if at <= place < end]
        for begin, stop in zip([at, *places], [*places, end], strict=True):
            self.stream.push(audio[begin:stop])
            if stop in self.changes and stop < end:
                self.stream.use_vocabulary(self.changes[stop])

    def feed(self, audio: NDArray[np.float32], chunk: int) -> list[Token]:
        for at in range(0, len(audio), chunk):
            self.push(audio, at, min(at + chunk, len(audio)))
            while self.stream.due:
                self.stream.step()
        self.stream.end_stream()
        while self.stream.due:
            self.stream.step()
        return self.tokens


@pytest.fixture
def undone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions that failed trials have taken back."""
    found: list[int] = []
    fail = Speller._fail
    monkeypatch.setattr(
        Speller, "_fail", lambda self, trial: found.append(len(trial.held)) or fail(self, trial)
    )
    return found


@pytest.mark.usefixtures("fixed_rows")
@pytest.mark.parametrize("guard", [None, BlankGuard(longest_run=4, least_margin=1e6)])
def test_passes_write_what_single_rows_write(
    network: Voxtral,
    tokenizer: VoxtralTokenizer,
    voxtral_folder: Path,
    audio: NDArray[np.float32],
    undone: list[int],
    guard: BlankGuard | None,
) -> None:
    """Ids and probabilities, bit for bit, with vocabularies that change on the way."""
    changes: dict[int, Entries] = {0: RIVALS, 61_234: [], 70_000: RIVALS[::2]}
    rng = np.random.default_rng(5)

    def any_rows(due: int) -> int:  # one row often, so that passes are prepared while one runs
        return int(rng.choice([1, due, rng.integers(1, due + 1)]))

    def run(rows: RowsOf | None, chunk: int, changes: dict[int, Entries]) -> list[Token]:
        made = Run(network, tokenizer, voxtral_folder, changes, rows, guard)
        return made.feed(audio, chunk)

    expected = run(None, 1280, changes)
    assert len(undone) > 2
    assert [token.position for token in expected] == list(range(len(expected)))
    assert expected != run(None, 1280, {})
    for rows, chunk in ((any_rows, 16_000), (lambda due: due, 61_441), (lambda due: 1, 7_680)):
        assert run(rows, chunk, changes) == expected


@pytest.mark.usefixtures("fixed_rows")
def test_rings_that_have_wrapped_can_give_a_phrase_back(
    network: Voxtral,
    tokenizer: VoxtralTokenizer,
    voxtral_folder: Path,
    audio: NDArray[np.float32],
    undone: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A window of eight positions: rows are overwritten soon, and those of a trial are not."""
    args = network.args
    small = replace(args, decoder=replace(args.decoder, sliding_window=8))
    monkeypatch.setattr(network, "args", small)
    changes = {0: [(phrase, 18.0) for phrase, _ in RIVALS]}
    expected = Run(network, tokenizer, voxtral_folder, changes, None).feed(audio, 1280)
    assert undone
    found = Run(network, tokenizer, voxtral_folder, changes, lambda due: due).feed(audio, 50_000)
    assert found == expected


@pytest.mark.usefixtures("fixed_rows")
def test_streams_with_different_vocabularies_share_passes(
    network: Voxtral,
    tokenizer: VoxtralTokenizer,
    voxtral_folder: Path,
    audio: NDArray[np.float32],
    undone: list[int],
) -> None:
    vocabularies: list[dict[int, Entries]] = [{}, {0: RIVALS}, {0: RIVALS[::3], 50_000: RIVALS}]
    alone = [
        Run(network, tokenizer, voxtral_folder, changes, None).feed(audio, 1280)
        for changes in vocabularies
    ]
    runs = [
        Run(network, tokenizer, voxtral_folder, changes, lambda due: min(due, 7))
        for changes in vocabularies
    ]
    for at in range(0, len(audio), 9_000):
        for run in runs:
            run.push(audio, at, min(at + 9_000, len(audio)))
        while streams := [run.stream for run in runs if run.stream.due]:
            step(streams)
    for run in runs:
        run.stream.end_stream()
    while streams := [run.stream for run in runs if run.stream.due]:
        step(streams)
    assert undone
    assert [run.tokens for run in runs] == alone


def test_an_end_within_a_trial_leaves_nothing_out(
    network: Voxtral, tokenizer: VoxtralTokenizer, voxtral_folder: Path
) -> None:
    """A trial that is open when an utterance ends is complete then, or is decoded again."""
    for phrase, is_said in (("a b", False), ("a", True)):
        run = Run(network, tokenizer, voxtral_folder, {}, None)
        tokens = run.stream._tokens
        tokens.use_vocabulary(
            compile_vocabulary([(phrase, 20.0)], tokenizer.encode, tokenizer.piece), -100
        )
        space, letter = tokenizer.encode(" a")
        own = tokenizer.encode(" two")[0]
        logits = np.full(1408, -9.0)
        logits[own], logits[letter], logits[space] = 0.0, -1.0, -1.0
        tokens._change_vocabulary(0)
        choices = [tokens._speller.choose(own, 0.6, lambda t, row=logits: row[t]) for _ in "ab"]
        assert [choice.token for choice in choices] == [space, letter]
        assert [choice.written for choice in choices] == [[], []]
        tokens._decoder.trim = lambda n: None  # type: ignore[method-assign]
        found = tokens.end_text()
        assert [token.id for token in found] == ([space, letter] if is_said else [own])
        assert found[0].replaced == (0.6 if is_said else None)
        assert tokens._speller.held == 0


@pytest.mark.parametrize(("rival", "is_said"), [("stop", True), ("stop now", False)])
def test_an_end_within_a_phrase_of_the_models_own_leaves_nothing_out(
    network: Voxtral, tokenizer: VoxtralTokenizer, voxtral_folder: Path, rival: str, is_said: bool
) -> None:
    """The model itself may have begun a phrase; then another one waits behind it."""
    run = Run(network, tokenizer, voxtral_folder, {}, None)
    tokens = run.stream._tokens
    phrases = [("two go", 20.0), (rival, 20.0)]
    tokens.use_vocabulary(compile_vocabulary(phrases, tokenizer.encode, tokenizer.piece), -100)
    (own,), (stop, *_) = (tokenizer.encode(text) for text in (" two", " stop"))
    logits = np.full(1408, -9.0)
    logits[own], logits[stop] = 0.0, -1.0
    tokens._change_vocabulary(0)
    choice = tokens._speller.choose(own, 0.6, lambda t: logits[t])
    assert (choice.token, choice.written) == (own, [])
    taken_back: list[int] = []
    tokens._decoder.trim = taken_back.append  # type: ignore[method-assign,assignment]
    found = tokens.end_text()
    assert [token.id for token in found] == [stop if is_said else own]
    assert tokens._speller.held == 0
    assert not any(taken_back)  # no position was computed with a token that is held back
    assert tokens._input.item() == found[-1].id


# Both families


@pytest.fixture(scope="module", params=["voxtral", "qwen3-asr"])
def model(
    request: pytest.FixtureRequest, voxtral_folder: Path, qwen_folder: Path
) -> Iterator[voxfast.Model]:
    folder = voxtral_folder if request.param == "voxtral" else qwen_folder
    with voxfast.load(folder) as loaded:
        yield loaded


def transcribe(
    model: voxfast.Model, audio: NDArray[np.float32], **options: object
) -> list[voxfast.Word]:
    language = {} if model.delays_ms else {"language": "en"}
    return list(voxfast.transcribe(audio, model=model, **language, **options).words)


def texts(words: list[voxfast.Word]) -> list[str]:
    return [word.text.strip() for word in words]


def test_no_vocabulary_and_words_that_nobody_says_change_nothing(
    model: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    """Bit for bit, the probabilities too."""
    audio = eval_items[1].audio
    expected = transcribe(model, audio)
    assert texts(expected)
    assert transcribe(model, audio, vocabulary=[]) == expected
    assert transcribe(model, audio, vocabulary=["Kubernetes", ("voxfast", 1.0)]) == expected


def test_phrases_that_fail_leave_nothing(
    model: voxfast.Model, audio: NDArray[np.float32], undone: list[int]
) -> None:
    """Beginnings of what is said, which nobody says so: tried, and taken back, bit for bit."""
    expected = transcribe(model, audio)
    failing = ["fort", "nineteenth", "threes", "twent", "eights", "kitchens", "opener"]
    phrases = [(word, 9.0) for word in failing]
    assert transcribe(model, audio, vocabulary=phrases) == expected
    assert undone


def test_a_word_that_is_nearly_written_is_found(
    model: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    """The clip ends with thirteen; a weight outweighs that."""
    audio = eval_items[1].audio
    expected = transcribe(model, audio)
    found = transcribe(model, audio, vocabulary=[("thirty", 10.0)])
    assert texts(expected)[-1] == "thirteen"
    assert texts(found) == [*texts(expected)[:-1], "thirty"]
    assert transcribe(model, audio, vocabulary=[("minus thirty", 10.0), "kitchen"]) == found
    assert found[-1].probability is not None
    assert 0 < found[-1].probability < 0.1  # the model's, before the weight
    assert found[:-1] == expected[:-1]


def test_silence_stays_silent(model: voxfast.Model) -> None:
    vocabulary = [(word, 20.0) for word in ("a", "two", "stop", "go", "the end", "Kubernetes")]
    noise = 0.02 * np.random.default_rng(1).standard_normal(64_000)
    for audio in (np.zeros(48_000, np.float32), noise.astype(np.float32)):
        assert transcribe(model, audio, vocabulary=vocabulary) == transcribe(model, audio) == []


def test_a_vocabulary_changes_while_a_session_runs(
    model: voxfast.Model, eval_items: list[EvalItem]
) -> None:
    """The clip three times; only the second time another word is preferred."""
    audio = np.concatenate([eval_items[1].audio, np.zeros(24_000, np.float32)])
    language = {} if model.delays_ms else {"language": "en"}
    with model.session(**language) as session:
        said = []
        assert session.vocabulary == ()
        for vocabulary in ([], [("thirty", 10.0)], []):
            session.vocabulary = vocabulary
            words = []
            for at in range(0, len(audio), 8_000):
                words += session.feed(audio[at : at + 8_000])
            said.append(texts([*words, *session.flush()]))
            assert session.vocabulary == tuple(vocabulary)
        with pytest.raises(voxfast.InvalidOptionError, match=r"vocabulary\[0\] is empty"):
            session.vocabulary = [""]
        assert session.vocabulary == ()
    assert said[0] == said[2]
    assert said[0][-1] == "thirteen"
    assert said[1] == [*said[0][:-1], "thirty"]
    with pytest.raises(voxfast.SessionClosedError):
        session.vocabulary = []


def test_the_composed_path(model: voxfast.Model, eval_items: list[EvalItem]) -> None:
    item = eval_items[1]
    audio = item.audio[int(16_000 * (item.words[-1].start - 0.3)) :]  # the end of it
    expected = texts(transcribe(model, audio, vocabulary=[("thirty", 10.0)]))
    assert expected[-1] == "thirty"
    with ops.use_native(False):
        assert texts(transcribe(model, audio, vocabulary=[("thirty", 10.0)])) == expected


@pytest.mark.parametrize("entries", ["voxfast", 7, [""], [("a", float("nan"))], ["ab " * 60]])
def test_what_is_no_vocabulary_is_refused(model: voxfast.Model, entries: object) -> None:
    with pytest.raises(voxfast.InvalidOptionError, match="vocabulary"):
        model.session(vocabulary=entries)


def test_ten_thousand_phrases_are_accepted(model: voxfast.Model) -> None:
    letters = np.random.default_rng(2).choice(list("abcdefghij"), (10_000, 6))
    with model.session(vocabulary=["".join(row) for row in letters]) as session:
        assert len(session.vocabulary) > 9_000


# Qwen3-ASR


def test_special_tokens_of_qwen_are_refused(qwen_folder: Path) -> None:
    with (
        voxfast.load(qwen_folder) as model,
        pytest.raises(voxfast.InvalidOptionError, match="special tokens"),
    ):
        model.session(language="en", vocabulary=["x <|im_end|>"])


def test_a_vocabulary_beside_a_prompt(qwen_folder: Path, eval_items: list[EvalItem]) -> None:
    """The prompt is the model's, the vocabulary the decoder's; and a failed phrase leaves nothing.

    Small steps, so that phrases meet the border.
    """
    audio = eval_items[1].audio
    with voxfast.load(qwen_folder) as model:

        def stream(**options: object) -> list[voxfast.Word]:
            with model.session(language="en", block_ms=200, **options) as session:
                words = []
                for at in range(0, len(audio), 3_200):
                    words += session.feed(audio[at : at + 3_200])
                return [*words, *session.finish()]

        expected = stream(prompt="kitchen, door")
        failing = [("kitchens", 9.0), ("opener", 9.0), ("plus", 2.0), ("thirteens", 9.0)]
        assert stream(prompt="kitchen, door", vocabulary=failing) == expected
        found = stream(prompt="kitchen, door", vocabulary=[*failing, ("thirty", 10.0)])
        assert texts(found) == [*texts(expected)[:-1], "thirty"]


class Predictions:
    """A text that is known."""

    def __init__(self, found: list[tuple[Token, int]]) -> None:
        self._found = iter(found)

    def next(self) -> Asking[tuple[Token, int]]:
        yield from ()
        return next(self._found)


def test_a_phrase_of_qwen_at_the_border_waits_as_a_whole(
    qwen_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with voxfast.load(qwen_folder) as model, model.session(language="en") as session:
        inner: Any = session._stream
        utterance: Utterance = inner._new_utterance(inner._new_decoder())
        one, red, door = (
            utterance._tokenizer.encode(word)[0] for word in (" one", " red", " door")
        )
        # A word, and then a phrase of two, the second of which is spoken at the end of the audio.
        places = ((one, 2, 0), (red, 6, 0), (door, 11, 1))
        predictions = [(Token(token, 1.0, frame), before) for token, frame, before in places]

        def begin_text(self: Utterance, audio: Audio) -> Asking[Any]:
            yield from ()
            return Predictions(predictions)

        monkeypatch.setattr(Utterance, "_begin_text", begin_text)
        audio = Audio(mx.zeros((13, 1)), 0)
        found = run_alone(utterance._decode(audio, end=False))
        assert [token.id for token in found.tokens] == [one]
        assert found.following == red
        predictions[2] = (predictions[2][0], 0)  # not of the phrase
        found = run_alone(utterance._decode(audio, end=False))
        assert [token.id for token in found.tokens] == [one, red]
        assert found.following == door


def test_qwen_predicts_the_same_after_going_back(
    qwen_folder: Path, monkeypatch: pytest.MonkeyPatch, eval_items: list[EvalItem]
) -> None:
    """Tokens, probabilities and frames, bit for bit."""
    seen: list[tuple[list[Token], list[Token]]] = []
    read = Decoder.read

    def read_twice(self: Decoder, *arguments: object) -> Asking[Token]:
        first = yield from read(self, *arguments)  # type: ignore[arg-type]
        once, again = [], []
        for token in (first.id, 5, 6, 7):
            once.append((yield from self.write(token)))
        self.go_back(3)
        for token in (5, 6, 7):
            again.append((yield from self.write(token)))
        again.insert(0, once[0])
        self.go_back(4)
        seen.append((once, again))
        return first

    monkeypatch.setattr(Decoder, "read", read_twice)
    with voxfast.load(qwen_folder) as model:
        voxfast.transcribe(eval_items[1].audio, model=model, language="en")
    assert seen
    assert all(once == again for once, again in seen)


def test_turns_and_event_loops_take_a_vocabulary(
    voxtral_folder: Path, eval_items: list[EvalItem]
) -> None:
    audio = eval_items[1].audio

    async def listen(model: voxfast.Model) -> list[voxfast.Word]:
        async with model.session() as session:
            session.vocabulary = [("thirty", 10.0)]
            assert session.vocabulary == (("thirty", 10.0),)
            return [*await session.feed(audio), *await session.finish()]

    with voxfast.load(voxtral_folder) as model:
        expected = transcribe(model, audio, vocabulary=[("thirty", 10.0)])
        assert texts(expected)[-1] == "thirty"
        assert asyncio.run(listen(model)) == expected
        turns = transcribe(
            model, audio, vocabulary=[("thirty", 10.0)], endpoint_ms=500, skip_silence=True
        )
        assert texts(turns) == texts(expected)

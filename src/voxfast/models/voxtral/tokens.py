"""Voxtral's tokens: audio in, one token per position out, for one stream or several at once."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxfast.models.speller import Choice, Speller, Written
from voxfast.models.vocabulary import Vocabulary
from voxfast.models.voxtral.network import DecoderRows, Voxtral
from voxfast.models.voxtral.opening import Opening, Openings
from voxfast.models.voxtral.passes import MAX_ROWS, Acceptance, PassCosts
from voxfast.models.voxtral.script_lock import ScriptLock
from voxfast.models.voxtral.tokenizer import VoxtralTokenizer
from voxfast.ops import greedy
from voxfast.timed import Token

__all__ = ["BlankGuard", "TokenStream", "decode", "encode", "evaluate"]


@dataclass(frozen=True, slots=True)
class BlankGuard:
    """Ends a run of blank tokens that mutes speech (vLLM issue 47614).

    Natural runs of blanks last up to 165 positions, and in silence the margin of the blank is
    8.5 logits or more; in a faulty run it is below 6.6. In a longer run with a smaller margin,
    the second-best token is chosen instead.
    """

    longest_run: int = 165
    least_margin: float = 7.5


@dataclass(frozen=True, slots=True)
class _Pass:
    """One stream's part of a pass of the decoder.

    The first row's input is known. That of each further row is a guess of the token before it,
    and the row is right if all guesses up to it are.
    """

    guesses: list[int]
    rows: DecoderRows
    mask: mx.array | None  # [vocab_size], added to the logits


@dataclass(frozen=True, slots=True)
class _Results:
    """What a pass computes, on the device: the outputs of all its streams, in their order."""

    tokens: mx.array  # [outputs] of uint32
    probabilities: mx.array  # [outputs] of float32
    logits: mx.array  # [outputs, vocab_size]


class TokenStream:
    """The model's part of a stream: audio in, one token per position out.

    Parity: with voxfast's kernels a row has the same bits alone and among others. So neither the
    blocks that the encoder takes nor the rows of the decoder's passes show in a token or its
    probability, and streamed equals offline. Elsewhere the caller always takes the same blocks,
    and every pass has one row.

    Passes of several rows are Jacobi decoding (Santilli et al., arXiv 2305.10427): the tokens of
    the positions that are due are guessed, computed at once, and kept as far as the guesses hold;
    what the pass wrote beyond is guessed next. Voxtral's tokens follow from the audio far more
    than from each other, so most guesses hold. The result is the greedy decoding itself.

    While the device computes a pass of one row, the host prepares the next pass, if there is
    audio for it, and waits only then. The state is complete with the token, so the next pass
    writes the rings in place; it is started at once, before anything is done with the token.

    Phrases of a vocabulary are tried (:class:`.Speller`): their tokens are held back, and where
    they fail, their positions are taken back like those of wrong guesses.

    Args:
        start: absolute index of the first position, for rotary angles.
        block: the most positions that are encoded at once.
        costs: of the model's passes. None: every pass has one row.
        lock: what may be written; None: everything.
        openings: where a stream whose ``start`` is 0 begins; None: with nothing computed.
    """

    def __init__(
        self,
        model: Voxtral,
        tokenizer: VoxtralTokenizer,
        n_delay: int,
        *,
        start: int = 0,
        block: int = 1,
        guard: BlankGuard | None = None,
        costs: PassCosts | None = None,
        lock: ScriptLock | None = None,
        openings: Openings | None = None,
    ) -> None:
        self._model, self._tokenizer, self._guard = model, tokenizer, guard
        self._mask = None if lock is None else lock.mask
        self._n_delay = n_delay
        self._costs, self._acceptance = costs, Acceptance()
        if openings is None:
            opening = Opening.new(model, tokenizer, n_delay, block, start)
        else:
            opening = openings.get(n_delay, block)
        self._mel, self._encoder, self._decoder = opening.mel, opening.encoder, opening.decoder
        self._audio: mx.array | None = None  # [P, dim] embeddings of the positions from _first
        self._first = 0  # of them, that no pass has taken
        # The tokens [L] of int32 that go into the next pass for certain: the prompt at first.
        self._input = mx.array(opening.prompt)
        self._guesses: list[int] = []  # of the tokens that come next
        self._own_guesses: list[int] = []  # of those that come next if the phrase fails
        self._started: tuple[_Pass, _Results] | None = None
        self._blanks = 0
        self._speller = Speller(tokenizer.piece, pauses=(tokenizer.pad, tokenizer.word))
        self._vocabularies: deque[tuple[int, Vocabulary | None]] = deque()  # each from a token on
        self.passes = 0  # so far, of the decoder
        self.generated = 0  # tokens so far that stay

    @property
    def due(self) -> int:
        """Tokens for which there is audio."""
        started = 0 if self._started is None else self._started[0].rows.outputs
        waiting = 0 if self._audio is None else len(self._audio) - self._first
        return started + max(0, waiting - len(self._input) + 1)

    def use_vocabulary(self, vocabulary: Vocabulary | None, audio: int) -> None:
        """Take another vocabulary for the tokens that hear position ``audio`` of the audio."""
        # The prompt ends where the token hears its delay: token k hears position k + n_delay.
        self._vocabularies.append((audio - self._n_delay, vocabulary))

    def end_text(self) -> list[Token]:
        """End a phrase that is tried, because the text ends here: its tokens, if it is complete.

        Else positions are due again.
        """
        written: list[Written] = []
        while (choice := self._speller.finish()) is not None:
            written += choice.written
            if choice.undone:
                self._go_back(choice.undone - 1)  # the position of its last token was not computed
                self._input = mx.array([choice.token])
            if choice.undone > 1:
                break
        return self._number(written)

    def decode(self, alone: bool = True) -> list[Token]:
        """The tokens of one pass that stay. Only when one is due.

        None while a phrase is tried; else at least one.

        Args:
            alone: prepare the next pass, if that can be.
        """
        made, results = self._started or self._start()
        self._started = None
        prepared = None
        if alone and not made.guesses and not self._may_intervene and self.due:
            prepared = self._compute(results.tokens)
        mx.eval(results.tokens, results.probabilities)
        if self._costs is not None:
            self._costs.finished(made.rows.outputs)
        if prepared is not None:
            _launch(prepared[1].tokens, prepared[1].probabilities)
            self._started = prepared
        ids = cast(list[int], results.tokens.tolist())
        likely = cast(list[float], results.probabilities.tolist())
        return self._accept(made, ids, likely, partial(_row, results.logits, 0))

    def _start(self) -> tuple[_Pass, _Results]:
        """A pass of this stream alone, which the device computes from now on."""
        made, results = self._compute()
        _launch(results.tokens, results.probabilities)
        return made, results

    def _compute(self, token: mx.array | None = None) -> tuple[_Pass, _Results]:
        """A pass of this stream alone, not evaluated; ``token`` [1] is its first input."""
        if token is not None:
            self._input = token
        made = self._gather()
        return made, run(self._model, [made])

    def _take_audio(self, audio: mx.array) -> None:
        """Keep the embeddings [P, dim] of the next positions for the decoder."""
        # A pass that is started may give its rows back, and a phrase that is tried its own.
        returned = self._speller.held
        returned += 0 if self._started is None else self._started[0].rows.outputs
        first = self._first - returned
        if self._audio is not None and first < len(self._audio):
            audio = mx.concatenate([self._audio[first:], audio])
        self._audio, self._first = audio, returned

    def _gather(self, beside: int = 0) -> _Pass:
        """The part of the next pass, in which ``beside`` other streams take part."""
        outputs = 1
        if self._costs is not None and self.passes:
            most = MAX_ROWS - self._speller.held - 1  # so that all of them can be taken back
            if self._speller.held:
                most = min(most, len(self._guesses) + 2)  # the end of the phrase, and what follows
            outputs = self._acceptance.rows(min(self.due, most), self._costs, beside)
        blanks = [self._tokenizer.pad] * outputs
        guesses, self._guesses = (self._guesses + blanks)[: outputs - 1], self._guesses[outputs:]
        tokens = self._input
        if guesses:
            tokens = mx.concatenate([tokens, mx.array(guesses, tokens.dtype)])
        assert self._audio is not None
        audio = self._audio
        if len(audio) > len(tokens):
            audio = audio[self._first : self._first + len(tokens)]
        self._first += len(tokens)
        if len(self._input) > 1:
            self._input = self._input[-1:]  # that of the next pass is not known yet
        self.passes += 1
        return _Pass(guesses, DecoderRows(audio, tokens, self._decoder, outputs), self._mask)

    def _accept(
        self,
        made: _Pass,
        ids: list[int],
        likely: list[float],
        logits: Callable[[int], mx.array],
    ) -> list[Token]:
        """The tokens of the rows whose guesses hold, as far as they stay.

        Takes back the other rows, and those of a phrase that has failed.
        """
        written: list[Written] = []
        accepted, held = 0, self._speller.held
        for row, guess in enumerate([*made.guesses, None]):
            self._change_vocabulary(self.generated + len(written) + self._speller.held)
            own, probability = self._choose(ids[row], likely[row], logits, row)
            choice = self._speller.choose(own, probability, partial(_values, logits, row))
            written += choice.written
            accepted += 1
            if choice.undone or choice.token != guess:
                break
        if choice.undone:
            self._blanks = 0  # a trial begins where there is text
        elif not held and not self._speller.held:
            self._acceptance.note(len(ids), accepted)
        self._guess(ids[accepted:], choice, is_own=choice.token == own)
        if self._started is not None and (choice.undone or choice.token != ids[-1]):
            self._discard_started()
        self._go_back(len(ids) - accepted + choice.undone)
        if self._started is None:
            self._input = mx.array([choice.token])
        return self._number(written)

    def _guess(self, following: list[int], choice: Choice, *, is_own: bool) -> None:
        """Guess the next tokens: what the pass has written, or the phrase that is tried."""
        self._guesses = self._own_guesses if choice.undone else following + self._guesses
        if choice.undone:
            self._own_guesses = []
        elif self._speller.held == 1 and not is_own:  # if it fails, the pass was right
            self._own_guesses = self._guesses
        self._guesses = self._speller.expected or self._guesses

    def _change_vocabulary(self, position: int) -> None:
        """Take the vocabulary that is due at a position; not while a phrase is tried."""
        changes = self._vocabularies
        while changes and changes[0][0] <= position and not self._speller.held:
            self._speller.use(changes.popleft()[1])

    def _number(self, written: Sequence[Written]) -> list[Token]:
        """The next tokens of the stream."""
        tokens = []
        for one in written:
            tokens.append(one.at(self.generated))
            self.generated += 1
        return tokens

    def _go_back(self, rows: int) -> None:
        """Take back the last rows of the decoder, and have their audio again."""
        if rows:
            self._decoder.trim(rows)
            self._first -= rows

    def _discard_started(self) -> None:
        """Take back a pass whose input is not what was chosen."""
        assert self._started is not None
        made, results = self._started
        self._started = None
        mx.eval(results.tokens)  # rings that a kernel reads would be copied
        self._go_back(made.rows.outputs)

    @property
    def _may_intervene(self) -> bool:
        """Whether the guard may replace the token that comes next."""
        return self._guard is not None and self._blanks >= self._guard.longest_run

    def _choose(
        self, token: int, likely: float, logits: Callable[[int], mx.array], row: int
    ) -> tuple[int, float]:
        """The greedy token, or that of the guard, and its probability."""
        if token != self._tokenizer.pad:
            self._blanks = 0
            return token, likely
        self._blanks += 1
        if self._guard is None or self._blanks <= self._guard.longest_run:
            return token, likely
        return self._break_rut(logits(row), self._guard)

    def _break_rut(self, logits: mx.array, guard: BlankGuard) -> tuple[int, float]:
        values = np.array(logits.astype(mx.float32))
        pad = self._tokenizer.pad
        normaliser = float(np.logaddexp.reduce(values.astype(np.float64)))
        others = values.copy()
        others[pad] = -np.inf
        token = int(others.argmax()) if values[pad] - others.max() < guard.least_margin else pad
        if token != pad:
            self._blanks = 0
        return token, float(np.exp(values[token] - normaliser))


# What several streams do at once: one read of the weights for all of them.


def encode(heard: Sequence[tuple[TokenStream, NDArray[np.float32]]]) -> None:
    """Encode the next samples of each stream, not evaluated.

    The first samples of a stream are the look-ahead of 40, with which the left padding is
    encoded. Later ones are whole positions, always the same number where passes have one row,
    except at the end of an utterance.
    """
    batches: dict[tuple[int, ...], list[tuple[TokenStream, NDArray[np.float32]]]] = {}
    for stream, samples in heard:
        audio = stream._mel.take(samples)
        if audio is not None:
            like = (len(audio), *stream._encoder.phase)
            batches.setdefault(like, []).append((stream, audio))
    if not batches:
        return
    parts = list(batches.values())
    mels = [part[0][0]._mel.frames(np.stack([audio for _, audio in part])) for part in parts]
    states = [[stream._encoder for stream, _ in part] for part in parts]
    streams = [stream for part in parts for stream, _ in part]
    if any(stream._started for stream in streams):
        # The encoder of that pass may still run, and rings that a kernel reads would be copied.
        embeddings = streams[0]._model.encode(mels, states)
    else:  # while it is computed, the host makes the rest of the graph, and that of the pass
        embeddings = streams[0]._model.encode(mels, states, _launch)
        _launch(*(found for found in embeddings if found is not None))
    for stream, found in zip(streams, embeddings, strict=True):
        if found is None:
            continue
        stream._take_audio(found)
        if stream._costs is not None:
            stream._costs.interrupted()  # the next pass waits for the encoder, too


def evaluate(streams: Sequence[TokenStream]) -> None:
    """Compute what streams have encoded, where no pass follows that would do it."""
    made = [(stream._audio, stream._encoder.frames) for stream in streams]
    mx.eval([array for pair in made for array in pair if array is not None])


def decode(streams: Sequence[TokenStream]) -> list[list[Token]]:
    """The tokens of one pass of several streams; all of them are due."""
    if len(streams) == 1:
        return [streams[0].decode()]
    found = {id(stream): stream.decode(alone=False) for stream in streams if stream._started}
    others = [stream for stream in streams if id(stream) not in found]
    if others:
        found |= dict(zip(map(id, others), _decode_together(others), strict=True))
    return [found[id(stream)] for stream in streams]


def _decode_together(streams: Sequence[TokenStream]) -> Iterator[list[Token]]:
    parts = [stream._gather(len(streams) - 1) for stream in streams]
    results = run(streams[0]._model, parts)
    mx.eval(results.tokens, results.probabilities)
    ids = cast(list[int], results.tokens.tolist())
    likely = cast(list[float], results.probabilities.tolist())
    if streams[0]._costs is not None:
        streams[0]._costs.finished(len(ids))
    end = 0
    for stream, part in zip(streams, parts, strict=True):
        begin, end = end, end + part.rows.outputs
        logits = partial(_row, results.logits, begin)
        yield stream._accept(part, ids[begin:end], likely[begin:end], logits)


def _values(
    logits: Callable[[int], mx.array], row: int, tokens: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The logits of some tokens in a row."""
    return np.array(logits(row)[mx.array(tokens)].astype(mx.float32), np.float64)


def _row(logits: mx.array, begin: int, row: int) -> mx.array:
    return logits[begin + row]


def run(model: Voxtral, parts: Sequence[_Pass]) -> _Results:
    """One pass of the decoder, not evaluated."""
    logits = _masked(model.decode([part.rows for part in parts]), parts)
    return _Results(*greedy(logits), logits)


def _launch(*arrays: mx.array) -> None:
    """Let the device compute arrays, with all that they depend on: rings and encoded audio."""
    mx.async_eval(*arrays)  # type: ignore[no-untyped-call]


def _masked(logits: mx.array, parts: Sequence[_Pass]) -> mx.array:
    if all(part.mask is None for part in parts):
        return logits
    free = mx.zeros(logits.shape[1:], logits.dtype)
    masks = [
        mx.broadcast_to(free if part.mask is None else part.mask, (part.rows.outputs, len(free)))
        for part in parts
    ]
    return logits + mx.concatenate(masks)

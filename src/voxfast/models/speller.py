"""Writes the phrases of a vocabulary where a greedy decoder nearly does.

The rule is shallow fusion with one bonus per phrase (Zhao et al., Interspeech 2019): a phrase is
worth as much as its weight, in nats, however many tokens it has. A beam would carry the phrase
beside the model's own text, and drop it where the phrase is left or costs more than its weight.
Greedy decoding has no beam. So the phrase is tried: its tokens are written, and are held back until
it is complete; if it fails, the decoder goes back to where it began, and nothing of it remains.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxfast.models.vocabulary import Node, Piece, Vocabulary
from voxfast.models.word_edges import begins_word, ends_word
from voxfast.timed import Token

__all__ = ["LONGEST_TRIAL", "Choice", "Speller", "Written"]

LONGEST_TRIAL = 32  # tokens that are held back, blanks within the phrase among them
# Beside a token of probability p, none is more likely than 1 - p. So much may be rounded.
_ROUNDING = 1e-4

Read = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Tokens [N] to their logits [N] at this position."""


class Written(NamedTuple):
    """A token that stays.

    Attributes:
        token: its id.
        probability: that the model gives to it.
        certainty: the probability of the token that the model would have written here itself.
    """

    token: int
    probability: float
    certainty: float

    def at(self, position: int) -> Token:
        """As a token of the stream."""
        replaced = None if self.certainty == self.probability else self.certainty
        return Token(self.token, self.probability, position, replaced)


class Choice(NamedTuple):
    """What is done at a position.

    Attributes:
        token: the input of the next position.
        written: tokens that stay, oldest first, in the place of those held back.
        undone: positions to take back first, this one among them: a trial has failed, and
            ``token`` stands where it began.
    """

    token: int
    written: list[Written]
    undone: int = 0


@dataclass(frozen=True, slots=True)
class _State:
    """What was written before.

    Attributes:
        tail: the last bytes of the text since the last special token; empty: there is none.
        places: nodes of phrases that the text has begun, and the positions since then.
    """

    tail: bytes = b""
    places: tuple[tuple[Node, int], ...] = ()


@dataclass(slots=True)
class _Trial:
    """A phrase that is tried.

    Attributes:
        nodes: where its tokens have led, at least one.
        cost: nats by which they were less likely than the model's own choices.
        held: its tokens.
        before: the state where it began.
        own: what the model would have written there.
        rival: while the model itself writes what may be a phrase: the trial that follows, if
            that is none.
    """

    nodes: list[Node]
    cost: float
    held: list[Written]
    before: _State
    own: Written
    rival: "_Trial | None" = None


class Speller:
    """Chooses the tokens of one stream, position by position.

    * A phrase may begin where a word begins, and where the text itself has begun it. It is tried
      if its next token is at most its weight (nats) less likely than the model's own choice.
    * If that choice may begin another phrase that is worth as much, it comes first.
    * A trial goes on as long as the differences add up to at most the weight. It is complete when
      a phrase ends with a word. Else it has failed, and the model's choice stands there.
    * Special tokens (blanks, markers, the end) are never replaced, so nothing is written in
      silence, and no more words begin than the model begins.

    Parity: choices depend on the tokens and logits of the positions alone, so neither blocks nor
    passes show in them. Without a vocabulary every choice is the model's.

    Args:
        piece: the bytes of a token.
        vocabulary: None: nothing is tried.
        pauses: special tokens that may come between the words of a phrase.
    """

    def __init__(
        self, piece: Piece, vocabulary: Vocabulary | None = None, pauses: Collection[int] = ()
    ) -> None:
        self._piece = lru_cache(1 << 12)(piece)
        self._pauses = pauses
        self._state = _State()
        self.use(vocabulary)
        self._trial: _Trial | None = None

    @property
    def held(self) -> int:
        """Tokens that are held back; 0: no trial is open."""
        return 0 if self._trial is None else len(self._trial.held)

    @property
    def expected(self) -> list[int]:
        """While a phrase is tried, what it goes on with; of several the one of most weight.

        Nothing while the model writes it itself.
        """
        tokens: list[int] = []
        if self._trial is None or self._trial.rival is not None:
            return tokens
        node = max(self._trial.nodes, key=lambda node: node.budget)
        while node.weight < node.budget:
            token, node = max(node.children.items(), key=lambda child: child[1].budget)
            tokens.append(token)
        return tokens

    def use(self, vocabulary: Vocabulary | None) -> None:
        """Take another vocabulary from now on; only while no trial is open."""
        self._vocabulary = vocabulary
        self._sure_above = 0.0 if vocabulary is None else _sure_above(vocabulary.budget)
        self._state = _State(self._state.tail)

    def read(self, tokens: Sequence[int]) -> None:
        """Note text that was written before."""
        for token in tokens:
            self._state = self._after(token)

    def choose(self, own: int, probability: float, logits: Read) -> Choice:
        """The token of the next position.

        Args:
            own: the model's choice.
            probability: of it.
            logits: of the position; called only where a phrase comes into question.
        """
        done: list[Written] = []
        if self._trial is not None:
            if not self._is_complete(self._trial, own):
                return self._continue(self._trial, own, probability, logits)
            done, self._trial = self._trial.held, None
        begun = self._begin(own, probability, logits)
        if begun is None:
            self._state = self._after(own)
            return Choice(own, [*done, Written(own, probability, probability)])
        self._trial = begun
        self._state = self._after(begun.held[0].token)
        return Choice(begun.held[0].token, done)

    def finish(self) -> Choice | None:
        """End an open trial, because the text ends; None if there is none."""
        trial = self._trial
        if trial is None:
            return None
        if any(node.weight >= trial.cost for node in trial.nodes):
            self._trial = None
            return Choice(trial.held[-1].token, trial.held)
        return self._fail(trial)

    # -- inside

    def _begin(self, own: int, probability: float, logits: Read) -> _Trial | None:
        # No node has more than the vocabulary's budget.
        if self._vocabulary is None or probability > self._sure_above:
            return None
        piece = self._piece(own)
        if piece is None:
            return None
        nodes = [node for node, _ in self._state.places]
        if begins_word(self._state.tail, piece):
            nodes.append(self._vocabulary.root(piece))
        if _is_sure(probability, _most(nodes)):
            return None
        found = _best(own, nodes, 0.0, logits)
        if found is None:
            return None
        token, cost = found
        ours = Written(own, probability, probability)
        tried = Written(token, probability * math.exp(-cost), probability)
        others = _children(nodes, token, cost)
        trial = _Trial(others, cost, [tried], self._state, ours)
        already = _children(nodes, own, 0.0)
        if already and _most(already) >= _most(others) - cost:
            return _Trial(already, 0.0, [ours], self._state, ours, rival=trial)
        return trial

    def _continue(self, trial: _Trial, own: int, probability: float, logits: Read) -> Choice:
        """The next token of a trial that is not complete, or its end."""
        if len(trial.held) == LONGEST_TRIAL:
            return self._fail(trial)
        token, cost = own, 0.0
        if self._piece(own) is None:
            nodes = [node for node in trial.nodes if node.waits and own in self._pauses]
        else:
            nodes = _children(trial.nodes, own, trial.cost)
            left = _most(trial.nodes) - trial.cost
            if not nodes and trial.rival is None and not _is_sure(probability, left):
                found = _best(own, trial.nodes, trial.cost, logits)
                if found is not None:
                    token, cost = found
                    nodes = _children(trial.nodes, token, trial.cost + cost)
        if not nodes:
            return self._fail(trial)
        trial.nodes = nodes
        trial.cost += cost
        trial.held.append(Written(token, probability * math.exp(-cost), probability))
        self._state = self._after(token)
        return Choice(token, [])

    def _fail(self, trial: _Trial) -> Choice:
        """Go back to where the trial began, for its rival, or for the model's choice to stand."""
        self._trial, self._state = trial.rival, trial.before
        if trial.rival is None:
            token, written = trial.own.token, [trial.own]
        else:
            token, written = trial.rival.held[0].token, []
        self._state = self._after(token)
        return Choice(token, written, undone=len(trial.held))

    def _is_complete(self, trial: _Trial, own: int) -> bool:
        is_end = any(node.weight >= trial.cost for node in trial.nodes)
        return is_end and ends_word(self._state.tail, self._piece(own))

    def _after(self, token: int) -> _State:
        """The state behind a token."""
        state, piece = self._state, self._piece(token)
        young = [(node, age + 1) for node, age in state.places if age + 1 < LONGEST_TRIAL]
        if piece is None:
            waiting = [place for place in young if place[0].waits and token in self._pauses]
            return _State(b"", tuple(waiting))
        places = [(node.children[token], age) for node, age in young if token in node.children]
        if self._vocabulary is not None and begins_word(state.tail, piece):
            child = self._vocabulary.root(piece).children.get(token)
            places += [] if child is None else [(child, 1)]
        return _State((state.tail + piece)[-4:], tuple(places))


def _is_sure(probability: float, budget: float) -> bool:
    """Whether no other token can be within ``budget`` nats of one so likely."""
    return budget < 0 or probability > _sure_above(budget)


def _sure_above(budget: float) -> float:
    """The probability above which no other token is within ``budget`` nats; budget ≥ 0."""
    return 1 / (1 + math.exp(-budget)) + _ROUNDING


def _most(nodes: Sequence[Node]) -> float:
    """The largest budget."""
    return max((node.budget for node in nodes), default=-math.inf)


def _best(own: int, nodes: Sequence[Node], spent: float, logits: Read) -> tuple[int, float] | None:
    """The child with the most left of its budget, as token and cost; None: all cost too much.

    Of equal ones the smallest token.
    """
    tokens = np.concatenate([[own], *(node.offers[0] for node in nodes)]).astype(np.int64)
    values = logits(tokens)
    costs = values[0] - values[1:]
    left = np.concatenate([node.offers[1] for node in nodes]) - spent - costs
    left[(tokens[1:] == own) | np.isnan(left)] = -np.inf
    if len(left) == 0 or left.max() < 0:
        return None
    place = min(np.flatnonzero(left == left.max()), key=lambda i: int(tokens[1 + i]))
    return int(tokens[1 + place]), float(costs[place])


def _children(nodes: Sequence[Node], token: int, spent: float) -> list[Node]:
    """Where a token leads, as far as a phrase there is worth what was spent."""
    found = [node.children[token] for node in nodes if token in node.children]
    return [node for node in found if node.budget >= spent]

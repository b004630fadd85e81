"""The rule of a vocabulary by its definition: phrases one by one, no trie, no state, float64."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from voxfast.models.speller import LONGEST_TRIAL
from voxfast.models.word_edges import begins_word, ends_word

Model = Callable[[tuple[int, ...]], NDArray[np.float64]]
Spelling = tuple[tuple[int, ...], float]  # tokens and weight
Path = tuple[int, int]  # number of a spelling, and how many of its tokens stand


class Reference:
    """Greedy decoding of ``count`` positions with a vocabulary.

    Args:
        model: the tokens so far to the logits [V] of the next one.
        pieces: the bytes of each token; None for a special one.
        pauses: special tokens that may come between the words of a phrase.
        spellings: of all phrases.
    """

    def __init__(
        self,
        model: Model,
        pieces: Sequence[bytes | None],
        pauses: Collection[int],
        spellings: Sequence[Spelling],
        count: int,
    ) -> None:
        self.model, self.pieces, self.pauses = model, pieces, pauses
        self.spellings, self.count = spellings, count

    def decode(self) -> list[int]:
        text: list[int] = []
        while len(text) < self.count:
            text += self.next(text)
        return text

    def next(self, text: list[int]) -> list[int]:
        """What is written behind a text: a phrase, or the model's choice."""
        logits = self.model(tuple(text))
        own = int(logits.argmax())
        piece = self.pieces[own]
        if piece is None:
            return [own]
        paths = self.begun(text)
        if begins_word(self.tail(text), piece):
            paths += [
                (i, 0)
                for i, (tokens, _) in enumerate(self.spellings)
                if self.is_spaced(tokens[0]) == self.is_spaced(own)
            ]
        offered = {self.spellings[i][0][n] for i, n in paths} - {own}
        costs = {token: float(logits[own] - logits[token]) for token in offered}
        left = {token: self.worth(self.along(paths, token)) - cost for token, cost in costs.items()}
        left = {token: value for token, value in left.items() if value >= 0}
        if not left:
            return [own]
        best = min(left, key=lambda token: (-left[token], token))
        already = self.along(paths, own)
        if already and self.worth(already) >= left[best]:
            found = self.follow(text, own, already, 0.0, own_only=True)
            if found is not None:
                return found
        tried = [p for p in self.along(paths, best) if self.spellings[p[0]][1] >= costs[best]]
        found = self.follow(text, best, tried, costs[best], own_only=False)
        return [own] if found is None else found

    def follow(
        self, text: list[int], token: int, paths: list[Path], cost: float, own_only: bool
    ) -> list[int] | None:
        """The tokens of a phrase to its end, or None if it fails."""
        held = [token]
        while True:
            complete = any(
                n == len(self.spellings[i][0]) and self.spellings[i][1] >= cost for i, n in paths
            )
            if len(text) + len(held) >= self.count:
                return held if complete else None
            logits = self.model(tuple(text + held))
            own = int(logits.argmax())
            piece = self.pieces[own]
            if complete and ends_word(self.tail(text + held), piece):
                return held
            if len(held) == LONGEST_TRIAL:
                return None
            if piece is None:
                paths = [path for path in paths if own in self.pauses and self.may_pause(path)]
                token = own
            else:
                going = [p for p in self.along(paths, own) if self.spellings[p[0]][1] >= cost]
                token = own
                if not going and not own_only:
                    options = {
                        self.spellings[i][0][n] for i, n in paths if n < len(self.spellings[i][0])
                    }
                    left = {
                        t: self.worth(self.along(paths, t)) - cost - float(logits[own] - logits[t])
                        for t in options
                    }
                    left = {t: value for t, value in left.items() if value >= 0}
                    if left:
                        token = min(left, key=lambda t: (-left[t], t))
                        cost += float(logits[own] - logits[token])
                        going = self.along(paths, token)
                paths = [p for p in going if self.spellings[p[0]][1] >= cost]
            if not paths:
                return None
            held.append(token)

    # -- phrases

    def begun(self, text: list[int]) -> list[Path]:
        """Spellings whose first tokens the text ends with, blanks between words left out."""
        found = []
        for start in range(max(0, len(text) - LONGEST_TRIAL + 1), len(text)):
            piece = self.pieces[text[start]]
            if piece is None or not begins_word(self.tail(text[:start]), piece):
                continue
            for i, (tokens, _) in enumerate(self.spellings):
                n = 0
                for token in text[start:]:
                    if self.pieces[token] is None:
                        if token not in self.pauses or not self.may_pause((i, n)):
                            break
                    elif n < len(tokens) and tokens[n] == token:
                        n += 1
                    else:
                        break
                else:
                    if n < len(tokens):
                        found.append((i, n))
        return found

    def may_pause(self, path: Path) -> bool:
        """Whether some phrase that begins so goes on with another word."""
        i, n = path
        prefix = self.spellings[i][0][:n]
        return any(
            tokens[:n] == prefix
            and n < len(tokens)
            and begins_word(self.tail(list(prefix)), self.pieces[tokens[n]] or b"")
            for tokens, _ in self.spellings
        )

    def along(self, paths: list[Path], token: int) -> list[Path]:
        """The paths that go on with a token, each one further."""
        return [
            (i, n + 1)
            for i, n in paths
            if n < len(self.spellings[i][0]) and self.spellings[i][0][n] == token
        ]

    def worth(self, paths: list[Path]) -> float:
        return max((self.spellings[i][1] for i, _ in paths), default=-np.inf)

    # -- text

    def is_spaced(self, token: int) -> bool:
        return (self.pieces[token] or b"")[:1].isspace()

    def tail(self, text: list[int]) -> bytes:
        """The bytes since the last special token."""
        end = b""
        for token in reversed(text):
            piece = self.pieces[token]
            if piece is None:
                break
            end = piece + end
        return end[-4:]

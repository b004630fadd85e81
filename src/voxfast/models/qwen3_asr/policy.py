"""AlignAtt (arXiv 2305.11408): which decoded tokens to keep, by their attended frames.

The attended frame of a token is the audio token that the decoder's alignment heads attend to.
A token at the newest audio may change with more audio. A frame that falls back shows that the
model has lost its place.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum

__all__ = ["Policy", "Verdict", "first_of_loop", "judge"]


class Verdict(Enum):
    """What to do with the newest token."""

    KEEP = "keep it"
    BORDER = "drop it and all later tokens until more audio is there"
    REWIND = "drop it and the token before it"


@dataclass(frozen=True, slots=True)
class Policy:
    """Distances in audio tokens.

    Attributes:
        border: least distance of a kept token's frame from the end of the audio.
        rewind: most that a frame may fall back behind the previous one.
        min_steps: number of tokens that ignore the border.
    """

    border: int
    rewind: int
    min_steps: int = 0


def judge(
    frames: Sequence[int], n_audio: int, policy: Policy, *, before: int = 0, end: bool = False
) -> Verdict:
    """The verdict on the newest token; the previous ones were kept.

    Args:
        frames: attended frames of the tokens, the newest last; at least one.
        n_audio: audio tokens in the buffer; frames lie in 0 … n_audio - 1.
        before: frame of the last committed token.
        end: no more audio follows, so every token is kept.
    """
    if end:
        return Verdict.KEEP
    newest = frames[-1]
    previous = frames[-2] if len(frames) > 1 else before
    if previous - newest > policy.rewind:
        return Verdict.REWIND
    if len(frames) > policy.min_steps and n_audio - newest <= policy.border:
        return Verdict.BORDER
    return Verdict.KEEP


def first_of_loop(
    tokens: Sequence[Hashable], frames: Sequence[int], *, repeats: int = 4, most: int = 20
) -> int | None:
    """Detect a loop at the end of the tokens.

    A phrase that is really spoken again advances in the audio. A phrase is a loop if it repeats
    ``repeats`` times with less than one audio token (80 ms) of progress per token, or ``most``
    times in any case.

    Returns:
        The number of tokens up to the end of the phrase's first occurrence, or None.
    """
    for length in range(1, len(tokens) // repeats + 1):
        count = _repetitions(tokens, length)
        if count < repeats:
            continue
        first = len(tokens) - length * (count - 1)
        recent = len(tokens) - length * (repeats - 1)
        if count >= most or frames[-1] - frames[recent - 1] < length * (repeats - 1):
            return first
    return None


def _repetitions(tokens: Sequence[Hashable], length: int) -> int:
    """How often the last ``length`` tokens occur in a row at the end."""
    count, end = 1, len(tokens) - length
    while end >= length and tokens[end - length : end] == tokens[len(tokens) - length :]:
        count, end = count + 1, end - length
    return count

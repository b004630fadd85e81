"""How often the weights of a model were read."""

from dataclasses import dataclass

__all__ = ["PassCount"]


@dataclass
class PassCount:
    """Passes of a model's decoder so far, for all of its sessions.

    Changed on the model's owner thread; may be read on any.

    Attributes:
        passes: reads of the decoder's weights.
        rows: positions that went through them: of a prompt, of guesses that failed, too.
    """

    passes: int = 0
    rows: int = 0

    def note(self, rows: int) -> None:
        """A pass over so many positions."""
        self.passes += 1
        self.rows += rows

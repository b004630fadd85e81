"""The words of a transcript as clients get them: pieces of text that joined are the transcript."""

from voxfast.timed import Word, join

__all__ = ["Pieces"]


class Pieces:
    """Gathers the words of a transcript.

    Attributes:
        words: so far.
    """

    def __init__(self) -> None:
        self.words: list[Word] = []
        self._has_begun = False

    def add(self, word: Word) -> str:
        """The next piece: the word's text, without space before the first that has some."""
        self.words.append(word)
        text = word.text if self._has_begun else word.text.lstrip()
        self._has_begun = self._has_begun or bool(text)
        return text

    @property
    def text(self) -> str:
        """The transcript so far."""
        return join(self.words)

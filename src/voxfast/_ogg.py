"""Chained Ogg: recordings joined one behind the other, each of which has headers of its own.

FFmpeg goes on with the next one only if codec, rate and channels stay, and loses it without
a word otherwise. So each link of the chain is given to it as a stream of its own.
"""

from voxfast._streams import ByteReader

_HEADER = 27
_BEGINS, _ENDS = 2, 4


class OggLinks:
    """The links of a chain, as byte streams (RFC 3533).

    A link begins with a page that says so, behind pages that do not.
    """

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._left = 0  # bytes of the page that is being read
        self._is_begun = self._is_inside = False
        self.is_complete = False
        """Whether the pages read so far end with one that is whole, and marked as the last."""
        self.end: int | None = None
        """The position at the end of the last page, once that was read; for Vorbis, in samples."""

    def begin(self) -> bool:
        """Go to the next link, past what is left of this one; False if there is none."""
        while self._is_begun and self.some(1 << 16):
            pass
        self._is_begun = True
        self._is_inside = self.is_complete = False
        self.end = None
        return bool(self._reader.peek(1))

    def some(self, most: int) -> bytes:
        """1 to ``most`` bytes of the link; nothing at its end."""
        if not self._left and not self._next_page():
            return b""
        data = self._reader.some(min(most, self._left))
        self._left -= len(data)
        if not data:  # in the middle of a page
            self._left, self.is_complete = 0, False
        return data

    def _next_page(self) -> bool:
        """Measure the next page; False if the link has none."""
        head = self._reader.peek(_HEADER)
        if not head:
            return False
        if len(head) < _HEADER or head[:4] != b"OggS":
            # Something else, up to the next page. The last three bytes may begin it.
            data = self._reader.arrived()
            at = data.find(b"OggS", 1)
            self._left = at if at > 0 else max(1, len(data) - 3)
            self.is_complete = False
            return True
        begins = bool(head[5] & _BEGINS)
        if begins and self._is_inside:
            return False
        self._is_inside = not begins
        segments = self._reader.peek(_HEADER + head[26])[_HEADER:]
        size = _HEADER + head[26] + sum(segments)
        # FFmpeg waits for the whole page, too. One that was cut off has the next in it.
        cut = self._reader.peek(size).find(b"OggS\0", 1)
        self._left = cut if cut > 0 else size
        self.is_complete = bool(head[5] & _ENDS) and cut < 0
        if self.is_complete:
            self.end = int.from_bytes(head[6:14], "little", signed=True)
        return True

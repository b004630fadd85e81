"""How much audio a container says it has, where FFmpeg does not tell a promise from a guess.

FFmpeg estimates lengths that are not said, and ends a file that was cut off as any other. So
that a file that ends too early is not taken for a short one, its promise is looked up here.
"""

MOST_MP3_FRAME = 2881
"""Bytes of the longest MP3 frame."""
_UNKNOWN = (0, 0xFFFFFFFF)


def mp3_samples(frame: bytes) -> int | None:
    """Samples of an MP3 file by its index (Xing, Info, VBRI); None: it has none.

    Args:
        frame: the bytes before the first frame of audio: the frame that holds the index.

    Returns:
        Samples without the encoder's delay and padding.
    """
    at = max(frame.rfind(tag) for tag in (b"Xing", b"Info", b"VBRI"))
    if at < 0:
        return None
    is_vbri = frame[at : at + 4] == b"VBRI"
    # The tag lies behind the frame's header and side information.
    distances = (36,) if is_vbri else (36, 21, 13)
    starts = (at - distance for distance in distances if at >= distance)
    start = next((s for s in starts if frame[s] == 0xFF and frame[s + 1] & 0xE6 == 0xE2), None)
    if start is None:
        return None
    per_frame = 1152 if frame[start + 1] & 0x18 == 0x18 else 576
    if is_vbri:
        return int.from_bytes(frame[at + 14 : at + 18], "big") * per_frame or None
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    if not flags & 1:
        return None
    frames = int.from_bytes(frame[at + 8 : at + 12], "big")
    # Frames, bytes, a table of contents and a quality stand before LAME's tag, each if flagged.
    sizes = zip((1, 2, 4, 8), (4, 4, 100, 4), strict=True)
    lame = at + 8 + sum(size for flag, size in sizes if flags & flag)
    gaps = int.from_bytes(frame[lame + 21 : lame + 24], "big")
    unheard = (gaps >> 12) + (gaps & 0xFFF) if frame[lame : lame + 1].isalpha() else 0
    samples = frames * per_frame - unheard
    return samples if samples > 0 else None


def flac_samples(stream_info: bytes | None) -> int | None:
    """Samples by a STREAMINFO block (RFC 9639); None: not said."""
    if stream_info is None or len(stream_info) < 18:
        return None
    return (stream_info[13] & 15) << 32 | int.from_bytes(stream_info[14:18], "big") or None


def promised_bytes(head: bytes) -> int | None:
    """Bytes of the file that begins so, by its own word; None: not said."""
    little, big = int.from_bytes(head[4:8], "little"), int.from_bytes(head[4:8], "big")
    if head[:4] == b"RIFF":
        return None if little in _UNKNOWN or little >= 0x7FFF0000 else little + 8
    if head[:4] == b"FORM":
        return None if big in _UNKNOWN else big + 8
    if head[:4] == b".snd":
        size = int.from_bytes(head[8:12], "big")
        return None if size in _UNKNOWN else big + size
    if head[:4] == b"riff":
        size = int.from_bytes(head[16:24], "little")
        return size if 0 < size < 1 << 62 else None
    if head[:4] == b"caff":
        at = 8
        while at + 12 <= len(head) and head[at : at + 4] != b"data":
            at += 12 + int.from_bytes(head[at + 4 : at + 12], "big")
        size = int.from_bytes(head[at + 4 : at + 12], "big")
        is_said = head[at : at + 4] == b"data" and 0 < size < 1 << 62
        return at + 12 + size if is_said else None
    if head[:4] == b"\x1aE\xdf\xa3":
        return _matroska_bytes(head)
    return None


def _matroska_bytes(head: bytes) -> int | None:
    """Bytes of a Matroska file, by the size of its segment (RFC 8794)."""
    size, at = _ebml_size(head, 4)
    if size is None:
        return None
    at += size
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return None
    size, at = _ebml_size(head, at + 4)
    return None if size is None else at + size


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """A size of variable length, None if unknown, and where what it measures begins."""
    if at >= len(data) or not data[at]:
        return None, at
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & (1 << 7 * length) - 1
    return (None if value == (1 << 7 * length) - 1 else value), at + length

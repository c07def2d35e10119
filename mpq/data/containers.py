"""Finds where the samples of a wav, Ogg, mp3 or flac file end, whatever its header says.

libsndfile trusts the length in a header, and decodes only the first of an Ogg file's chained streams. But programs that
write to a pipe can't know the length and leave a placeholder, and files get concatenated. So this module follows a
file's pages and frames to its end, without decoding. If the header is wrong, libsndfile gets `View`s of the file with a
corrected one. A file that ends before the length that its format states is truncated, and refused.
"""

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO

from mpq.data.flac import flac_pieces
from mpq.data.mpeg import mp3_pieces


class CutShortError(Exception):
    """The file ends before the length that its format states."""


class View(io.RawIOBase):
    """A readable file made of `pieces`: bytes, and byte ranges (start, stop) of `file`."""

    def __init__(self, file: BinaryIO, pieces: Sequence[bytes | tuple[int, int]]) -> None:
        self._file = file
        self._pieces = pieces
        lengths = [len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces]
        self._starts = [0, *accumulate(lengths)]  # the last entry is the total length
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        self._at = offset + (0, self._at, self._starts[-1])[whence]
        return self._at

    def tell(self) -> int:
        """As of any file."""
        return self._at

    def readinto(self, buffer) -> int:
        """Fill `buffer` up to the end of the file: soundfile takes fewer bytes than requested for the end."""
        out = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(out) and 0 <= self._at < self._starts[-1]:
            number = bisect_right(self._starts, self._at) - 1
            skip, piece = self._at - self._starts[number], self._pieces[number]
            wanted = min(len(out) - filled, self._starts[number + 1] - self._at)
            if isinstance(piece, bytes):
                got = piece[skip : skip + wanted]
            else:
                self._file.seek(piece[0] + skip)
                got = self._file.read(wanted)
            if not got:  # the file was truncated while being read
                break
            out[filled : filled + len(got)] = got
            filled, self._at = filled + len(got), self._at + len(got)
        return filled


def views(file: BinaryIO) -> list[View]:
    """Return the views of `file` that libsndfile must read, one after the other; none if it can read the file itself.

    Raises: CutShortError.
    """
    magic, end = file.read(4), file.seek(0, io.SEEK_END)
    if magic in (b"RIFF", b"RF64"):
        parts = _wav(file, end)
    elif magic == b"OggS":
        parts = _ogg(file, end)
    else:
        pieces, cut = flac_pieces(file, end) if magic == b"fLaC" else mp3_pieces(file, end)
        if cut:
            raise CutShortError
        parts = [pieces] if pieces else []
    return [View(file, pieces) for pieces in parts]


_LARGEST = 0xFFFFFFFF  # that fits the four bytes of a length
_PLACEHOLDER = 0x7FFF0000  # lengths from here on are placeholders for an unknown one: 18 hours at 16 kHz


def _wav(file: BinaryIO, end: int) -> list[list[bytes | tuple[int, int]]]:
    file.seek(4)
    whole, stated = int.from_bytes(file.read(4), "little") + 8, None
    file.seek(12)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"ds64":  # RF64 (EBU Tech 3306): the sizes of the file and of its samples in 64 bits
            body = file.read(length + length % 2)
            stated = int.from_bytes(body[8:16], "little")
            continue
        if head[:4] != b"data":
            file.seek(length + length % 2, 1)  # a chunk's length is padded to an even number
            continue
        at = file.tell()
        if stated is not None:
            if at + stated > end:
                raise CutShortError
            return []
        unknown = length >= _PLACEHOLDER and at + length > end
        unknown |= length == 0 and at < end and not 0 <= end - whole <= 1  # else other chunks follow zero samples
        if unknown:
            sizes = [min(size, _LARGEST).to_bytes(4, "little") for size in (end - 8, end - at)]
            return [[(0, 4), sizes[0], (8, at - 4), sizes[1], (at, end)]]
        if at + length > end:
            raise CutShortError
        return []
    return []  # no samples at all: the reader reports it


_PAGE = 27  # bytes of the head of an Ogg page before its table of segments: RFC 3533, section 6
_FIRST, _LAST = 2, 4  # flags of a page, in byte 5 of its head


def _ogg(file: BinaryIO, end: int) -> list[list[bytes | tuple[int, int]]]:
    """Return the links of a chain; each begins with the first pages of its streams, which all have a last page."""
    links: list[int] = []
    known: set[bytes] = set()
    unended: set[bytes] = set()
    beginning, at = False, 0
    while at < end:
        file.seek(at)
        head = file.read(_PAGE + 255)
        if not head.startswith(b"OggS"):
            if (found := _find(file, b"OggS", at)) is None:
                break  # foreign bytes after the last page
            at = found
            continue
        size = _PAGE + head[26] + sum(head[_PAGE : _PAGE + head[26]]) if len(head) > 26 else _PAGE
        if at + size > end:
            raise CutShortError
        flags, stream = head[5], head[14:18]
        if flags & _FIRST and not beginning:
            if unended:
                raise CutShortError
            links.append(at)
            known.clear()
        if flags & _FIRST:
            known.add(stream)
            unended.add(stream)
        elif stream not in known:  # the page before was truncated and completed with bytes of the next stream
            raise CutShortError
        if flags & _LAST:
            unended.discard(stream)
        beginning, at = bool(flags & _FIRST), at + size
    if unended:
        raise CutShortError
    return [[link] for link in zip(links, [*links[1:], end], strict=True)] if len(links) > 1 else []


def _find(file: BinaryIO, sign: bytes, at: int) -> int | None:
    """Return the next position of `sign` from `at` on, or None."""
    file.seek(at)
    held = b""
    while block := file.read(2**16):
        held = held[-len(sign) + 1 :] + block
        if (found := held.find(sign)) >= 0:
            return file.tell() - len(held) + found
    return None

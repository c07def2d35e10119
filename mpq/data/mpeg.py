"""Follows the frames of an mp3 file, the only reliable source of its length.

The length in a header (`Xing` or `Info`, `VBRI`) is missing in a file that was written to a pipe and wrong in one that
was joined or cut out of another. A decoder then guesses it from the size of the first frames, and stops too early.
Frame headers: ISO/IEC 11172-3, section 2.4.2.3, and 13818-3 for the low sample rates.
"""

import struct
from functools import cache
from typing import BinaryIO

_LONG = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # kbit/s of MPEG-1 layer III
_SHORT = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # and of MPEG-2 and 2.5
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version, in Hz
_SEARCHED = 2**16  # bytes in which a first or a next frame must be found
_SAME = 0xFFFE0C00  # the header bits that all frames of a file share: sync, version, layer, rate


@cache
def _size(head: int) -> int:
    """Return the bytes of a layer III frame with this four-byte header; 0 if it is not such a header."""
    version, layer, bitrate, rate = head >> 19 & 3, head >> 17 & 3, head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return 0
    kilobits, factor = (_LONG[bitrate], 144_000) if version == 3 else (_SHORT[bitrate], 72_000)
    return factor * kilobits // _RATES[version][rate] + (head >> 9 & 1)


def mp3_pieces(file: BinaryIO, end: int) -> tuple[list[bytes | tuple[int, int]], bool]:
    """Return the pieces (see `mpq.data.containers.View`) of an mp3 file with a correct header, and if it is truncated.

    There are no pieces if its own header is correct or it is not an mp3 file. It is truncated if its header states more
    frames and more bytes than there are; without a header this can't be known.
    """
    start = _search(file, _after_tags(file, end), end)
    if start is None:
        return [], False
    frames, runs, head = _walk(file, start, end)
    stop = runs[-1][1]
    file.seek(start)
    first = file.read(_size(head))
    info = _info(first)
    if info is None:
        return [_header(head, frames), *runs], False
    counted, sized = info
    stated = int.from_bytes(first[counted : counted + 4], "big")
    size = int.from_bytes(first[sized : sized + 4], "big") if sized else None
    if stated == frames - 1 and len(runs) == 1:  # one of the frames is the header
        return [], False
    if stated >= frames and (size > stop - start if size else stated > frames):  # some count their own frame
        return [], True
    changed = bytearray(first)
    changed[counted : counted + 4] = struct.pack(">I", frames - 1)
    if sized:
        changed[sized : sized + 4] = struct.pack(">I", stop - start)
    return [bytes(changed), (start + len(first), runs[0][1]), *runs[1:]], False


def _after_tags(file: BinaryIO, end: int) -> int:
    """Return where the ID3v2 tags at the beginning end."""
    at = 0
    while at < end:
        file.seek(at)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        at += 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    return at


def _search(file: BinaryIO, at: int, end: int, like: int | None = None) -> int | None:
    """Return the start of the next frame that another frame (or the end) follows; it must share `_SAME` with `like`."""
    file.seek(at)
    block = file.read(_SEARCHED)
    found = block.find(b"\xff")
    while 0 <= found <= len(block) - 4:
        head = int.from_bytes(block[found : found + 4], "big")
        size = _size(head)
        if size and (like is None or (head ^ like) & _SAME == 0):
            after = at + found + size
            file.seek(after)
            following = int.from_bytes(file.read(4), "big")
            if after == end or (_size(following) and (head ^ following) & _SAME == 0):
                return at + found
        found = block.find(b"\xff", found + 1)
    return None


def _walk(file: BinaryIO, start: int, end: int) -> tuple[int, list[tuple[int, int]], int]:
    """Return the number of whole frames from `start` on, the ranges of consecutive frames, and the first header."""
    file.seek(start)
    first = int.from_bytes(file.read(4), "big")
    runs, frames, begin, at = [], 0, start, start
    while at + 4 <= end:
        file.seek(at)
        head = int.from_bytes(file.read(4), "big")
        size = _size(head)
        if size and (head ^ first) & _SAME == 0:
            if at + size > end:
                break
            frames, at = frames + 1, at + size
            continue
        found = _search(file, at, end, first)  # after a tag between two joined files, or damage
        if found is None:
            break
        runs.append((begin, at))
        begin = at = found
    return frames, [run for run in (*runs, (begin, at)) if run[1] > run[0]], first


def _info(frame: bytes) -> tuple[int, int | None] | None:
    """Return where a first frame has the numbers of frames and of bytes, four bytes each; None if it has none."""
    if frame[36:40] == b"VBRI":
        return 36 + 14, 36 + 10
    at = next((at for at in (13, 21, 36) if frame[at : at + 4] in (b"Xing", b"Info")), None)  # by version and channels
    if at is None:
        return None
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    return (at + 8, at + 12 if flags & 2 else None) if flags & 1 else None


def _header(head: int, frames: int) -> bytes:
    """Return a silent frame whose header states `frames` more; `head`: the header of one of them."""
    head = head & ~0xF200 | 0xE000 | 0x10000  # the longest possible frame, without a checksum
    mono, long = head >> 6 & 3 == 3, head >> 19 & 3 == 3
    side = (17 if mono else 32) if long else (9 if mono else 17)
    made = head.to_bytes(4, "big") + bytes(side) + b"Xing" + struct.pack(">II", 1, frames)
    return made.ljust(_size(head), b"\0")

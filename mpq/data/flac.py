"""Counts the samples of a flac file that was written to a pipe, so that its header says 0 (RFC 9639, section 8.2).

Frames are numbered, so the last one gives the count; its checksum, at the end of the file, shows if it is complete.
"""

from functools import cache
from typing import BinaryIO

_SEARCHED = 2**20  # bytes at the end of a file in which its last frame must begin: one holds 65,535 samples at most
_TRIES = 4  # places that look like a frame's header: by chance, one in millions of bytes does
_TOTAL = 21  # byte at which the 36-bit number of samples begins, with its first four bits in the lower half


def flac_pieces(file: BinaryIO, end: int) -> tuple[list[bytes | tuple[int, int]], bool]:
    """Return the pieces (see `mpq.data.containers.View`) of a flac file with the number of samples filled in.

    The second value says whether the file is truncated. There are no pieces if the header already has the number; the
    decoder then finds out whether the file is truncated.
    """
    file.seek(0)
    head = file.read(26)
    if len(head) < 26 or head[_TOTAL] & 15 or any(head[22:26]):
        return [], False
    file.seek(max(42, end - _SEARCHED))
    tail = file.read()
    if not tail:
        return [], False
    at, tries = len(tail), 0
    while (at := tail.rfind(b"\xff", 0, at)) >= 0 and tries < _TRIES:
        samples = _samples(tail[at : at + 16].ljust(16, b"\0"), int.from_bytes(head[8:10], "big"))
        tries += samples > 0
        if samples and _checksum(tail[at:], 16, 0x8005) == 0:
            total = samples.to_bytes(5, "big")
            return [head[:_TOTAL] + bytes([head[_TOTAL] & 0xF0 | total[0]]) + total[1:], (26, end)], False
    return [], True


def _samples(head: bytes, block: int) -> int:
    """Return the number of samples up to the end of the frame that begins with `head` (section 9.1); 0 if none does.

    `block`: the samples of every frame but the last, in a file that numbers frames instead of samples.
    """
    if head[1] & 0xFE != 0xF8 or head[2] >> 4 == 0 or head[3] & 1:
        return 0
    more = 8 - (head[4] ^ 0xFF).bit_length()  # leading ones of a coded number: its number of bytes, unless 0
    if more == 1 or more > 7:
        return 0
    number = head[4] & (0x7F >> more)
    for byte in head[5 : 4 + (more or 1)]:
        number = number << 6 | byte & 0x3F
    at, code = 4 + (more or 1), head[2] >> 4
    if code == 1:
        size = 192
    elif code < 6:
        size = 576 << code - 2
    elif code > 7:
        size = 256 << code - 8
    else:
        size = 1 + int.from_bytes(head[at : at + code - 5], "big")
        at += code - 5
    at += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)  # the sample rate, if it has no code
    if _checksum(head[: at + 1], 8, 0x07):
        return 0
    return size + (number if head[1] & 1 else number * block)


def _checksum(content: bytes, bits: int, polynomial: int) -> int:
    """Return the cyclic redundancy check of `content`, which is 0 if `content` ends with its own checksum."""
    table, mask, found = _table(bits, polynomial), (1 << bits) - 1, 0
    for byte in content:
        found = (found << 8 ^ table[found >> bits - 8 ^ byte]) & mask
    return found


@cache
def _table(bits: int, polynomial: int) -> list[int]:
    made = []
    for value in range(256):
        value <<= bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value >> bits - 1 else 0)) & ((1 << bits) - 1)
        made.append(value)
    return made

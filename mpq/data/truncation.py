"""Finds audio files that were cut short, which their decoder takes for shorter recordings.

A wav file tells the length of its samples and an Ogg stream marks its last page, but libsndfile reads what is there
and says nothing. A cut flac file fails when it is decoded; a cut mp3 file can't be told from a whole one.
"""

from pathlib import Path
from typing import BinaryIO

_LARGEST_PAGE = 27 + 255 + 255 * 255  # bytes of an Ogg page: RFC 3533, section 6
_LAST_PAGE = 4  # its flag, in the header's byte 5
_UNKNOWN = 0xFFFFFFFF  # what a program writes that streams a wav file


def cut_short(path: Path) -> bool:
    """Whether a wav or Ogg file ends before its own format says that it does; False for any other file."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == b"RIFF":
            return _wav_cut_short(file)
        return magic == b"OggS" and _ogg_cut_short(file)


def _wav_cut_short(file: BinaryIO) -> bool:
    end = file.seek(0, 2)
    file.seek(12)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            return length != _UNKNOWN and file.tell() + length > end
        file.seek(length + length % 2, 1)  # a chunk's length is padded to an even number
    return False  # no samples at all: the reader says so


def _ogg_cut_short(file: BinaryIO) -> bool:
    end = file.seek(0, 2)
    file.seek(max(0, end - _LARGEST_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & _LAST_PAGE:
        return True
    segments = page[26]
    return len(page) < 27 + segments or len(page) < 27 + segments + sum(page[27 : 27 + segments])

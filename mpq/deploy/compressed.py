"""ONNX files compressed as a whole with Zstandard (RFC 8878); `zstd -d` restores them.

ONNX stores a code in 2, 4 or 8 bits, more than the information in it, and above all in codes of a file that was made
for a size. Level 1, for the reasons in `mpq.checkpoint.coding`: higher levels look for matches, and make codes larger.

A frame states the size of its content, which is checked before memory is taken, and ends with a checksum.
"""

from pathlib import Path
from typing import Any

from mpq.errors import UserError, first_line

SUFFIX = ".zst"
_LEVEL = 1
_MOST_PER_BYTE = 64  # so a small file can't ask for much memory: 8-bit codes of one bit take an eighth
_LARGEST = 2**31 - 1  # bytes of an ONNX file, as of any protobuf message


def found(path: Path) -> Path:
    """Return `path`, or the compressed file beside it if there is only that."""
    beside = path.with_name(path.name + SUFFIX)
    return beside if beside.is_file() and not path.is_file() else path


def compress(content: bytes) -> bytes:
    """Return the frame of an ONNX file's `content`.

    Raises: UserError if `read` would refuse it.
    """
    library: Any = _library()
    frame = library.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(content)
    _check("the compressed file (compress=false writes a plain one)", len(content), len(frame))
    return frame


def read(path: Path) -> bytes:
    """Return the content of the compressed file `path`.

    Raises: UserError if it is unreadable or damaged, states no plausible size, or zstandard is not installed.
    """
    library: Any = _library()
    try:
        frame = path.read_bytes()
        _check(str(path), library.frame_content_size(frame), len(frame))
        return library.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except (OSError, library.ZstdError) as error:
        raise UserError(f"{path} is damaged, so export or copy it again: {first_line(error)}") from None


def _check(name: str, stated: int, size: int) -> None:
    """Raise UserError unless a frame of `size` bytes may hold a content of `stated` bytes (negative: unstated)."""
    most = min(_MOST_PER_BYTE * size, _LARGEST)
    if not 0 <= stated <= most:
        states = "an unstated number" if stated < 0 else str(stated)
        raise UserError(f"{name} of {size} bytes must hold at most {most}, but states {states}")


def _library() -> Any:
    try:
        import zstandard
    except ImportError:
        raise UserError(
            "compressed files need zstandard: pip install zstandard, or restore them with zstd -d"
        ) from None
    return zstandard

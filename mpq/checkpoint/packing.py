"""Packs integer codes of 1 to 8 bits into bytes and unpacks them, at any length.

The layout is one little-endian bit stream: code i is the two's complement number in bits [i * n, (i + 1) * n), the
first code is in the lowest bits of the first byte, and the last byte is padded with zeros. At 2, 4 and 8 bits this is
the layout of ONNX's INT2, INT4 and INT8 initializers, so an exporter can copy the bytes.

Eight codes of n bits are always n whole bytes, so processing one 64-bit word at a time works for every bit-width,
including 3, 5, 6 and 7: eight shifts per word, whereas `numpy.packbits` would first expand every code to n bytes.
Chunks limit the working memory to some tens of megabytes for any length.
"""

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 20  # codes per step, a multiple of 8
_GROUP = 8  # codes per 64-bit word


def packed_bytes(count: int, bits: int) -> int:
    """Return how many bytes `count` codes of `bits` bits take: ceil(count * bits / 8)."""
    return (count * bits + 7) // 8


def pack(codes: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Pack `codes` (int8, any shape, read in C order) into bytes of shape [ceil(count * bits / 8)].

    Raises ValueError for a bit-width outside 1..8 and for a code outside -2^(n-1) .. 2^(n-1)-1.
    """
    _check_bits(bits)
    flat = np.ascontiguousarray(codes, dtype=np.int8).reshape(-1)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if flat.size and (flat.min() < low or flat.max() > high):
        raise ValueError(f"codes of {bits} bits must lie in {low}..{high}, but lie in {flat.min()}..{flat.max()}")
    if bits == 8:
        return flat.view(np.uint8).copy()
    data = np.empty(packed_bytes(flat.size, bits), dtype=np.uint8)
    for start in range(0, flat.size, _CHUNK):
        piece = _pack_chunk(flat[start : start + _CHUNK], bits)
        first = start // _GROUP * bits
        data[first : first + piece.size] = piece
    return data


def unpack(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int8]:
    """Return the `count` int8 codes (shape [count]) that `pack` put into `data` (uint8, its shape).

    Raises ValueError for a bit-width outside 1..8 and for a number of bytes that doesn't match `count`.
    """
    _check_bits(bits)
    if data.size != packed_bytes(count, bits):
        raise ValueError(f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes, but got {data.size}")
    if bits == 8:
        return data.view(np.int8).copy()
    codes = np.empty(count, dtype=np.int8)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        first = start // _GROUP * bits
        codes[start : start + size] = _unpack_chunk(data[first : first + packed_bytes(size, bits)], bits, size)
    return codes


def _pack_chunk(codes: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    groups = -(-codes.size // _GROUP)
    unsigned = np.zeros(groups * _GROUP, dtype=np.uint8)
    np.bitwise_and(codes.view(np.uint8), (1 << bits) - 1, out=unsigned[: codes.size])
    columns = unsigned.reshape(groups, _GROUP)
    words = np.zeros(groups, dtype="<u8")
    for place in range(_GROUP):
        words |= columns[:, place].astype("<u8") << np.uint64(bits * place)
    # The low `bits` bytes of a word hold its eight codes; the others are zero.
    return words.view(np.uint8).reshape(groups, 8)[:, :bits].reshape(-1)[: packed_bytes(codes.size, bits)]


def _unpack_chunk(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int8]:
    groups = -(-count // _GROUP)
    whole = np.zeros(groups * bits, dtype=np.uint8)
    whole[: data.size] = data
    padded = np.zeros((groups, 8), dtype=np.uint8)
    padded[:, :bits] = whole.reshape(groups, bits)
    words = padded.view("<u8").reshape(-1)
    codes = np.empty((groups, _GROUP), dtype=np.int8)
    for place in range(_GROUP):
        # Shift the code to the top of a byte; the arithmetic shift of int8 below then extends its sign.
        left = (words >> np.uint64(bits * place)).astype(np.uint8) << np.uint8(8 - bits)
        codes[:, place] = left.view(np.int8) >> np.int8(8 - bits)
    return codes.reshape(-1)[:count]


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must lie in 1..8, but are {bits}")

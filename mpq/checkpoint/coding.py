"""Codes a site's packed bytes without loss: codes that are used unevenly then take less than their bits.

Layout: codes of 3 bits are widened to 4 and those of 5 to 7 bits to 8, so that a byte holds whole codes. Each row of
the site, flattened to [out, rest], is packed as in `packing` and padded with zero codes to whole bytes. The bytes
[out, bytes a row] are stored column by column as one Zstandard frame (RFC 8878), which states its content's size.

Why so: Zstandard's Huffman coder gives each byte a whole number of bits, hence several codes a byte. Its higher levels
look for matches, of which codes have none: level 1 makes files as small and is the fastest. Rows have their own scales,
which make their codes alike; columns differ, and the coder adapts to them. experiments/LOG.md has the measurements.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from torch import Tensor

from mpq.checkpoint.format import (
    CODED_VERSION,
    PACKED_VERSION,
    Coding,
    PackedSite,
    check_coding,
    coded_name,
    packed_name,
)
from mpq.checkpoint.packing import pack, unpack
from mpq.errors import UserError

_LEVEL = 1
_MOST_CODES_PER_BYTE = 256  # so a small file can't ask for much memory: 8 codes are the most that a packed byte holds


def encode(packed: NDArray[np.uint8], site: PackedSite) -> NDArray[np.uint8] | None:
    """Return the coded form (uint8 [bytes]) of a site's `packed` bytes, or None if the site has to stay packed.

    It stays packed if it would not become smaller, or if it would become so small that `check_coded` refuses it.
    """
    width, rows, padded = _layout(site)
    if not _same_bytes(site):
        codes = np.zeros((rows, padded), np.int8)
        codes[:, : math.prod(site.shape[1:])] = unpack(packed, site.bits, math.prod(site.shape)).reshape(rows, -1)
        packed = pack(codes, width)
    columns = np.ascontiguousarray(packed.reshape(rows, -1).T)
    coded = np.frombuffer(zstandard.ZstdCompressor(level=_LEVEL).compress(columns.data), np.uint8)
    small_enough = coded.size < site.packed_bytes
    return coded.copy() if small_enough and coded.size * _MOST_CODES_PER_BYTE >= math.prod(site.shape) else None


def stored_bytes(codes: NDArray[np.int8], bits: int, coding: Coding = "zstd") -> int:
    """Return how many bytes a file with this `coding` takes for the `codes` (int8, [out, in, ...]) of `bits` bits.

    Measured by coding them: searches and budgets in coded bits ask this, and so never differ from the file.
    """
    site = PackedSite(bits, 0.0, codes.shape)
    if coding == "none":
        return site.packed_bytes
    coded = encode(pack(codes, bits), site)
    return site.packed_bytes if coded is None else coded.size


def decode(name: str, coded: NDArray[np.uint8], site: PackedSite) -> NDArray[np.uint8]:
    """Return the packed bytes (uint8 [site.packed_bytes]) of the site `name`; the inverse of `encode`.

    Raises:
        UserError: as `check_coded`, or the frame is damaged, or its content is not what `encode` writes.
    """
    check_coded(name, coded, site)
    try:
        data = zstandard.ZstdDecompressor().decompress(coded.data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise UserError(f"{coded_name(name)} is damaged: {error}") from error
    width, rows, padded = _layout(site)
    packed = np.array(np.frombuffer(data, np.uint8).reshape(-1, rows).T, order="C").reshape(-1)
    if _same_bytes(site):
        return packed
    codes = unpack(packed, width, rows * padded).reshape(rows, padded)[:, : math.prod(site.shape[1:])]
    try:
        return pack(codes, site.bits)
    except ValueError as error:
        raise UserError(f"{coded_name(name)} is damaged: {error}") from error


def check_coded(name: str, coded: NDArray[np.uint8], site: PackedSite) -> None:
    """Refuse a coded tensor that does not state the size of the site's codes, or is too small for them; no decoding.

    Raises:
        UserError: the above.
    """
    width, rows, padded = _layout(site)
    expected, count = rows * padded * width // 8, math.prod(site.shape)
    try:
        stated = zstandard.frame_content_size(coded.data)
    except zstandard.ZstdError as error:
        raise UserError(f"{coded_name(name)} is damaged: it is not a Zstandard frame ({error})") from error
    if stated != expected:
        found = "an unstated number" if stated < 0 else stated
        raise UserError(
            f"{coded_name(name)} must decode to the {expected} bytes of {count} codes of {site.bits} bits, but states "
            f"{found}"
        )
    if coded.size * _MOST_CODES_PER_BYTE < count:
        raise UserError(
            f"{coded_name(name)} must hold at most {_MOST_CODES_PER_BYTE} codes a byte, but holds {count} in "
            f"{coded.size} bytes"
        )


def in_coding(
    coding: Coding, sites: Mapping[str, PackedSite], stored: Mapping[str, Tensor]
) -> tuple[int, dict[str, Tensor]]:
    """Return the version of the format and the tensors of a file with this `coding`, from the tensors of any.

    Raises:
        UserError: `coding` is unknown, or as `decode`.
    """
    check_coding(coding)
    packed = packed_form(sites, stored)
    tensors = coded_form(sites, packed) if coding == "zstd" else packed
    return PACKED_VERSION if tensors.keys() == packed.keys() else CODED_VERSION, tensors


def coded_form(sites: Mapping[str, PackedSite], stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file with every site coded that becomes smaller; `stored` has all sites packed."""
    tensors = dict(stored)
    for name, site in sites.items():
        coded = encode(stored[packed_name(name)].numpy(), site)
        if coded is not None:
            del tensors[packed_name(name)]
            tensors[coded_name(name)] = torch.from_numpy(coded)
    return tensors


def packed_form(sites: Mapping[str, PackedSite], stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file with every site packed; the inverse of `coded_form`.

    Raises:
        UserError: as `decode`.
    """
    tensors = dict(stored)
    for name, site in sites.items():
        tensors[packed_name(name)] = take_packed(tensors, name, site)
    return tensors


def take_packed(tensors: dict[str, Tensor], name: str, site: PackedSite) -> Tensor:
    """Remove the codes of the site `name` from `tensors`; return them packed (uint8 [site.packed_bytes]).

    Raises:
        UserError: as `decode`.
    """
    if packed_name(name) in tensors:
        return tensors.pop(packed_name(name))
    return torch.from_numpy(decode(name, tensors.pop(coded_name(name)).numpy(), site))


def _layout(site: PackedSite) -> tuple[int, int, int]:
    """Return the bits that a code is widened to, the number of rows, and the codes of a row with its padding."""
    width = next(width for width in (1, 2, 4, 8) if width >= site.bits)
    per_byte = 8 // width
    return width, site.shape[0], -(-math.prod(site.shape[1:]) // per_byte) * per_byte


def _same_bytes(site: PackedSite) -> bool:
    """Whether the layout is that of the packed bytes, by rows: whole codes a byte and whole bytes a row."""
    width, _, padded = _layout(site)
    return width == site.bits and padded == math.prod(site.shape[1:])

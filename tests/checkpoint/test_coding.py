"""Codes coded without loss: the same bytes come back, at nearly the entropy, and nothing damaged is believed."""

import math
import random

import numpy as np
import pytest
import zstandard

from mpq.checkpoint.coding import decode, encode
from mpq.checkpoint.format import PackedSite
from mpq.checkpoint.packing import pack, unpack
from mpq.errors import UserError
from mpq.quant.grid import grid

SHAPES = [(64, 96), (33, 65), (7, 5, 13), (1, 999), (999,)]


def site_of(bits: int, shape: tuple[int, ...]) -> PackedSite:
    return PackedSite(bits, grid(bits).offset, shape)


def uneven(bits: int, shape: tuple[int, ...], generator: np.random.Generator, spread: float = 0.1) -> np.ndarray:
    """Codes as a rounded Gaussian has them; `spread`: its deviation, as a share of the range."""
    codes = np.floor(generator.normal(0, spread * 2**bits, shape))
    return codes.clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int8)


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_packed_bytes_come_back(bits):
    generator = np.random.default_rng()
    coded_ones = 0
    for shape in SHAPES:
        packed = pack(uneven(bits, shape, generator, spread=0.05), bits)
        if bits == 1:  # half of the codes are -1, whatever their spread
            packed = pack(-generator.binomial(1, 0.05, shape).astype(np.int8), bits)
        coded = encode(packed, site_of(bits, shape))
        if coded is not None:
            coded_ones += 1
            assert coded.dtype == np.uint8 and coded.size < packed.size
            np.testing.assert_array_equal(decode("x", coded, site_of(bits, shape)), packed)
    assert coded_ones >= 3


def test_the_bytes_lie_by_columns():
    """The documented layout, by hand: 3-bit codes in 4 bits, two a byte, columns of bytes one after the other."""
    codes = np.zeros((200, 3), np.int8)
    codes[:, 0], codes[:, 1], codes[:, 2] = 1, -2, 3
    coded = encode(pack(codes, 3), site_of(3, codes.shape))
    assert coded is not None
    assert zstandard.ZstdDecompressor().decompress(coded.tobytes()) == b"\xe1" * 200 + b"\x03" * 200


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_the_size_is_close_to_the_entropy(bits):
    codes = uneven(bits, (768, 1024), np.random.default_rng(), spread=0.15)
    shares = np.unique(codes, return_counts=True)[1] / codes.size
    entropy = -(shares * np.log2(shares)).sum() * codes.size / 8
    coded = encode(pack(codes, bits), site_of(bits, codes.shape))
    assert coded is not None and entropy * 0.99 < coded.size < entropy * 1.05


def test_what_would_grow_or_nearly_vanish_stays_packed():
    even = np.random.default_rng().integers(-8, 8, (64, 64), dtype=np.int8)
    assert encode(pack(even, 4), site_of(4, even.shape)) is None
    constant = np.zeros((512, 512), np.int8)
    assert encode(pack(constant, 4), site_of(4, constant.shape)) is None


SITE = site_of(4, (96, 64))


def frame(data: bytes, **options) -> np.ndarray:
    return np.frombuffer(zstandard.ZstdCompressor(level=1, **options).compress(data), np.uint8)


@pytest.fixture(scope="module")
def coded() -> np.ndarray:
    made = encode(pack(uneven(4, SITE.shape, np.random.default_rng()), 4), SITE)
    assert made is not None
    return made


def refused(wrong: np.ndarray, match: str, site: PackedSite = SITE) -> None:
    with pytest.raises(UserError, match=match) as caught:
        decode("x", wrong, site)
    assert "\n" not in str(caught.value) and "x_coded" in str(caught.value)


def test_damaged_frames_are_refused(coded):
    for end in (len(coded) - 1, len(coded) // 2, 40):
        refused(coded[:end], "damaged")
    refused(coded[:3], "not a Zstandard frame")
    refused(coded[:0], "not a Zstandard frame")
    refused(np.append(coded, np.uint8(0)), "unused data")
    refused(np.concatenate([coded, coded]), "unused data")
    refused(
        frame(bytes(SITE.packed_bytes + 1)), "must decode to the 3072 bytes of 6144 codes of 4 bits, but states 3073"
    )
    refused(frame(bytes(SITE.packed_bytes - 1)), "but states 3071")
    refused(frame(bytes(SITE.packed_bytes), write_content_size=False), "states an unstated number")
    refused(frame(bytes(range(128)) * 24, write_content_size=True)[:40], "damaged")


def test_a_frame_that_lies_about_its_size_is_refused(coded):
    for content in (bytes(SITE.packed_bytes - 16), bytes(SITE.packed_bytes + 16)):
        honest, right = frame(content), frame(bytes(SITE.packed_bytes))
        differing = [place for place in range(5, 8) if honest[place] != right[place]]
        lying = np.append(honest, np.frombuffer(bytes(64), np.uint8))[: len(honest)].copy()
        lying[differing[0]] = right[differing[0]]
        with pytest.raises(UserError):
            decode("x", lying, SITE)


def test_codes_wider_than_their_bits_are_refused():
    site = site_of(3, (64, 64))
    with pytest.raises(UserError, match="codes of 3 bits must lie"):
        decode("x", frame(b"\x44" * 2048), site)


def test_a_bomb_is_refused_without_decoding(monkeypatch):
    shape = (1 << 14, 1 << 14)
    bomb = frame(bytes(1 << 27))  # 128 MB in some kilobytes
    monkeypatch.setattr(zstandard, "ZstdDecompressor", None)
    refused(bomb, "at most 256 codes a byte", site_of(4, shape))
    refused(bomb, "but states 134217728")


def test_ten_thousand_mutants(coded):
    """Each is refused in a sentence, or decodes to as many codes as declared; nothing else ever happens."""
    chance = random.Random(0)
    counts = {True: 0, False: 0}
    for _ in range(10_000):
        changed = bytearray(coded.tobytes())
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(min(len(changed), chance.choice([20, 200, 1 << 20])))
            kind = chance.choice(["flip", "byte", "insert", "delete", "cut"])
            if kind == "flip":
                changed[place] ^= 1 << chance.randrange(8)
            elif kind == "byte":
                changed[place] = chance.randrange(256)
            elif kind == "insert":
                changed[place:place] = chance.randbytes(chance.randint(1, 8))
            else:
                del changed[max(place, 1) : place + 3 if kind == "delete" else None]
        try:
            packed = decode("x", np.frombuffer(changed, np.uint8), SITE)
            assert unpack(packed, 4, math.prod(SITE.shape)).size == math.prod(SITE.shape)
        except UserError as error:
            assert "\n" not in str(error)
            counts[True] += 1
        else:
            counts[False] += 1
    assert counts[True] > 5000 and counts[False]

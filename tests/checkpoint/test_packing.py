import numpy as np
import pytest

from mpq.checkpoint.packing import pack, packed_bytes, unpack

LENGTHS = [*range(20), 1001, (1 << 20) - 1, (1 << 20) + 3]  # around the chunk's end too


def reference(codes: np.ndarray, bits: int) -> np.ndarray:
    """The layout through numpy's own bit packing: one row of bits a code, lowest first."""
    rows = np.unpackbits(codes.view(np.uint8)[:, None], axis=1, bitorder="little")[:, :bits]
    return np.packbits(rows.reshape(-1), bitorder="little")


@pytest.mark.parametrize("bits", range(1, 9))
def test_bytes_are_numpys_and_codes_come_back(bits):
    generator = np.random.default_rng(bits)
    for length in LENGTHS:
        codes = generator.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), length, dtype=np.int8)
        data = pack(codes, bits)
        assert data.dtype == np.uint8 and data.size == packed_bytes(length, bits)
        np.testing.assert_array_equal(data, reference(codes, bits))
        np.testing.assert_array_equal(unpack(data, bits, length), codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_code_survives(bits):
    codes = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), dtype=np.int8)
    np.testing.assert_array_equal(unpack(pack(codes, bits), bits, codes.size), codes)


def test_any_shape_is_read_in_c_order():
    codes = np.arange(-8, 8, dtype=np.int8).reshape(4, 4).T
    np.testing.assert_array_equal(pack(codes, 4), pack(np.ascontiguousarray(codes).reshape(-1), 4))


def test_what_does_not_fit_is_refused():
    codes = np.array([1, -3], dtype=np.int8)
    with pytest.raises(ValueError, match=r"-2\.\.1"):
        pack(codes, 2)
    for bits in (0, 9):
        with pytest.raises(ValueError, match=r"1\.\.8"):
            pack(codes, bits)
    with pytest.raises(ValueError, match="3 bytes"):
        unpack(np.zeros(2, dtype=np.uint8), 4, 5)

"""The levels that a weight of each precision may take."""

from dataclasses import dataclass

from mpq.errors import UserError


@dataclass(frozen=True)
class Grid:
    """The levels of one precision: `scale * (code + offset)` for the integer codes `low..high`.

    `offset` 0 is a mid-tread grid (zero is a level, and one negative level has no positive counterpart); 0.5 is a
    centred grid, symmetric and without zero: `{-1.5, -0.5, 0.5, 1.5} * scale` at 2 bits.
    """

    low: int
    high: int
    offset: float

    @property
    def top(self) -> float:
        """The largest level, in units of the scale."""
        return self.high + self.offset


def grid(bits: int, centred: bool = True) -> Grid:
    """Return the grid of an n-bit weight: codes from -2^(n-1) to 2^(n-1) - 1.

    One bit is always centred (it would have no positive level otherwise), two bits only if `centred` is true; from
    three bits on the wasted level does not matter and the grid is mid-tread, as in LSQ (Esser et al. 2020, section 2).

    Raises:
        UserError: `bits` is not a whole number from 1 to 8.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
        raise UserError(f"a precision of {bits!r} bits is not possible: it must be a whole number from 1 to 8.")
    offset = 0.5 if bits == 1 or (bits == 2 and centred) else 0.0
    return Grid(low=-(2 ** (bits - 1)), high=2 ** (bits - 1) - 1, offset=offset)

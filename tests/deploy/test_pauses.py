"""Recordings cut into pieces: nothing is lost, pieces fit the window, and cuts lie in pauses."""

import numpy as np
import pytest

from mpq.deploy.pauses import pieces
from mpq.errors import UserError

RATE = 100


def cut(samples, size, margin, rng):
    """The pieces of `samples`, which arrive in blocks of random lengths."""
    blocks = np.split(samples, np.sort(rng.integers(0, len(samples), 5)))
    return list(pieces(blocks, len(samples), size, margin, RATE))


def test_the_pieces_are_the_recording_and_fit_the_window(rng):
    for _ in range(300):
        samples = rng.standard_normal(int(rng.integers(1, 20_000))).astype(np.float32)
        margin = int(rng.integers(0, 300))
        size = int(rng.integers(2 * margin + 1, 2_000)) + 1
        found = cut(samples, size, margin, rng)
        assert np.array_equal(np.concatenate(found), samples)
        assert all(1 <= len(piece) <= size for piece in found)
        assert all(len(piece) >= size - 2 * margin for piece in found[:-1])
        assert len(found) == 1 or len(found[-1]) >= margin


def test_cuts_lie_in_the_pauses(rng):
    """One pause of 0.3 s in every stretch where a piece may end."""
    samples = rng.standard_normal(30 * RATE)
    pauses = [(760, 790), (1_500, 1_530), (2_290, 2_320)]  # 7.6 s, 7.4 s and 7.9 s after the cut before
    for start, stop in pauses:
        samples[start:stop] *= 0.01
    ends = np.cumsum([len(piece) for piece in cut(samples, 8 * RATE, 1 * RATE, rng)])
    assert len(ends) == 4
    for (start, stop), end in zip(pauses, ends[:-1], strict=True):
        assert start + 5 <= end <= stop - 5


def test_no_more_is_read_than_the_piece_at_hand_needs(rng):
    """So that a recording of hours takes the memory of a piece."""
    samples, read, ahead = rng.standard_normal(20_000), 0, []

    def blocks():
        nonlocal read
        for block in np.split(samples, 200):
            read += len(block)
            yield block

    done = 0
    for piece in pieces(blocks(), len(samples), 1_000, 100, RATE):
        ahead.append(read - done - 1_000)
        done += len(piece)
    assert len(ahead) > 15 and max(ahead) < 100 and done == read == len(samples)


@pytest.mark.parametrize(("size", "margin"), [(0, 0), (100, 50), (100, -1), (100, 60)])
def test_margins_must_leave_something(size, margin):
    with pytest.raises(UserError, match="must be longer than its two margins"):
        next(pieces([np.zeros(1_000)], 1_000, size, margin, RATE))

"""The exact allocation of bits to sites under a budget: the knapsack's optimum, then no bit left that still fits."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from mpq.errors import UserError
from mpq.search.knapsack import optimum


def check_target(target: float, candidates: Sequence[int]) -> None:
    """Refuse a target average that the candidates (bits) do not span.

    Raises:
        UserError: with the range that the candidates allow.
    """
    low, high = min(candidates), max(candidates)
    if not low <= target <= high:
        span = f"between {low} and {high}, the range of the candidates {sorted(candidates)}" if low < high else f"{low}"
        raise UserError(f"target_bits={target} must be {span}")


def check_uniform(target: float) -> int:
    """Return a uniform precision's bits.

    Raises:
        UserError: the target is no whole number from 1 to 8.
    """
    if target not in range(1, 9):
        raise UserError(f"target_bits={target} must be a whole number from 1 to 8 for a uniform precision")
    return int(target)


def check_candidates(candidates: Sequence[int]) -> tuple[int, ...]:
    """Return the candidates (bits) ascending.

    Raises:
        UserError: none, a repeated one, or one that is not a whole number from 1 to 8.
    """
    whole = all(type(bits) is int and 1 <= bits <= 8 for bits in candidates)
    if not candidates or not whole or len(set(candidates)) < len(candidates):
        raise UserError(f"candidates={list(candidates)} must be different whole numbers of bits from 1 to 8")
    return tuple(sorted(candidates))


def allocate(scores: np.ndarray, sizes: np.ndarray, candidates: Sequence[int], target: float) -> np.ndarray:
    """Return the bits [S] that maximise the summed scores with an average of at most `target` bits per weight.

    Then, as long as any site's upgrade to more bits still fits, the one that loses the least score is done (a tie goes
    to the fewest bits, then to the first site): scores that tie must not leave half of the budget unused. The same
    input gives the same allocation.

    Args:
        scores: what each site gains from each candidate [S, C]; -inf forbids the candidate at that site.
        sizes: parameter counts [S].
        candidates: bits, C of them, ascending.
        target: average bits per weight.

    Raises:
        UserError: the target is outside the candidates' range, or below what the allowed candidates need.
    """
    check_target(target, candidates)
    scores = np.asarray(scores, dtype=np.float64)
    weights = np.asarray(sizes, dtype=np.int64)[:, None] * np.asarray(candidates, dtype=np.int64)  # bits [S, C]
    allowed = ~np.isneginf(scores)
    if np.isnan(scores).any() or np.isposinf(scores).any() or not allowed.any(axis=1).all():
        raise ValueError("scores must be finite or -inf, with at least one allowed candidate at every site")
    total = int(np.sum(sizes))
    capacity = int(Fraction(target) * total)
    capacity += (capacity + 1) / total <= target  # within the budget is what `average_bits` reports as within it
    least = int(np.where(allowed, weights, np.iinfo(np.int64).max).min(axis=1).sum())
    if least > capacity:
        raise UserError(
            f"target_bits={target} must be at least {least / total:.6g}, which the candidates allowed at each site need"
        )
    choice = optimum(scores, weights, capacity)
    return np.asarray(candidates)[_fill(choice, scores, weights, capacity)]


def _fill(choice: np.ndarray, scores: np.ndarray, weights: np.ndarray, capacity: int) -> np.ndarray:
    """Return `choice` after every upgrade that still fits, each time the one that loses the least score."""
    choice, rows, columns = choice.copy(), np.arange(len(choice)), np.arange(scores.shape[1])
    unused = capacity - int(weights[rows, choice].sum())
    while True:
        extra = weights - weights[rows, choice][:, None]
        fits = (columns > choice[:, None]) & (extra <= unused) & ~np.isneginf(scores)
        if not fits.any():
            return choice
        lost = np.where(fits, scores[rows, choice][:, None] - scores, np.inf)
        column, site = np.unravel_index(lost.T.argmin(), lost.T.shape)  # .T: fewest bits first, then first site
        unused -= int(extra[site, column])
        choice[site] = column

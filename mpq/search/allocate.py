"""The allocation of bits to sites under a budget: the knapsack's optimum, then the best set of upgrades to it.

The optimum may leave bits unused: tied scores would leave half of a budget unused, whereas tables compare systems at
the requested average. Four rules for spending the rest were weighed (experiments/LOG.md, 2026-11-28); `allocate`
follows the last.

- The highest score among the allocations that use the most bits: with irregular sizes this is a subset sum, in which
  the last few bits would decide every site, whatever was learned about it.
- The highest score among the allocations that leave no room for an upgrade: this may take bits from a site to which
  the optimum gave them. Learned log-probabilities have gaps of tens of nats, which say little about what a model loses;
  where the true loss is known, this gave a better score and a worse model than filling the optimum.
- One upgrade of the optimum after the other, always the one that loses the least: two small upgrades may use the room
  of a large one that loses less than both.
- The best set of upgrades of the optimum that leaves no room for another. What the search preferred within its budget
  stays, and more bits at a site never make a model worse.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mpq.errors import UserError
from mpq.search.knapsack import optimum, optimum_within


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
    """Return the bits of a uniform precision.

    Raises:
        UserError: the target is not a whole number from 1 to 8.
    """
    if target not in range(1, 9):
        raise UserError(f"target_bits={target} must be a whole number from 1 to 8 for a uniform precision")
    return int(target)


def check_candidates(candidates: Sequence[int]) -> tuple[int, ...]:
    """Return the candidates (bits) in ascending order.

    Raises:
        UserError: no candidate, a repeated one, or one that is not a whole number from 1 to 8.
    """
    listed = list(candidates) if isinstance(candidates, Sequence) and not isinstance(candidates, str) else []
    whole = all(type(bits) is int and 1 <= bits <= 8 for bits in listed)
    if not listed or not whole or len(set(listed)) < len(listed):
        raise UserError(f"candidates={listed or candidates} must be different whole numbers of bits from 1 to 8")
    return tuple(sorted(candidates))


def allocate(
    scores: np.ndarray,
    sizes: np.ndarray,
    candidates: Sequence[int],
    target: float,
    costs: np.ndarray | None = None,
) -> np.ndarray:
    """Return the bits [S] with the highest summed score at an average of at most `target` bits, spending the budget.

    That is the knapsack's optimum plus the set of upgrades with the highest summed score among those sets that leave no
    room for another upgrade. Ties go to upgrades made one after the other, the fewest bits first, then the first site,
    so that bits are spread evenly if all scores tie. The same input gives the same allocation.

    Exact for sites of a few sizes that share a divisor, as in a transformer. With many sites of irregular sizes it may
    miss the best (`_MOST_STEPS` and `mpq.search.knapsack` say when), but is never worse than the filled optimum.

    Args:
        scores: the gain of each site from each candidate [S, C]; -inf forbids the candidate at that site.
        sizes: parameter counts [S].
        candidates: bits, C of them, ascending.
        target: average bits per weight.
        costs: whole bits that each site takes at each candidate [S, C], where that is not the bits times its size: of
            coded weights. A candidate that takes no more than a lower one counts as one bit more than that.

    Raises:
        UserError: the target is outside the candidates' range, or below what the allowed candidates need.
    """
    check_target(target, candidates)
    scores = np.asarray(scores, dtype=np.float64)
    weights = np.asarray(sizes, dtype=np.int64)[:, None] * np.asarray(candidates, dtype=np.int64)  # bits [S, C]
    if costs is not None:
        columns = np.arange(len(candidates))
        weights = np.maximum.accumulate(np.asarray(costs, dtype=np.int64) - columns, axis=1) + columns
    allowed = ~np.isneginf(scores)
    if np.isnan(scores).any() or np.isposinf(scores).any() or not allowed.any(axis=1).all():
        raise ValueError("scores must be finite or -inf, with at least one allowed candidate at every site")
    total = int(np.sum(sizes))
    capacity = int(Fraction(target) * total)
    capacity += (capacity + 1) / total <= target  # the budget holds if `average_bits`, which rounds, says so
    least = _fewest(scores, weights)
    if least > capacity:
        raise UserError(
            f"target_bits={target} must be at least {least / total:.6g}, which the candidates allowed at each site need"
        )
    best = optimum(scores, weights, capacity)
    upgrades = np.where(np.arange(scores.shape[1]) < best[:, None], -np.inf, scores)
    return np.asarray(candidates)[_best_maximal(upgrades, weights, capacity)]


# Three sizes and eight candidates, of which any may be forbidden, give at most 22 different upgrades.
_MOST_STEPS = 24


def _best_maximal(scores: np.ndarray, weights: np.ndarray, capacity: int) -> np.ndarray:
    """Return the columns [S] with the highest summed score within `capacity` bits that leave no room for an upgrade.

    The bits left must be fewer than the next upgrade of any site takes. So for each possible size `step` of the
    smallest next upgrade, find the best among the choices whose next upgrades take `step` or more, with less than
    `step` left. A greater step leaves fewer choices: stop once their optimum without a floor is no better.
    """
    answer = fill(optimum(scores, weights, capacity), scores, weights, capacity)
    tolerance = 1e-14 * len(scores) * float(np.abs(scores[np.isfinite(scores)]).max())
    steps = _next_steps(scores, weights)
    for step in np.unique(steps[~np.isneginf(scores)])[:_MOST_STEPS].tolist():
        kept = np.where(steps >= step, scores, -np.inf)
        if _fewest(kept, weights) > capacity:
            break
        choice, known = optimum(kept, weights, capacity), _total(scores, answer) + tolerance
        if _total(scores, choice) <= known:
            break
        if capacity - _total(weights, choice) < step:
            return choice
        while (better := optimum_within(kept, weights, capacity - step + 1, capacity, known)) is not None:
            better = fill(better, scores, weights, capacity)  # bits are left only by rounding to units
            if _total(scores, better) <= known:
                break
            answer, known = better, _total(scores, better) + tolerance
    return answer


def _total(values: np.ndarray, choice: np.ndarray) -> Any:
    """Return the sum of the chosen columns of `values` [S, C]."""
    return values[np.arange(len(choice)), choice].sum()


def _fewest(scores: np.ndarray, weights: np.ndarray) -> int:
    """Return the total bits of the sites' cheapest allowed choices."""
    return int(np.where(np.isneginf(scores), np.iinfo(np.int64).max, weights).min(axis=1).sum())


def _next_steps(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the bits that the smallest allowed upgrade of each choice takes [S, C]; the int64 maximum if none is."""
    steps = np.full(weights.shape, np.iinfo(np.int64).max)
    for column in range(weights.shape[1] - 1):
        extra = weights[:, column + 1 :] - weights[:, [column]]
        steps[:, column] = np.where(np.isneginf(scores[:, column + 1 :]), np.iinfo(np.int64).max, extra).min(axis=1)
    return steps


def fill(choice: np.ndarray, scores: np.ndarray, weights: np.ndarray, capacity: int) -> np.ndarray:
    """Return `choice` upgraded until nothing fits, each time by the upgrade that loses the least score."""
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

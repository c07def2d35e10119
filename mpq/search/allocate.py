"""The exact allocation of bits to sites under a budget: the knapsack's optimum, then every upgrade that still fits.

The multiple-choice knapsack is solved exactly over whole numbers of bits, by a dynamic programme kept small by a
Lagrangian bound (after Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", 1995): milliseconds
for 1,000 sites. scipy's `milp` is fast enough too, but its tolerances are absolute floats: it may exceed a budget of
10^9 bits by a thousand, and can't tell apart two totals that differ by less than 10^-6.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from mpq.errors import UserError


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


# Real scores need some thousands. Scores in proportion to irregular sizes (subset sums) go beyond; there the search
# ends early, and the best of so many tries was 10^-4 of the budget or less from the bound.
_MOST_STATES = 1 << 17


def optimum(scores: np.ndarray, weights: np.ndarray, capacity: int) -> np.ndarray:
    """Return the best candidate's column for each site [S].

    At a price per bit each site has a best candidate, the base; any allocation's distance from the Lagrangian bound is
    what its sites give up against the base (`regret`), summed, plus the price of the bits it leaves unused. States
    whose regret alone reaches the best distance known are dropped, so only the few sites near the price branch.

    Args:
        scores: [S, C], finite or -inf; every site has a finite one.
        weights: whole bits that each choice takes [S, C], rising along the columns.
        capacity: whole bits to spend, enough for each site's cheapest finite choice.
    """
    rows = np.arange(len(scores))
    price = _price(scores, weights, capacity)
    value = scores - price * weights
    tolerance = 1e-14 * float(np.abs(scores[np.isfinite(scores)]).max())
    base = value.argmax(axis=1)
    regret = value[rows, base][:, None] - value
    if price > 0:  # where the price leaves a choice, start near the capacity; a choice for nothing is left to _fill
        _spend(base, regret <= tolerance, weights, capacity)
    shift = weights - weights[rows, base][:, None]
    excess = np.array([weights[rows, base].sum() - capacity])  # per state: bits above the capacity
    loss = np.zeros(1)  # per state: summed regret
    best = float(-price * excess[0])
    answer = base.copy()
    history: list[tuple[int, np.ndarray, np.ndarray]] = []  # site, parent state, column: the way back
    others = np.where(np.arange(scores.shape[1]) == base[:, None], np.inf, regret)
    shuffled = np.random.default_rng(0).permutation(len(scores))  # so that ties mix sites that can rise and can fall
    for site in np.lexsort((shuffled, others.min(axis=1).clip(min=tolerance))):
        columns = np.flatnonzero(regret[site] < best - tolerance)
        if best <= tolerance or len(columns) < 2:
            break  # the sites come by rising regret, so no later one can branch either
        parent = np.tile(np.arange(len(loss)), len(columns))
        column = np.repeat(columns, len(loss))
        loss, excess = loss[parent] + regret[site, column], excess[parent] + shift[site, column]
        kept = _undominated(loss, excess, price)
        kept = kept[loss[kept] < best - tolerance]
        loss, excess = loss[kept], excess[kept]
        history.append((int(site), parent[kept], column[kept]))
        distance = np.where(excess <= 0, loss - price * excess, np.inf)
        if len(distance) and distance.min() < best - tolerance:
            best = float(distance.min())
            answer = _walk_back(base, history, int(distance.argmin()))
        if len(kept) > _MOST_STATES:
            break
    return answer


def _price(scores: np.ndarray, weights: np.ndarray, capacity: int) -> float:
    """Return the smallest price per bit (to float precision) at which the sites' best candidates fit the capacity."""
    finite = np.where(np.isneginf(scores), np.nan, scores)

    def fits(price: float) -> bool:
        best = (scores - price * weights).argmax(axis=1)
        return int(np.take_along_axis(weights, best[:, None], axis=1).sum()) <= capacity

    if fits(0.0):
        return 0.0
    low, high = 0.0, float(np.nanmax(finite) - np.nanmin(finite)) / float(weights.min())
    while not fits(high):
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _spend(base: np.ndarray, equal: np.ndarray, weights: np.ndarray, capacity: int) -> None:
    """Move `base` [S], in place and site by site, to the dearest of the `equal` columns [S, C] that still fits."""
    unused = capacity - int(weights[np.arange(len(base)), base].sum())
    for site in np.flatnonzero(equal.sum(axis=1) > 1):
        extra = weights[site] - weights[site, base[site]]
        column = int(np.where(equal[site] & (extra <= unused), extra, -1).argmax())
        unused -= int(extra[column])
        base[site] = column


def _undominated(loss: np.ndarray, excess: np.ndarray, price: float) -> np.ndarray:
    """Return the states, by rising excess, that no state of less or equal excess beats or equals in score."""
    score = price * excess - loss
    order = np.lexsort((-score, excess))
    best_before = np.maximum.accumulate(score[order])
    return order[np.r_[True, best_before[1:] > best_before[:-1]]]


def _walk_back(base: np.ndarray, history: list[tuple[int, np.ndarray, np.ndarray]], state: int) -> np.ndarray:
    """Return the columns [S] of a state of the last stage; sites not reached yet stay at the base."""
    choice = base.copy()
    for site, parent, column in reversed(history):
        choice[site] = column[state]
        state = int(parent[state])
    return choice

"""The multiple-choice knapsack, solved exactly over whole numbers of bits: at most a capacity, or within a window.

`optimum` is a dynamic programme kept small by a Lagrangian bound (after Pisinger, "A minimal algorithm for the
multiple-choice knapsack problem", 1995): milliseconds for 1,000 sites. scipy's `milp` is fast enough too, but its
tolerances are absolute floats: it may exceed a budget of 10^9 bits by a thousand, and can't distinguish two totals that
differ by less than 10^-6. `optimum_within` also has a lower limit, so that no state can dominate one with fewer bits;
it is the textbook dynamic programme over the bits taken, in units of the sites' common divisor.
"""

import numpy as np

# Real scores need a few thousand. Scores proportional to irregular sizes (subset sums) need more; then the search ends
# early, and the best of that many tries was within 10^-4 of the budget of the bound.
_MOST_STATES = 1 << 17


def optimum(scores: np.ndarray, weights: np.ndarray, capacity: int) -> np.ndarray:
    """Return the best candidate's column for each site [S].

    At a given price per bit each site has a best candidate, the base. An allocation's distance from the Lagrangian
    bound is the sum of what its sites lose against the base (`regret`), plus the price of the unused bits. States whose
    regret alone reaches the best known distance are dropped, so only the few sites near the price branch.

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
    if price > 0:  # among equally good choices, start near the capacity; free upgrades are left to `fill`
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
    """Move each site of `base` [S], in place, to the most expensive of the `equal` columns [S, C] that still fits."""
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
    """Return the columns [S] of a state of the last stage; sites not reached stay at the base."""
    choice = base.copy()
    for site, parent, column in reversed(history):
        choice[site] = column[state]
        state = int(parent[state])
    return choice


# One byte each. Eight million suffice for 1,000 sites of two or three sizes; irregular sizes, which share no divisor,
# would need 10^13.
_MOST_CELLS = 1 << 23


def optimum_within(
    scores: np.ndarray, weights: np.ndarray, floor: int, capacity: int, known: float
) -> np.ndarray | None:
    """Return the best column for each site [S] among the choices that take `floor` to `capacity` bits.

    None if no such choice scores more than `known`. Ties go to the most total bits, then to the fewest at the last
    site, at the one before it, and so on.

    Exact if the table of sites by units has at most `_MOST_CELLS` cells, where a unit is the greatest common divisor of
    all upgrades. Otherwise the unit is as small as that limit allows and every upgrade is rounded up to it: the
    capacity still holds, the floor only up to rounding, and there may be a better choice. A greater `known` rules out
    more choices, so calling again with the score found allows a smaller unit.

    Args:
        scores: [S, C], finite or -inf; every site has a finite one.
        weights: whole bits that each choice takes [S, C], rising along the columns.
        floor: the fewest bits allowed.
        capacity: whole bits to spend, enough for each site's cheapest finite choice.
        known: the score to beat.
    """
    allowed = _promising(scores, weights, capacity, known)
    fewest = np.where(allowed, weights, np.iinfo(np.int64).max).min(axis=1)
    extra = np.where(allowed, weights - fewest[:, None], 0)
    floor, capacity = floor - int(fewest.sum()), min(capacity - int(fewest.sum()), int(extra.max(axis=1).sum()))
    unit = max(1, int(np.gcd.reduce(extra, axis=None)), -(-capacity * len(scores) // _MOST_CELLS))
    least, most, extra = max(0, -(-floor // unit)), capacity // unit, -(-extra // unit)
    best = np.full(most + 1, -np.inf)  # per unit taken
    best[0] = 0.0
    columns = np.zeros((len(scores), most + 1), dtype=np.int8)
    for site, row in enumerate(scores):
        before, best = best, np.full(most + 1, -np.inf)
        for column in np.flatnonzero(allowed[site] & (extra[site] <= most)):
            taken = extra[site, column]
            value = before[: most + 1 - taken] + row[column]
            better = value > best[taken:]
            np.copyto(best[taken:], value, where=better)
            np.copyto(columns[site, taken:], column, where=better)
    if least > most or best[least:].max() <= known:
        return None
    taken = most - int(best[least:][::-1].argmax())
    choice = np.empty(len(scores), dtype=np.int64)
    for site in reversed(range(len(scores))):
        choice[site] = columns[site, taken]
        taken -= extra[site, choice[site]]
    return choice


def _promising(scores: np.ndarray, weights: np.ndarray, capacity: int, known: float) -> np.ndarray:
    """Return which choices [S, C] may, by the bound, be part of an allocation that scores more than `known`."""
    price = _price(scores, weights, capacity)
    value = scores - price * weights
    highest = value.max(axis=1)
    gap = highest.sum() + price * capacity - known
    rounding = 1e-12 * float(np.abs(scores[np.isfinite(scores)]).max()) * len(scores)
    return highest[:, None] - value <= gap + rounding

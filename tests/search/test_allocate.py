"""The allocation against brute force, at the true models' dimensions, and on budgets that cannot be met."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import eye, kron

from mpq.errors import UserError
from mpq.search.allocate import allocate, optimum
from mpq.search.knapsack import optimum_within

CANDIDATES = [2, 4, 8]
HUBERT_LARGE = np.tile([1 << 20] * 4 + [1 << 22] * 2, 24)  # 1024 x 1024 and 4096 x 1024, 24 layers
TINY = np.tile([9216] * 4 + [36864] * 2, 4)  # of the shipped models


def total(scores, bits, candidates):
    return sum(row[candidates.index(b)] for row, b in zip(scores, bits, strict=True))


def best_by_brute_force(scores, sizes, candidates, target):
    weights = np.outer(sizes, candidates)
    rows = range(len(sizes))
    best = -np.inf
    for columns in product(range(len(candidates)), repeat=len(sizes)):
        if weights[rows, columns].sum() <= target * sum(sizes) * (1 + 1e-12):
            best = max(best, scores[rows, columns].sum())
    return best


def upgrades(scores, sizes, candidates, target):
    """The scores without the choices of fewer bits than the knapsack's optimum has."""
    best = optimum(scores, np.outer(sizes, candidates), int(target * np.sum(sizes) * (1 + 1e-12)))
    return np.where(np.arange(len(candidates)) < best[:, None], -np.inf, scores)


def best_maximal_by_brute_force(scores, sizes, candidates, target):
    best = -np.inf
    for columns in product(range(len(candidates)), repeat=len(sizes)):
        unused = target * sum(sizes) * (1 + 1e-12) - np.dot(sizes, [candidates[c] for c in columns])
        if unused >= 0 and not any(
            (candidates[dearer] - candidates[c]) * n <= unused and row[dearer] > -np.inf
            for row, n, c in zip(scores, sizes, columns, strict=True)
            for dearer in range(c + 1, len(candidates))
        ):
            best = max(best, scores[range(len(sizes)), columns].sum())
    return best


def best_maximal_by_states(scores, sizes, candidates, target):
    """Site by site, one state for each pair of bits taken and smallest next upgrade: slow, exact for few sizes."""
    states = {(0, np.inf): 0.0}
    for row, n in zip(scores, sizes.tolist(), strict=True):
        reached: dict[tuple[int, float], float] = {}
        for c, score in enumerate(row):
            if score == -np.inf:
                continue
            step = min((n * (d - candidates[c]) for d in candidates[c + 1 :]), default=np.inf)
            for (taken, smallest), total in states.items():
                state = taken + n * candidates[c], min(smallest, step)
                reached[state] = max(reached.get(state, -np.inf), total + score)
        states = reached
    capacity = target * sizes.sum()
    return max(score for (taken, step), score in states.items() if 0 <= capacity - taken < step)


def log_probabilities(rng, sites, candidates=3):
    """Scores as a search leaves them at its last temperature: one candidate near 0, the others tens of nats below."""
    scores = -rng.exponential(30, (sites, candidates))
    scores[np.arange(sites), rng.integers(candidates, size=sites)] = 0.0
    return scores


def undecided(rng, sizes):
    """Scores as on the tracked rows at 4 bits: 4 bits at every site but one large at 2, and one large half at 8."""
    scores = np.array([[-20.0, 0.0, -40.0]] * len(sizes)) * rng.lognormal(0, 0.5, (len(sizes), 1))
    half, low = rng.choice(np.flatnonzero(sizes == sizes.max()), 2, replace=False)
    scores[half] = [-50.0, np.log(0.5), np.log(0.5)]
    scores[low] = [0.0, -30.0, -60.0]
    return scores


def assert_no_upgrade_fits(scores, sizes, candidates, target, bits):
    unused = target * np.sum(sizes) - np.dot(sizes, bits)
    assert unused >= -1e-6
    for row, n, b in zip(scores, sizes, bits, strict=True):
        dearer = [c for c, score in zip(candidates, row, strict=True) if c > b and score > -np.inf]
        assert all((c - b) * n > unused + 1e-6 for c in dearer)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sites=st.integers(1, 6),
    candidates=st.sampled_from([[2, 4, 8], [1, 2, 4, 8], [4, 8], [1, 2, 3, 4], [3]]),
    kind=st.sampled_from(["normal", "rounded", "sensitivity", "rising", "proportional", "log_probabilities"]),
    sizes_from=st.sampled_from([[5], [1, 4], [3, 7, 11, 100, 1009]]),
    forbid=st.booleans(),
)
def test_allocate_equals_brute_force(seed, sites, candidates, kind, sizes_from, forbid):
    rng = np.random.default_rng(seed)
    sizes = rng.choice(sizes_from, sites)
    scores = rng.normal(size=(sites, len(candidates)))
    if kind == "rounded":
        scores = scores.round()
    if kind == "sensitivity":
        scores = -1e-9 * rng.lognormal(0, 3, (sites, 1)) * 4.0 ** -np.array(candidates)
    if kind == "rising":
        scores = np.sort(scores, axis=1)
    if kind == "proportional":
        scores = np.outer(sizes, candidates).astype(float)
    if kind == "log_probabilities":
        scores = log_probabilities(rng, sites, len(candidates))
    if forbid:
        scores[rng.random(scores.shape) < 0.3] = -np.inf
        scores[np.arange(sites), rng.integers(len(candidates), size=sites)] = -1.0
    target = round(float(rng.uniform(candidates[0], candidates[-1])), 2)
    best = best_by_brute_force(scores, sizes, candidates, target)
    if best == -np.inf:
        with pytest.raises(UserError, match="must be at least"):
            allocate(scores, sizes, candidates, target)
        return
    bits = allocate(scores, sizes, candidates, target)
    assert_no_upgrade_fits(scores, sizes, candidates, target, bits)
    best_maximal = best_maximal_by_brute_force(upgrades(scores, sizes, candidates, target), sizes, candidates, target)
    assert total(scores, bits, candidates) == pytest.approx(best_maximal, rel=1e-9, abs=1e-22)
    # The optimum within the budget, which may leave bits unused.
    columns = optimum(scores, np.outer(sizes, candidates), int(target * sum(sizes) * (1 + 1e-12)))
    assert scores[np.arange(sites), columns].sum() == pytest.approx(best, rel=1e-9, abs=1e-22)


def test_one_large_upgrade_may_lose_less_than_two_small_ones():
    # The optimum is [4, 4, 2]; its best upgrades one at a time lead to [8, 8, 2], which scores -10.
    scores = np.array([[-50.0, 0.0, -5.0], [-50.0, 0.0, -5.0], [0.0, -6.0, -50.0]])
    assert allocate(scores, np.array([1, 1, 4]), CANDIDATES, 4).tolist() == [4, 4, 4]


def test_what_the_optimum_gave_a_site_is_not_taken_back():
    # The optimum is [8, 2, 2]; [4, 4, 4] spends the whole budget at a better score than its upgrade [8, 2, 8] has.
    scores = np.array([[-50.0, -0.1, 0.0], [0.0, -1.0, -50.0], [0.0, -30.0, -60.0]])
    assert allocate(scores, np.array([1, 4, 1]), CANDIDATES, 4).tolist() == [8, 2, 8]


def test_bits_that_no_upgrade_fits_may_stay_unused():
    # [8, 8, 2] and its like take all 18 bits, at 2 bits for one site; two are left where no site has 2 bits.
    scores = np.array([[-50.0, 0.0, -1.0], [-50.0, 0.0, -2.0], [-50.0, 0.0, -3.0]])
    assert allocate(scores, np.ones(3), CANDIDATES, 6).tolist() == [8, 4, 4]


@pytest.mark.parametrize("sizes", [TINY, HUBERT_LARGE[:72], np.tile([1, 4, 3], 20)])
@pytest.mark.parametrize("target", [3.5, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_scores_of_a_search_are_allocated_exactly(sizes, target, seed):
    rng = np.random.default_rng(seed)
    for scores in (log_probabilities(rng, len(sizes)), undecided(rng, sizes)):
        bits = allocate(scores, sizes, CANDIDATES, target)
        assert_no_upgrade_fits(scores, sizes, CANDIDATES, target, bits)
        units = sizes // sizes.min()
        best = best_maximal_by_states(upgrades(scores, units, CANDIDATES, target), units, CANDIDATES, target)
        assert total(scores, bits, CANDIDATES) == pytest.approx(best)


@pytest.mark.parametrize(
    ("sizes", "candidates"), [(HUBERT_LARGE, list(range(1, 9))), (np.tile([3, 12, 4], 334)[:1000], CANDIDATES)]
)
def test_low_precisions_everywhere_are_brought_up_to_the_budget_in_seconds(sizes, candidates):
    # The hardest scores: each site wants the fewest bits, so all of the budget is spent against them.
    scores = -np.random.default_rng(0).exponential(30, (len(sizes), len(candidates)))
    scores[:, 0] = 0.0
    bits = allocate(scores, sizes, candidates, 3.5)
    assert_no_upgrade_fits(scores, sizes, candidates, 3.5, bits)
    prices = np.linspace(-50.0, 50.0, 501) / sizes.max()  # Lagrange's bound on all that take the whole budget
    bound = min(
        (scores - price * np.outer(sizes, candidates)).max(axis=1).sum() + price * 3.5 * sizes.sum() for price in prices
    )
    assert total(scores, bits, candidates) >= bound - 0.02 * abs(bound)


@pytest.mark.parametrize("sites", [24, 300])
def test_irregular_sizes_end_at_no_worse_than_upgrades_one_at_a_time(sites):
    rng = np.random.default_rng(3)
    sizes, scores = rng.integers(1000, 10**7, sites), -rng.exponential(30, (sites, 3))
    scores[:, 0] = 0.0  # so that the optimum is 2 bits everywhere
    bits = allocate(scores, sizes, CANDIDATES, 3.5)
    assert_no_upgrade_fits(scores, sizes, CANDIDATES, 3.5, bits)
    assert total(scores, bits, CANDIDATES) > total(scores, upgraded_one_at_a_time(scores, sizes, 3.5), CANDIDATES)


def upgraded_one_at_a_time(scores, sizes, target):
    """From 2 bits everywhere, the upgrade that loses the least of those that fit, until none does."""
    bits, candidates = np.full(len(sizes), 2), np.array(CANDIDATES)
    while True:
        extra = (candidates - bits[:, None]) * sizes[:, None]
        fits = (extra > 0) & (extra <= target * sizes.sum() - np.dot(bits, sizes))
        if not fits.any():
            return bits
        now = scores[np.arange(len(sizes)), np.searchsorted(candidates, bits)]
        site, column = np.unravel_index(np.where(fits, now[:, None] - scores, np.inf).argmin(), scores.shape)
        bits[site] = candidates[column]


@pytest.mark.parametrize(
    ("floor", "capacity", "known", "expected"),
    [
        (5, 11, -1.0, [2, 0]),  # 8 + 2: the most bits; 2 + 8 has more at the last site
        (5, 9, -1.0, [1, 1]),
        (11, 11, -1.0, None),  # no two of 2, 4 and 8 make 11
        (5, 11, 0.0, None),  # no better score
    ],
)
def test_a_window_of_bits(floor, capacity, known, expected):
    choice = optimum_within(np.zeros((2, 3)), np.outer([1, 1], CANDIDATES), floor, capacity, known)
    assert (choice if choice is None else choice.tolist()) == expected


def test_filling_gives_the_score_away_slowly():
    # One site wants 2 bits badly, one a little, one does not mind: the budget of one upgrade goes to the last.
    scores = np.array([[0.0, -9.0, -9.0], [0.0, -1.0, -9.0], [0.0, 0.0, -9.0]])
    assert allocate(scores, np.ones(3), CANDIDATES, 2.7).tolist() == [2, 2, 4]
    assert allocate(scores, np.ones(3), CANDIDATES, 3.4).tolist() == [2, 4, 4]


def test_tied_scores_spend_the_budget_evenly():
    bits = allocate(np.zeros((8, 3)), np.full(8, 10), CANDIDATES, 3.5)
    assert bits.tolist() == [4, 4, 4, 4, 4, 4, 2, 2]


@pytest.mark.parametrize("target", [2.1, 3.3, 3.7, 5.9, 7.3])
def test_a_budget_is_met_to_the_last_bit(target):
    # 10 equal sites: every target here is an exact sum, which its product in floats may miss from either side.
    bits = allocate(np.zeros((10, 8)), np.full(10, 3), list(range(1, 9)), target)
    assert bits.sum() == round(10 * target)
    assert bits.mean() <= target


@pytest.mark.parametrize("sizes", [HUBERT_LARGE, np.random.default_rng(1).integers(1000, 10**7, 1000)])
@pytest.mark.parametrize("target", [2.5, 3.5, 5.0])
def test_true_sizes(sizes, target):
    rng = np.random.default_rng(0)
    scores = -rng.lognormal(0, 2, (len(sizes), 1)) * 4.0 ** -np.array(CANDIDATES)
    bits = allocate(scores, sizes, CANDIDATES, target)
    assert_no_upgrade_fits(scores, sizes, CANDIDATES, target, bits)
    assert target - 0.001 * target < np.average(bits, weights=sizes) <= target
    assert total(scores, bits, CANDIDATES) >= best_by_milp(scores, sizes, target) * (1 + 1e-6)


def best_by_milp(scores, sizes, target):
    count, width = scores.shape
    one_each = kron(eye(count), np.ones((1, width)))
    average = np.outer(sizes / sizes.sum(), CANDIDATES).reshape(1, -1)
    limits = [LinearConstraint(one_each, 1, 1), LinearConstraint(average, -np.inf, target)]
    return -milp(
        -scores.ravel(), integrality=np.ones(scores.size), bounds=Bounds(0, 1), constraints=limits
    ).fun  # negative, like the scores


def test_scores_in_proportion_to_irregular_sizes_end():
    # Subset sums: no bound prunes their states, so the search for the last bits is cut off.
    sizes = np.random.default_rng(2).integers(1000, 10**7, 300)
    bits = allocate(np.outer(sizes, CANDIDATES).astype(float), sizes, CANDIDATES, 3.5)
    assert 3.5 * (1 - 1e-6) < np.average(bits, weights=sizes) <= 3.5


@pytest.mark.parametrize("target", [1.5, 9, 8.01, float("nan")])
def test_a_target_outside_the_candidates_is_refused(target):
    with pytest.raises(UserError) as error:
        allocate(np.zeros((2, 3)), np.ones(2), CANDIDATES, target)
    assert str(error.value) == (f"target_bits={target} must be between 2 and 8, the range of the candidates [2, 4, 8]")


def test_a_target_below_what_forbidden_candidates_leave_is_refused():
    scores = np.array([[-np.inf, -np.inf, 0.0], [0.0, 0.0, 0.0]])
    with pytest.raises(UserError, match=r"target_bits=4\.5 must be at least 5, which"):
        allocate(scores, np.ones(2), CANDIDATES, 4.5)
    assert allocate(scores, np.ones(2), CANDIDATES, 5).tolist() == [8, 2]


def test_costs_in_place_of_bits():
    """Coded bits, of which each site has its own: the best of all within the budget, or better by what was left."""
    rng = np.random.default_rng()
    for _ in range(10):
        sizes, scores = rng.integers(50, 400, 5), log_probabilities(rng, 5)
        costs = (np.outer(sizes, CANDIDATES) * rng.uniform(0.6, 1.0, (5, 3))).astype(np.int64)
        costs[0] = costs[0, 0]  # a site whose candidates all take the same
        bits = allocate(scores, sizes, CANDIDATES, 3.5, costs)
        columns = [CANDIDATES.index(b) for b in bits]
        assert costs[range(5), columns].sum() <= 3.5 * sizes.sum()
        rising = np.maximum.accumulate(costs - np.arange(3), axis=1) + np.arange(3)
        within = [
            scores[range(5), each].sum()
            for each in product(range(3), repeat=5)
            if rising[range(5), each].sum() <= 3.5 * sizes.sum()
        ]
        optimal = optimum(scores, rising, int(3.5 * sizes.sum()))
        assert scores[range(5), optimal].sum() == pytest.approx(max(within)) and (columns >= optimal).all()

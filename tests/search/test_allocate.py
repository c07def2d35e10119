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

CANDIDATES = [2, 4, 8]
HUBERT_LARGE = np.tile([1 << 20] * 4 + [1 << 22] * 2, 24)  # 1024 x 1024 and 4096 x 1024, 24 layers


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
    kind=st.sampled_from(["normal", "rounded", "sensitivity", "rising", "proportional"]),
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
    # The optimum itself, before the filling, which may give score away for bits.
    columns = optimum(scores, np.outer(sizes, candidates), int(target * sum(sizes) * (1 + 1e-12)))
    assert scores[np.arange(sites), columns].sum() == pytest.approx(best, rel=1e-9, abs=1e-22)


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

"""The search with a penalty, against its formulas in NumPy."""

import numpy as np
import pytest
import torch
from examples import sites_of

from mpq.errors import UserError
from mpq.search.penalty import PenaltySearch

SIZES = np.array([10, 30, 40, 40])
BITS = np.array([2, 4, 8])


def bound(target=3.5, **options):
    search = PenaltySearch(**options)
    search.bind(sites_of(SIZES.tolist()), target, seed=6)
    return search


def average(rows):
    return (SIZES * (rows @ BITS)).sum() / SIZES.sum()


def test_the_lambdas_are_a_softmax_whose_temperature_follows_a_cosine():
    search = bound(temperature=(0.5, 0.01), freeze_at=0.8)
    assert np.array_equal(search.logits.detach(), np.tile(np.float32([0, 0, 0.02]), (4, 1)))
    torch.nn.init.normal_(search.logits)
    for step in range(8):
        temperature = 0.01 + 0.5 * 0.49 * (1 + np.cos(np.pi * step / 7))
        noisy = search.logits.detach().double().numpy() + np.random.default_rng([6, step]).gumbel(size=(4, 3))
        want = np.exp((noisy - noisy.max(-1, keepdims=True)) / temperature)
        got = search.start_step(step, 10)
        np.testing.assert_allclose(got.detach(), want / want.sum(-1, keepdims=True), rtol=1e-3, atol=1e-5)
        assert float(search.temperature) == pytest.approx(temperature)
    assert search.frozen(8, 10) and search.start_step(8, 10) is None


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize(("columns", "sign"), [([2, 2, 2, 2], 1), ([0, 0, 0, 0], -1), ([0, 1, 1, 1], 0)])
def test_bits_cost_above_the_band_and_pay_below_it(columns, sign, hard):
    """The most probable precisions average 8, 2 and 3.83 bits; the band ends at 3.85."""
    search = bound(3.85, weight=0.3, hard_size=hard)
    with torch.no_grad():
        search.logits.copy_(torch.nn.functional.one_hot(torch.tensor(columns), 3) + 0.1 * torch.rand(4, 3))
    lambdas = search.start_step(0, 10)
    soft = lambdas.detach().double().numpy()
    counted = np.eye(3)[soft.argmax(-1)] if hard else soft
    penalty = search.penalty()
    assert float(penalty.detach()) == pytest.approx(sign * 0.3 * average(counted), abs=1e-6)
    if sign:
        penalty.backward()
        by_lambda = sign * 0.3 * SIZES[:, None] * BITS / SIZES.sum()  # straight through, or soft: the same
        want = soft * (by_lambda - (soft * by_lambda).sum(-1, keepdims=True)) / 0.5  # the softmax's derivative, T = 0.5
        np.testing.assert_allclose(search.logits.grad, want, rtol=1e-4, atol=1e-7)


def test_the_most_probable_precisions_are_taken_as_they_are_unless_they_exceed_the_target():
    search = bound(3.9)
    with torch.no_grad():
        search.logits.copy_(5 * torch.eye(3)[[0, 0, 1, 0]])
    assert list(search.assignment().values()) == [2, 2, 4, 2]  # 2.67 bits: nothing is added
    with torch.no_grad():
        search.logits.copy_(5 * torch.eye(3)[[2, 2, 2, 2]])
    assert average(np.eye(3)[[list(BITS).index(b) for b in search.assignment().values()]]) <= 3.9


def test_a_band_below_the_lowest_candidate_is_refused():
    with pytest.raises(UserError, match=r"band=0\.5 below target_bits=2\.2 reaches under the lowest candidate"):
        PenaltySearch.check_budget(2.2, {"candidates": [2, 4, 8], "band": 0.5})

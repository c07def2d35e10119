"""The searches through their common interface."""

import numpy as np
import pytest
import torch
from examples import sites_of

from mpq.errors import UserError
from mpq.search.assignment import average_bits, to_json
from mpq.search.budget import log_solve
from mpq.search.fixed import FixedSearch
from mpq.search.gumbel import GumbelSearch
from mpq.search.uniform import UniformSearch

SITES = sites_of([10, 30, 40, 40])
GIVEN = dict(zip([site.name for site in SITES], [8, 2, 4, 2], strict=True))


def bound(search, target=3.5, seed=0):
    search.bind(SITES, target, seed)
    return search


def learned(**options):
    search = bound(GumbelSearch(**options))
    with torch.no_grad():
        search.logits.normal_()
    return search


def test_uniform():
    search = bound(UniformSearch(), target=4.0)
    assert search.site_candidates() == (4,)
    assert search.assignment() == {site.name: 4 for site in SITES}
    assert search.expected_bits() == 4


@pytest.mark.parametrize("target", [3.5, 0, 9])
def test_uniform_wants_whole_bits(target):
    with pytest.raises(UserError, match=f"target_bits={target} must be a whole number from 1 to 8"):
        bound(UniformSearch(), target)


def test_fixed_from_a_dict_and_from_a_file(tmp_path):
    to_json(GIVEN, tmp_path / "bits.json")
    for source in (GIVEN, tmp_path / "bits.json", str(tmp_path / "bits.json")):
        search = bound(FixedSearch(source))
        assert search.site_candidates() == (2, 4, 8)
        assert search.assignment() == GIVEN
        assert search.expected_bits() == pytest.approx(average_bits(GIVEN, SITES))


def test_fixed_below_its_target_and_above_it():
    low = dict.fromkeys(GIVEN, 2)
    assert bound(FixedSearch(low), target=3.5).assignment() == low
    with pytest.raises(UserError, match=r"averages 3.16667 bits, above target_bits=3"):
        bound(FixedSearch(GIVEN), target=3)
    with pytest.raises(UserError, match=r"no bits for these sites of the model: layers.0.weight"):
        bound(FixedSearch({name: bits for name, bits in GIVEN.items() if "0" not in name}))


@pytest.mark.parametrize(("search", "target"), [(UniformSearch(), 4), (FixedSearch(GIVEN), 3.5)])
def test_a_decided_search_learns_nothing(search, target):
    bound(search, target)
    assert search.parameter_groups() == []
    assert search.start_step(0, 10) is None
    assert search.frozen(0, 10)
    assert (search.probabilities().sum(-1) == 1).all()
    assert not search.state_dict()


def test_gumbel_noise_depends_on_seed_and_step_alone():
    steady = (1.0, 1.0)  # else the temperature alone tells two steps apart
    search, other = learned(temperature=steady), bound(GumbelSearch(temperature=steady))
    other.load_state_dict(search.state_dict())
    torch.rand(3)
    first, second = search.start_step(7, 100), other.start_step(7, 100)
    assert torch.equal(first, second)
    assert torch.equal(first, search.start_step(7, 100))
    assert not torch.equal(first, search.start_step(8, 100))
    other.seed = 1
    assert not torch.equal(first, other.start_step(7, 100))


def test_gumbel_meets_the_target_at_every_step():
    search = learned(freeze_at=1.0, temperature=(5.0, 0.05))
    bits, sizes = torch.tensor([2.0, 4.0, 8.0]), search.sizes
    for step in range(20):
        lambdas = search.start_step(step, 20)
        assert float((lambdas.detach() @ bits * sizes).sum() / sizes.sum()) == pytest.approx(3.5, rel=1e-5)
        assert search.expected_bits() == pytest.approx(3.5, rel=1e-6)
        with torch.no_grad():
            known = log_solve(search.logits, sizes, (2, 4, 8), 3.5, 5.0 * 0.01 ** (step / 19))
        torch.testing.assert_close(search.scores(), known)
        torch.testing.assert_close(search.probabilities(), known.exp())


@pytest.mark.parametrize(("descend", "start"), [(0.5, None), (1.0, None), (0.25, 6.5), (0.01, 8), (1, 3.5)])
def test_the_budget_comes_down_to_the_target_and_stays_there(descend, start):
    search = learned(freeze_at=0.5, temperature=(1.0, 0.1), descend=descend, descend_from=start)
    bits, sizes = torch.tensor([2.0, 4.0, 8.0]).double(), search.sizes
    held, shown = [], []
    for step in range(41):
        lambdas = search.start_step(step, 82)
        assert lambdas is not None and torch.equal(lambdas, search.start_step(step, 82))
        lambdas.square().sum().backward()
        assert search.logits.grad.isfinite().all()
        held.append(float((lambdas.detach().double() @ bits * sizes).sum() / sizes.sum()))
        shown.append(search.expected_bits())
        assert search.scores().exp().double() @ bits @ sizes.double() / sizes.sum() == pytest.approx(3.5, rel=1e-9)
    first = 8.0 if start is None else start
    schedule = [first + (3.5 - first) * min(1.0, step / (40 * descend)) for step in range(41)]
    assert held == pytest.approx(schedule, rel=1e-6)  # of float32 lambdas
    assert shown == pytest.approx(schedule, rel=1e-9)
    assert schedule[0] == first and schedule[-1] == 3.5
    assert search.start_step(41, 82) is None and search.expected_bits() == pytest.approx(3.5, rel=1e-9)


def test_a_search_of_one_update_is_at_its_target():
    search = learned(freeze_at=1.0, descend=1.0)
    search.start_step(0, 1)
    assert search.expected_bits() == pytest.approx(3.5, rel=1e-9)


def test_the_assignment_meets_the_target_while_the_budget_is_above_it():
    search, plain = learned(descend=1.0), bound(GumbelSearch())
    plain.logits.data.copy_(search.logits)
    for each in (search, plain):
        each.start_step(1, 100)
    assert search.expected_bits() > 7
    assert search.assignment() == plain.assignment()
    assert average_bits(search.assignment(), SITES) <= 3.5


def test_temperature_falls_geometrically_and_then_the_precisions_stand():
    search = learned(freeze_at=0.5, temperature=(1.0, 0.01))
    seen = []
    for step in range(10):
        frozen = search.frozen(step, 10)
        assert (search.start_step(step, 10) is None) == frozen == (step >= 5)
        seen.append(float(search.temperature))
    assert seen == pytest.approx([1, 10**-0.5, 0.1, 10**-1.5, 0.01] + [0.01] * 5)


def test_the_noise_is_scaled():
    logits = torch.randn(len(SITES), 3)
    for factor in (0.0, 0.25, 1.0):
        for step in (0, 7):
            search = bound(GumbelSearch(noise=factor, temperature=(0.7, 0.7)), seed=5)
            with torch.no_grad():
                search.logits.copy_(logits)
            noise = torch.from_numpy(np.random.default_rng([5, step]).gumbel(size=logits.shape)).float()
            expected = log_solve(logits + factor * noise, search.sizes, (2, 4, 8), 3.5, 0.7).exp().float()
            torch.testing.assert_close(search.start_step(step, 40), expected)


@pytest.mark.parametrize("options", [{}, {"descend": 0.9}])
def test_a_resumed_search_continues_as_the_first(options):
    search, resumed = learned(**options), bound(GumbelSearch(**options))
    search.start_step(3, 10)
    resumed.load_state_dict(search.state_dict())
    assert ("budget" in search.state_dict()) == bool(options)  # else the checkpoints of older versions would not load
    assert torch.equal(search.probabilities(), resumed.probabilities())
    assert search.assignment() == resumed.assignment()


def test_hard_samples_are_one_hot_with_the_soft_gradient():
    soft, hard = learned(), bound(GumbelSearch(hard=True))
    hard.load_state_dict(soft.state_dict())
    cost = torch.randn(len(SITES), 3)
    for search in (soft, hard):
        lambdas = search.start_step(0, 10)
        (lambdas * cost).sum().backward()
        if search is hard:
            torch.testing.assert_close(lambdas.sort(dim=-1).values, torch.tensor([0.0, 0.0, 1.0]).expand(4, 3))
    assert soft.logits.grad.abs().sum() > 0
    torch.testing.assert_close(soft.logits.grad, hard.logits.grad)


def test_the_assignment_is_the_likeliest_where_that_fits():
    search = learned(temperature=(1.0, 0.05))
    with torch.no_grad():
        search.logits.copy_(torch.tensor([[0.0, 0, 9], [9, 0, 0], [9, 0, 0], [0, 9, 0]]))
    search.target = 380 / 120
    search.start_step(9, 10)
    assert list(search.assignment().values()) == [8, 2, 2, 4]


def test_the_logits_have_their_own_learning_rate():
    (group,) = learned(logit_learning_rate=0.03).parameter_groups()
    assert group["lr"] == 0.03
    assert group["weight_decay"] == 0
    assert group["params"][0].shape == (4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": (2, 2)}, r"candidates=\[2, 2\] must be different whole numbers"),
        ({"candidates": (0, 4)}, "from 1 to 8"),
        ({"candidates": ()}, "from 1 to 8"),
        ({"temperature": (0.1, 1.0)}, r"temperature=\[0.1, 1.0\]"),
        ({"temperature": (1.0, 0.0)}, "above 0"),
        ({"freeze_at": 0.0}, "freeze_at=0.0"),
        ({"freeze_at": 1.5}, "freeze_at=1.5"),
        ({"noise": -0.1}, "noise=-0.1 must be a factor of the Gumbel noise, from 0 to 1"),
        ({"noise": True}, "noise=True"),
        ({"descend": 0}, "descend=0 must be null or a share of the search's updates above 0 and at most 1"),
        ({"descend": 1.2}, "descend=1.2"),
        ({"descend": True}, "descend=True"),
        ({"descend": "half"}, "descend=half"),
        ({"descend": 0.5, "descend_from": 8.5}, "descend_from=8.5 must be null or a number of bits up to 8"),
        ({"descend": 0.5, "descend_from": "8"}, "descend_from=8 must be null or a number"),
        ({"descend_from": 6}, "descend_from=6 has no effect without descend"),
    ],
)
def test_gumbel_refuses(options, message):
    with pytest.raises(UserError, match=message):
        GumbelSearch(**options)


def test_binding_refuses():
    with pytest.raises(UserError, match=r"target_bits=1.5 must be between 2 and 8"):
        bound(GumbelSearch(), target=1.5)
    with pytest.raises(UserError, match=r"descend_from=3 must be at least target_bits=3.5: the budget only comes down"):
        bound(GumbelSearch(descend=0.5, descend_from=3))
    with pytest.raises(UserError, match="no site to search"):
        GumbelSearch().bind([], 3.5, 0)

"""Decisions that several sites share, and updates that co-train a uniform precision."""

import numpy as np
import pytest
import torch
from torch import nn

from mpq.errors import UserError
from mpq.quant.sites import Site, attach, find_sites
from mpq.search.assignment import average_bits
from mpq.search.gumbel import GumbelSearch
from mpq.search.share import units
from mpq.train.precisions import Precisions

ROLES = {"attention.q_proj": (4, 4), "attention.out_proj": (4, 4), "feed_forward.output_dense": (4, 8)}
SITES = [
    Site(f"m.encoder.layers.{layer}.{role}.weight", shape, shape[0] * shape[1], True)
    for layer in range(3)
    for role, shape in ROLES.items()
] + [Site("m.encoder.norm.weight", (4, 4), 16, True)]


def names(share):
    return [unit.name for unit in units(SITES, share)]


def test_units():
    assert names("tensor") == [site.name for site in SITES]
    assert names("block") == [f"m.encoder.layers.{i}" for i in range(3)] + ["m.encoder.norm.weight"]
    assert names("group") == [f"m.encoder.layers.*.{role}.weight" for role in ROLES] + ["m.encoder.norm.weight"]
    for share in ("tensor", "block", "group"):
        members = [site for unit in units(SITES, share) for site in unit.sites]
        assert sorted(members, key=SITES.index) == SITES
    assert [unit.numel for unit in units(SITES, "block")] == [64, 64, 64, 16]
    assert [unit.numel for unit in units(SITES, "group")] == [48, 48, 96, 16]


@pytest.mark.parametrize("share", ["block", "group"])
@pytest.mark.parametrize("hard", [False, True])
def test_sites_of_a_unit_get_the_same_bits_and_lambdas(share, hard):
    search = GumbelSearch((2, 3, 5), share=share, hard=hard)
    search.bind(SITES, 3.5, seed=1)
    with torch.no_grad():
        search.logits.copy_(torch.randn_like(search.logits))
    bits = search.assignment()
    lambdas = search.start_step(0, 10)
    assert lambdas is not None and lambdas.shape == (4, 3)
    rows = dict(zip(bits, search.per_site(lambdas), strict=True))
    for unit in search.units:
        assert len({bits[site.name] for site in unit.sites}) == 1
        assert all(torch.equal(rows[site.name], rows[unit.sites[0].name]) for site in unit.sites)
    assert average_bits(bits, SITES) <= 3.5
    assert search.expected_bits() == pytest.approx(3.5)
    if not hard:  # the budget counts parameters, not units
        expected = {name: float(row.detach() @ torch.tensor([2.0, 3.0, 5.0])) for name, row in rows.items()}
        assert np.average([expected[s.name] for s in SITES], weights=[s.numel for s in SITES]) == pytest.approx(3.5)


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 6)}) for _ in range(3))


def test_quantizers_get_their_units_mixture_and_the_log_each_units_probabilities():
    model = Layers()
    sites = find_sites(model, "*layers.*")
    search = GumbelSearch((2, 4), share="block")
    search.bind(sites, 3.0, seed=0)
    precisions = Precisions(search, quantizers := attach(model, sites, search.site_candidates()))
    precisions.start_step(0, 10)
    lambdas = search.start_step(0, 10)
    for layer in range(3):
        for name in "ab":
            given = quantizers[f"layers.{layer}.{name}.weight"].lambdas
            torch.testing.assert_close(given, lambdas[layer])
    logged = precisions.metrics()
    assert logged["bits/average"] == pytest.approx(3.0)
    assert [key for key in logged if key.startswith("probability/")] == [
        f"probability/layers/{layer}/{bits}bit" for layer in range(3) for bits in (2, 4)
    ]
    assert logged["probability/layers/0/2bit"] + logged["probability/layers/0/4bit"] == pytest.approx(1)
    precisions.freeze({site.name: 4 for site in sites})
    assert {quantizer.bits for quantizer in quantizers.values()} == {4}


def test_cotrained_updates_use_one_precision_at_every_site():
    search, plain = GumbelSearch((1, 2, 4, 8), cotrain=0.4, freeze_at=1.0), GumbelSearch((1, 2, 4, 8), freeze_at=1.0)
    for each in (search, plain):
        each.bind(SITES, 3.5, seed=7)
    drawn = []
    for step in range(300):
        lambdas = search.start_step(step, 300)
        assert torch.equal(lambdas, search.start_step(step, 300))
        if lambdas.requires_grad:
            assert torch.equal(lambdas, plain.start_step(step, 300))
        else:
            assert ((lambdas == 0) | (lambdas == 1)).all() and (lambdas.sum(dim=1) == 1).all()
            assert (lambdas == lambdas[0]).all()
            drawn.append(int(lambdas[0].argmax()))
    counts = np.bincount(drawn, minlength=4)
    assert 80 < counts.sum() < 160 and counts.min() > 10


def test_refusals():
    with pytest.raises(UserError, match="share=layers must be one of tensor, block, group"):
        GumbelSearch(share="layers")
    with pytest.raises(UserError, match="cotrain=1"):
        GumbelSearch(cotrain=1.0)

"""Learned steps: the budget, its gradient, reverse water-filling, and how few bits hold the codes."""

import math

import pytest
import torch
from torch import nn

from mpq.checkpoint.coding import stored_bytes
from mpq.errors import UserError
from mpq.quant.entropy import GRID, code_counts, entropy, smooth_entropy
from mpq.quant.fake_quantize import fake_quantize, gradient_scale, quantize
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import attach, find_sites, quantizers_of
from mpq.quant.steps import narrowest
from mpq.search.rate import TOLERANCE, RateSearch

DEVIATIONS = (0.02, 0.05, 0.15)
JUMP = TOLERANCE + 1e-2  # by which a few weights with other codes change the average of so few


def ideal(codes, bits):
    """Bytes of a coder that reaches the entropy of the codes."""
    counts = torch.bincount(codes.flatten().int() - GRID.low)
    return float(entropy(counts)) * codes.numel() / 8


class Layers(nn.Module):
    """Linear layers with normal weights of different sizes and deviations."""

    def __init__(self, deviations=DEVIATIONS, rows=(64, 32, 96), columns=64):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(columns, out, bias=False) for out in rows)
        for layer, deviation in zip(self.layers, deviations, strict=True):
            nn.init.normal_(layer.weight, std=deviation)


def attached(model, target, granularity="per_tensor", double=False, rate=0.05, cost=ideal, lowest=None, seed=0):
    """A search that has taken the model's quantizers; codes take their entropy."""
    search, sites = RateSearch(rate, lowest), find_sites(model, "*")
    search.bind(sites, target, seed)
    attach(model, sites, search.site_candidates(), QuantizerSettings(granularity, clipping="minmax"))
    search.take(model.double() if double else model, cost)
    return search


def rates_of(model):
    """Bits a weight of each site, and their average over all weights."""
    rates, sizes = [], []
    for layer in model.layers:
        weight, quantizer = layer.parametrizations.weight.original, layer.parametrizations.weight[0]
        rates.append(float(entropy(code_counts(weight, quantizer.log_scales[0].exp()))))
        sizes.append(weight.numel())
    return rates, sum(rate * size for rate, size in zip(rates, sizes, strict=True)) / sum(sizes)


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("target", [0.4, 2.0, 3.5, 4.5])
def test_the_budget_is_held_whatever_an_update_does(granularity, target):
    model = Layers()
    search = attached(model, target, granularity)
    for step in range(3):
        search.start_step(step, 3)
        before = [q.log_scales.clone() for q in quantizers_of(model).values()]
        rates, average = rates_of(model)
        assert target - JUMP < average <= target
        assert search.rates() == pytest.approx(rates)
        search.start_step(step, 3)  # a second time: for another batch of the same update
        assert all(torch.equal(q.log_scales, b) for q, b in zip(quantizers_of(model).values(), before, strict=True))
        with torch.no_grad():
            search.shifts.copy_(0.3 * torch.randn(3))
            for q in quantizers_of(model).values():
                q.log_scales.add_(0.1 * torch.randn_like(q.log_scales))
    assert not search.start_step(3, 4) and not search.shifts.any()


def test_each_update_has_a_rate_of_its_own_down_to_the_lowest_and_the_file_the_target():
    lowest, target, model, same = 1.5, 4.0, Layers(), Layers()
    same.load_state_dict(model.state_dict())
    searches = [attached(one, target, lowest=lowest, seed=3) for one in (model, same)]
    seen = []
    for step in range(40):
        for search in searches:
            search.start_step(step, 40)
        seen.append(rates_of(model)[1])
        searches[0].start_step(step, 40)  # another batch of this update
        assert rates_of(model)[1] == seen[-1] == rates_of(same)[1]
    assert lowest - JUMP < min(seen) < 2.0 and 3.5 < max(seen) <= target
    assert 2.75 - 0.5 < sum(seen) / len(seen) < 2.75 + 0.5  # uniform: its standard deviation is 0.11
    searches[1].seed = 4
    searches[1].start_step(40, 50)
    searches[0].start_step(40, 50)
    assert rates_of(same)[1] != rates_of(model)[1]
    searches[0].finish(ideal)
    shares = [site.numel for site in searches[0].sites]
    average = sum(r * n for r, n in zip(searches[0].rates(), shares, strict=True)) / sum(shares)
    assert target - JUMP < average <= target


@pytest.mark.parametrize("target", [1.2, 3.1, 5.0])
def test_the_estimate_is_close_to_the_file_and_the_file_keeps_to_the_target(target):
    """The last site has columns of very different deviations, which the coder uses and an entropy can't tell."""
    model, spread = Layers(rows=(96, 64, 192), columns=96), torch.linspace(-2, 2, 96).exp()
    with torch.no_grad():
        model.layers[2].weight.mul_(spread)

    def cost(codes, bits):
        return stored_bytes(codes.numpy(), bits)

    def taken():
        """Bits a weight of each site in the file."""
        coded = []
        for place in places:
            (bits,) = place[0].candidates
            codes = quantize(place.original.detach(), place[0].scale(bits), place[0].grid(bits))
            coded.append(8 * min(cost(codes, bits), cost(codes, min(bits, narrowest(codes)))) / codes.numel())
        return torch.tensor(coded, dtype=torch.float64)

    def missed(rates):
        """The share by which `rates` miss what the sites take."""
        return float((shares * (torch.tensor(rates) - taken()).abs()).sum()) / target

    search = attached(model, target, cost=cost)
    places = [layer.parametrizations.weight for layer in model.layers]
    sizes = torch.tensor([place.original.numel() for place in places], dtype=torch.float64)
    shares = sizes / sizes.sum()
    for step in range(20):
        search.start_step(step, 60)
        assert target - JUMP < float((torch.tensor(search.rates()) * shares).sum()) <= target + 1e-6
        with torch.no_grad():
            for place in places:
                place.original.mul_(1 + 0.01 * torch.randn_like(place.original))
                place[0].log_scales.add_(0.002 * torch.randn([]))
    search.hold()
    assert missed(search.rates()) < min(0.02, missed(rates_of(model)[0]))  # closer than an entropy alone
    with torch.no_grad():
        places[0].original.mul_(spread)
    for step in (20, 40):  # the second time where the steps are about right
        search.measure()
        search.start_step(step, 60)
    assert missed(search.rates()) < 0.02
    search.finish(cost)
    assert search.rates() == pytest.approx(taken().tolist())
    assert 0.995 * target < float((taken() * shares).sum()) <= target + 1e-9


def test_more_bits_than_codes_of_eight_bits_have_are_refused():
    model = Layers()
    with torch.no_grad():
        model.layers[0].weight[0, 0] = 5.0  # the step that keeps this weight on the grid is too large for the others
    with pytest.raises(UserError, match=r"target_bits=7\.0 is more than codes of 8 bits take here, \d\.\d\d\d: choose"):
        attached(model, 7.0)


def test_fewer_bits_than_the_coder_takes_are_refused():
    with pytest.raises(UserError, match=r"target_bits=0\.1 is less than what codes take here .*0\.125: choose more"):
        attached(Layers(), 0.1, cost=lambda codes, bits: ideal(codes, bits) + codes.numel() / 64)


def test_a_site_that_would_clip_keeps_its_shortest_step_and_the_others_share_the_budget():
    model = Layers()
    search = attached(model, 4.5)
    with torch.no_grad():
        search.shifts[0] = -8.0
    search.hold()
    assert rates_of(model)[1] == pytest.approx(4.5, abs=JUMP)
    weight, quantizer = model.layers[0].parametrizations.weight.original, model.layers[0].parametrizations.weight[0]
    assert float((weight / quantizer.scale(8)).abs().max()) == pytest.approx(GRID.high)
    for q in quantizers_of(model).values():
        q.log_scales.grad = torch.randn_like(q.log_scales)
    search.along_budget()
    sites = [layer.parametrizations.weight for layer in model.layers]
    along = [float(s[0].log_scales.grad / gradient_scale(s.original, s[0].log_scales[0], GRID)) for s in sites]
    assert along[1] + along[2] == pytest.approx(0, abs=1e-4 * abs(along[1]))  # no loss is left along the budget


def test_steps_of_frozen_weights_stay_as_they_are():
    model = Layers()
    model.layers[1].weight.requires_grad_(False)
    search = attached(model, 3.0)
    frozen = model.layers[1].parametrizations.weight[0]
    before = frozen.log_scales.clone()
    assert rates_of(model)[1] == pytest.approx(3.0, abs=JUMP)
    for layer in model.layers:
        if layer is not model.layers[1]:
            layer.parametrizations.weight[0].log_scales.grad = torch.randn_like(before)
    search.along_budget()
    assert search.shifts.grad[1] == 0 and search.shifts.grad[0] != 0 and search.shifts.grad[2] != 0
    with torch.no_grad():
        search.shifts[0] = 0.2
    search.hold()
    assert torch.equal(frozen.log_scales, before) and rates_of(model)[1] == pytest.approx(3.0, abs=JUMP)


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_the_gradient_is_that_of_the_loss_at_a_constant_rate(granularity):
    """The loss is sum_i c_i exp(2 a_i); the steps are multiplied by the factor that keeps the smooth rate."""
    model = Layers(rows=(3, 2, 4))
    search = attached(model, 2.5, granularity, double=True)
    quantizers = list(quantizers_of(model).values())
    weights = [layer.parametrizations.weight.original.detach() for layer in model.layers]
    steps = [q.log_scales.detach().clone() for q in quantizers]
    curvature = [torch.rand_like(s) for s in steps]
    total = sum(w.numel() for w in weights)

    def rate(steps, nu):
        return sum(
            float(smooth_entropy(w, (s[0] + nu).exp())) * w.numel() / total for w, s in zip(weights, steps, strict=True)
        )

    def loss(steps):
        low, high = -0.1, 0.1
        for _ in range(50):
            nu = (low + high) / 2
            low, high = (nu, high) if rate(steps, nu) > budget else (low, nu)
        return sum(float((c * (2 * (s + low)).exp()).sum()) for c, s in zip(curvature, steps, strict=True))

    budget = rate(steps, 0.0)
    scaling = [gradient_scale(w, s[0], GRID) for w, s in zip(weights, steps, strict=True)]
    for q, c, s, k in zip(quantizers, curvature, steps, scaling, strict=True):
        q.log_scales.grad = 2 * c * (2 * s).exp() * k
    search.along_budget()
    # The smooth entropy has kinks, where a weight enters a ramp: of so few weights one shows in the smallest gradients.
    largest = max(float((q.log_scales.grad / k).abs().max()) for q, k in zip(quantizers, scaling, strict=True))
    for number, (q, k) in enumerate(zip(quantizers, scaling, strict=True)):
        gradient = q.log_scales.grad.flatten() / k
        for place in range(len(gradient)):
            ends = []
            for change in (1e-5, -1e-5):
                moved = [s.clone() for s in steps]
                moved[number].view(-1)[place] += change
                ends.append(loss(moved))
            assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=2e-2 * largest)
        whole = search.shifts.grad[number] * math.sqrt(len(gradient)) / k
        assert float(whole) == pytest.approx(float(gradient.sum()), rel=1e-4)


def test_equal_sensitivities_give_reverse_water_filling():
    """R_i = log2(deviation_i / sqrt(D)): at high rates all steps are equal.

    Of so few weights the slope of the entropy has an error of 3 to 5 %, and the steps half of that.
    """
    model, target = Layers(rows=(128, 64, 192)), 5.0
    search = attached(model, target)
    quantizers = quantizers_of(model).values()
    weights = [layer.parametrizations.weight.original.detach().clone() for layer in model.layers]
    optimizer = torch.optim.Adam(
        [{"params": [q.log_scales for q in quantizers], "lr": 0.01}, *search.parameter_groups()]
    )
    for step in range(60):
        for group, rate in zip(optimizer.param_groups, (0.01, 0.05), strict=True):
            group["lr"] = rate * (1 - step / 60)
        search.hold()
        loss = sum(((layer.weight - w) ** 2).sum() for layer, w in zip(model.layers, weights, strict=True))
        optimizer.zero_grad()
        (loss * 1e3).backward()
        search.along_budget()
        optimizer.step()
    search.hold()
    rates, average = rates_of(model)
    assert target - JUMP < average <= target
    sizes = torch.tensor([float(w.numel()) for w in weights])
    filled = torch.tensor([math.log2(w.std()) for w in weights])
    filled += target - (filled * sizes).sum() / sizes.sum()
    assert rates == pytest.approx(filled.tolist(), abs=0.16)
    steps = torch.stack([q.scale(8).detach() for q in quantizers])
    assert float(steps.max() / steps.min()) < 1.25


def test_the_fewest_bits_that_hold_the_codes_keep_every_weight():
    model = Layers()
    search = attached(model, 1.5, "per_channel")
    search.finish(lambda codes, bits: bits)  # bytes: packed
    for layer, zeros in zip(model.layers, search.zeros(), strict=True):
        quantizer = layer.parametrizations.weight[0]
        weight = fake_quantize(layer.parametrizations.weight.original, quantizer.scale(quantizer.bits), GRID)
        assert torch.equal(layer.weight, weight)
        codes = (weight / quantizer.scale(quantizer.bits)).round()
        high = 2 ** (quantizer.bits - 1)
        assert -high <= codes.min() and codes.max() < high
        assert quantizer.bits == 2 or codes.min() < -high // 2 or codes.max() >= high // 2
        assert zeros == pytest.approx(float((weight == 0).float().mean()))

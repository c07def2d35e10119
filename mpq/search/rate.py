"""Learned steps under a budget of coded bits: no candidates, no mixture, no temperature.

Where a file is coded without loss, a weight takes about the entropy of its site's codes, which changes smoothly with
the step. So the precision of a site need not be a whole number, and nothing has to be chosen: every searched site has
codes of up to 8 bits, and its steps are learned by gradient, as in LSQ. One multiplier on all steps, solved for at
every update, makes the average rate equal the target: log step_i = a_i + nu. Its derivative (implicit function
theorem) is part of the steps' gradients: with g_i = dL/da_i at a fixed nu, and r_i = dR/da_i of the average rate R,

    dL/da_i along the budget = g_i - r_i (sum_j g_j) / (sum_j r_j),

so a step shrinks only where that lowers the loss by more than the same bits would elsewhere. No step becomes so short
that codes of 8 bits would clip: a site with such weights keeps its shortest step, and the sums are over the others,
since it does not follow nu. Nor do the steps of frozen weights, whose gradient is unknown. At high rates r_i is in
proportion to the number of weights, and equal sensitivities give equal steps: reverse water-filling (Cover and Thomas,
Elements of Information Theory, section 10.3.3). At low rates most codes are zero, which their entropy takes into
account.

The rate that is held is what the codes take in the file: their entropy, and what the coder takes beyond it, which is
measured now and then and hardly changes with the steps. It is less than nothing where the coder uses that columns
differ. r_i comes from the smooth entropy (`mpq.quant.entropy`). In the end all is measured, and the target met.

Each site also has a factor on all its steps, with a learning rate of its own: what a site needs shows long before
what each of its channels needs. Factors and nu are moved into the steps at every update, so no checkpoint needs them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from mpq.cores import in_threads
from mpq.errors import UserError
from mpq.quant.entropy import GRID, code_counts, entropy, smooth_entropy
from mpq.quant.fake_quantize import gradient_scale, quantize
from mpq.quant.places import first_places
from mpq.quant.quantizer import WeightQuantizer
from mpq.quant.steps import Cost, least_bytes, narrow
from mpq.search.base import PrecisionSearch
from mpq.search.rules import check_rate, check_rate_target

WIDTH = 8
TOLERANCE = 1e-4  # bits by which the average may stay below the target while it is learned
_LONGEST = 30.0  # logarithm of a factor after which all codes are zero
_AT_THE_END = 1e-3  # and in the end, when each of its measurements takes coding all weights


@dataclass(frozen=True)
class _Steps:
    """One site: the float `weight` `[out, in, ...]`, its quantizer, and its share of the searched weights."""

    weight: Tensor
    quantizer: WeightQuantizer
    share: float

    @property
    def learned(self) -> bool:
        """Whether the steps are learned: not those of frozen weights."""
        return self.quantizer.log_scales.requires_grad

    @torch.no_grad()
    def counts(self, nu: float = 0.0) -> Tensor:
        """Return how often each code occurs `[256]` if all steps are multiplied by exp(nu)."""
        return code_counts(self.weight, (self.quantizer.log_scales[0] + nu).exp())

    def entropy(self, nu: float = 0.0) -> float:
        """Return the entropy of the codes in bits a weight if all steps are multiplied by exp(nu)."""
        return float(entropy(self.counts(nu)))

    @torch.no_grad()
    def coded(self, cost: Cost, nu: float = 0.0) -> float:
        """Return the bits a weight that the codes take by `cost` if all steps are multiplied by exp(nu)."""
        return coded_bits(self.weight, (self.quantizer.log_scales[0] + nu).exp(), cost)


@final
class RateSearch(PrecisionSearch):
    """Learns the steps of every site at an average rate of at most the target. `bind`, attach quantizers, `take`.

    `target` becomes the width of the codes while the steps are learned; `rate` is the target in coded bits.
    """

    shifts: nn.Parameter  # of the logarithms of each site's steps [S]; zero except between an update and the next
    beyond: Tensor  # bits a weight that the codes of each site take beyond their entropy, as last measured [S]
    rate: float

    def __init__(self, step_learning_rate: float = 0.01, lowest: float | None = None) -> None:
        """Take the learning rate of the logarithms of the sites' factors, and the lowest rate that is trained.

        `lowest`: if given, each update has a rate of its own, drawn uniformly between it and the target, so that the
        weights suit all of them (scripts/rebudget.py). Sampled so, a network for every size costs no more than one:
        Yu and Huang (arXiv 1903.05134) for widths, here for rates.

        Raises:
            UserError: a value outside its range.
        """
        super().__init__()
        check_rate(step_learning_rate, lowest)
        self._learning_rate = step_learning_rate
        self._lowest = lowest
        self._held: int | None = None  # the update that the budget was last held for
        self._sites: list[_Steps] = []  # a list, so that they are no submodules
        self._follow: list[bool] = []  # whether each site's steps follow nu

    @classmethod
    def check_budget(cls, target: float, settings: Mapping[str, Any]) -> None:
        """Raise UserError unless the target is above 0 and below the width of the codes, and not below `lowest`."""
        check_rate_target(target, settings.get("lowest"))

    def _start(self) -> None:
        check_rate_target(self.target, self._lowest)
        self.rate, self.target = self.target, float(WIDTH)
        self.shifts = nn.Parameter(torch.zeros(len(self.units)))
        self.register_buffer("beyond", torch.zeros(len(self.units), dtype=torch.float64))

    def learning_rate(self) -> float:
        """Return the learning rate of the sites' factors."""
        return self._learning_rate

    def site_candidates(self) -> tuple[int, ...]:
        """Return the width of the codes."""
        return (WIDTH,)

    def start_step(self, step: int, total: int) -> None:
        """Hold the budget, once an update; there are no lambdas."""
        if step != self._held:
            self.hold(self._rate_of(step))
            self._held = step

    def _rate_of(self, step: int) -> float:
        """Return the rate of update `step`, the same for all batches and processes."""
        if self._lowest is None:
            return self.rate
        return float(np.random.default_rng([self.seed, step, 2]).uniform(self._lowest, self.rate))

    def frozen(self, step: int, total: int) -> bool:
        """Return False: steps are learned to the end."""
        return False

    def scores(self) -> Tensor:
        """Return zeros [U, 1]: there is no choice."""
        return torch.zeros(len(self.units), 1)

    def probabilities(self) -> Tensor:
        """Return ones [U, 1]."""
        return torch.ones(len(self.units), 1)

    def take(self, model: nn.Module, cost: Cost) -> None:
        """Take the quantizers attached to the searched sites of `model`, with their weights, and meet the budget.

        `cost`: tells what codes take in the file, once coded.
        """
        places = first_places(model)
        total = sum(site.numel for site in self.sites)
        self._cost = cost
        for site in self.sites:
            place = places[site.name]
            assert place.quantizer is not None
            self._sites.append(_Steps(place.weight, place.quantizer, site.numel / total))
        self.hold()  # with steps that are about right
        self.measure()
        self.hold()

    def measure(self) -> None:
        """Measure what the codes of each site take beyond their entropy, which `hold` adds from then on."""
        taken = self._coded([0.0] * len(self._sites))
        beyond = [bits - site.entropy() for site, bits in zip(self._sites, taken, strict=True)]
        self.beyond.copy_(torch.tensor(beyond, dtype=torch.float64))

    def _coded(self, moves: Sequence[float]) -> list[float]:
        """Return the bits a weight of each site in the file if its steps are multiplied by exp of its move."""
        pairs = zip(self._sites, moves, strict=True)
        return in_threads(lambda pair: pair[0].coded(self._cost, pair[1]), pairs)

    def hold(self, rate: float | None = None) -> None:
        """Multiply all steps by one factor such that the average is `rate`, or the target, at most `TOLERANCE` below.

        A site whose weights would be clipped gets its shortest steps instead.

        Raises:
            UserError: codes of 8 bits can't take that many, or no codes that few.
        """
        beyond = sum(site.share * bits for site, bits in zip(self._sites, self.beyond.tolist(), strict=True))

        def estimated(moves: Sequence[float]) -> list[float]:
            return [site.entropy(move) + beyond for site, move in zip(self._sites, moves, strict=True)]

        self._meet(estimated, rate or self.rate, TOLERANCE)

    @torch.no_grad()
    def _meet(self, bits: Callable[[Sequence[float]], list[float]], rate: float, tolerance: float) -> None:
        """Multiply all steps by one factor, as `hold`, such that the average of `bits` is `rate`.

        `bits` returns each site's bits a weight from what is added to the logarithms of its steps.
        """
        for site, shift in zip(self._sites, self.shifts, strict=True):
            site.quantizer.log_scales.add_(shift)
        self.shifts.zero_()
        finest = [_finest(site) for site in self._sites]

        def average(nu: float) -> float:
            taken = bits(_moves(nu, finest))
            return sum(site.share * one for site, one in zip(self._sites, taken, strict=True))

        nu = _least_within(average, rate, min(finest), tolerance)
        self._follow = [nu >= least for least in finest]
        for site, move in zip(self._sites, _moves(nu, finest), strict=True):
            site.quantizer.log_scales.add_(move)

    def along_budget(self) -> None:
        """Replace the gradients of the steps, which LSQ has scaled, by those along the budget, scaled alike.

        Call it between the backward pass and the optimizer's update.
        """
        steps = [site.quantizer.log_scales for site in self._sites]
        rates = [_rate_gradient(site) for site in self._sites]
        scaling = [gradient_scale(site.weight, s[0], GRID) for site, s in zip(self._sites, steps, strict=True)]
        losses = [
            s.grad / k if s.grad is not None else torch.zeros_like(s) for s, k in zip(steps, scaling, strict=True)
        ]
        price = _total(list(compress(losses, self._follow))) / _total(list(compress(rates, self._follow)))
        # A site's factor: scaled as one step for the whole site would be.
        self.shifts.grad = torch.zeros_like(self.shifts)
        for number, (site, s, k) in enumerate(zip(self._sites, steps, scaling, strict=True)):
            if not site.learned:
                continue
            along = losses[number] - price * rates[number]
            if s.grad is not None:
                s.grad.copy_(along * k)
            self.shifts.grad[number] = along.sum() * (k / math.sqrt(s.numel()))

    def rates(self) -> tuple[float, ...]:
        """Return what the codes of each site take in the file [S], bits a weight, as last measured beside entropy."""
        return tuple(site.entropy() + bits for site, bits in zip(self._sites, self.beyond.tolist(), strict=True))

    def zeros(self) -> tuple[float, ...]:
        """Return the share of zeros among each site's codes [S]."""
        return tuple(float(counts[-GRID.low] / counts.sum()) for counts in (site.counts() for site in self._sites))

    def finish(self, cost: Cost) -> None:
        """Meet the budget for the last time, in the file, and give each site the fewest bits that hold its codes.

        `cost`: tells what they take in the file, which must not become larger by that.
        """
        self._meet(self._coded, self.rate, _AT_THE_END)
        self.measure()
        for site in self._sites:
            narrow(site.weight, site.quantizer, cost)


def coded_bits(weight: Tensor, scale: Tensor, cost: Cost) -> float:
    """Return the bits a weight that codes of `WIDTH` bits take by `cost`, in the fewest bits that hold them if less."""
    return 8 * least_bytes(quantize(weight, scale, GRID), WIDTH, cost)[0] / weight.numel()


def _rate_gradient(site: _Steps) -> Tensor:
    """Return the derivative of the average rate with respect to the logarithms of the site's steps."""
    steps = site.quantizer.log_scales.detach().requires_grad_()
    with torch.enable_grad():
        rate = site.share * smooth_entropy(site.weight.detach(), steps[0].exp())
    return torch.autograd.grad(rate, steps)[0]


def _total(gradients: Sequence[Tensor]) -> Tensor:
    return torch.stack([gradient.double().sum() for gradient in gradients]).sum()


def _moves(nu: float, finest: Sequence[float]) -> list[float]:
    """Return what is added to the logarithms of each site's steps."""
    return [0.0 if least == math.inf else max(nu, least) for least in finest]


def _finest(site: _Steps) -> float:
    """Return the logarithm of the smallest factor at which no weight of the site is beyond the grid; inf if frozen.

    With smaller steps ever more codes are the outermost ones, and the entropy falls again.
    """
    if not site.learned:
        return math.inf
    scale = site.quantizer.log_scales[0].exp()
    return math.log(max(float((site.weight / scale).abs().max()) / GRID.high, 1e-30))


def _least_within(rate: Callable[[float], float], target: float, lowest: float, tolerance: float) -> float:
    """Return the nu, at least `lowest`, at which the falling `rate(nu)` is at most `target`, by at most `tolerance`.

    Regula falsi from a bracket around 0, in the variant Illinois; where `rate` jumps by more than the tolerance, the
    end of the jump.

    Raises:
        UserError: `rate(lowest)` is below the target, or it is above it however long steps are.
    """
    nu = max(0.0, lowest)
    value = rate(nu) - target
    low, over, high, under = nu, value, nu, value  # the ends of the bracket, and by how much each misses the target
    step = 0.75 * abs(value) + 1e-6  # a unit of nu takes about 1 / log(2) bits: a little further than the target is
    while over <= 0 and under < -tolerance:
        if low == lowest:
            raise UserError(
                f"target_bits={target} is more than codes of {WIDTH} bits take here, {over + target:.3f}: choose less"
            )
        low, step = max(low - step, lowest), 2 * step
        over = rate(low) - target
    while under > 0:
        if high > _LONGEST:
            raise UserError(
                f"target_bits={target} is less than what codes take here with the longest steps, {under + target:.3f}: "
                "choose more"
            )
        high, step = high + step, 2 * step
        under = rate(high) - target
    last, missed = 0, under
    while missed < -tolerance and high - low > 1e-9:
        nu = (low * under - high * over) / (under - over)
        value = rate(nu) - target
        if value > 0:
            low, over, under, last = nu, value, under / 2 if last > 0 else under, 1
        else:
            high, under, over, last, missed = nu, value, over / 2 if last < 0 else over, -1, value
    return high

"""A budget in coded bits: what each site takes at each precision, measured, and kept to the end of a stage.

The codes of a site change while it is trained, and so does what they take once coded. The search gets new measurements
while it runs and just before it decides. Afterwards, training may move the total above the budget again: at the end of
the stage all steps are made longer by a common factor, just so much that the file keeps to it.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from mpq.checkpoint.coding import stored_bytes
from mpq.checkpoint.format import Coding
from mpq.cores import in_threads
from mpq.errors import UserError
from mpq.quant.fake_quantize import quantize
from mpq.quant.places import Place, first_places
from mpq.quant.quantizer import WeightQuantizer
from mpq.quant.sites import Site
from mpq.quant.steps import Cost
from mpq.search.base import PrecisionSearch

_HALVINGS = 12  # of the factor's logarithm, from at most `_LONGEST`
_LONGEST = math.log(64)


def coded_costs(model: nn.Module, search: PrecisionSearch, quantizers: Mapping[str, WeightQuantizer]) -> Tensor:
    """Return the bits that the coded codes of each site take at each candidate of `search`, float64 [S, C].

    `model`: with or without the `quantizers` attached; they have a scale for each candidate.
    """
    places = first_places(model)

    @torch.no_grad()  # which holds for one thread
    def row(site: Site) -> list[float]:
        weight, quantizer = places[site.name].weight, quantizers[site.name]
        return [8.0 * coded_bytes(weight, quantizer, bits) for bits in search.site_candidates()]

    return torch.tensor(in_threads(row, search.sites), dtype=torch.float64)


def coded_bytes(weight: Tensor, quantizer: WeightQuantizer, bits: int, coding: Coding = "zstd") -> int:
    """Return the bytes that the codes of `weight` at a candidate of the quantizer take in a file with this `coding`."""
    return cost_in(coding)(quantize(weight.detach(), quantizer.scale(bits), quantizer.grid(bits)), bits)


def cost_in(coding: Coding) -> Cost:
    """Return what measures the bytes that codes take in a file with this coding."""
    return lambda codes, bits: stored_bytes(codes.cpu().numpy(), bits, coding)


@torch.no_grad()
def keep_to(model: nn.Module, search: PrecisionSearch) -> float:
    """Lengthen the steps of the search's sites, in place, until they take at most its target; return the factor.

    The quantizers are attached to `model`, and their precisions decided.

    Raises: UserError, as `lengthen`.
    """
    found = first_places(model)
    places = [found[site.name] for site in search.sites]
    capacity = search.target * float(search.sizes.sum()) / 8
    return lengthen(places, capacity)


@torch.no_grad()
def lengthen(places: Sequence[Place], capacity: float, coding: Coding = "zstd") -> float:
    """Lengthen the steps at `places`, in place, by one factor until they take at most `capacity` bytes; return it.

    Raises: UserError if no factor up to 64 does, which leaves the steps as they were.
    """
    before = {place.name: _quantizer(place).log_scales.clone() for place in places}

    def fits(longer: float) -> bool:
        for place in places:
            _quantizer(place).log_scales.copy_(before[place.name] + longer)
        taken = (coded_bytes(place.weight, _quantizer(place), _bits(place), coding) for place in places)
        return sum(taken) <= capacity

    if fits(0.0):
        return 1.0
    low, high = 0.0, _LONGEST / 2**_HALVINGS
    while not fits(high):
        if high >= _LONGEST:
            fits(0.0)
            raise UserError(
                f"after training, the codes take more than the {capacity:.0f} bytes that are left for them, however "
                "long their steps: choose more bits or a larger file"
            )
        low, high = high, 2 * high
    for _ in range(5):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    fits(high)
    return math.exp(high)


class Fitting:
    """Has GPTQ's codes of each weight take at most the bytes that are planned; what one leaves, the next may take.

    GPTQ's codes are used a little more evenly than those of rounding to nearest, so they take more.
    """

    _CLOSE = 0.002  # share of its bytes that a weight may leave
    _TRIES = 6  # steps tried for each weight

    def __init__(self, planned: Mapping[str, int], cost: Cost) -> None:
        """Take the bytes that the codes of some weights take rounded, by name, and what measures others."""
        self._planned = planned
        self._cost = cost
        self._left = 0
        self._longer = 0.0  # what the last weight added to the logarithm of its steps: the next may need the same

    def __call__(self, place: Place, compensated: Callable[[], Tensor]) -> Tensor:
        """Return the codes to take, and set the steps; `compensated` makes GPTQ's codes with the steps of now."""
        if place.name not in self._planned:
            return compensated()
        quantizer, bits = _quantizer(place), _bits(place)
        before, limit, kept = quantizer.log_scales.clone(), self._planned[place.name] + self._left, None
        longer = self._longer
        for _ in range(self._TRIES):
            quantizer.log_scales.copy_(before + longer)
            codes = compensated()
            taken = self._cost(codes.view_as(place.weight), bits)
            if taken <= limit and (kept is None or taken > kept[0]):
                kept = taken, longer, codes
            if (1 - self._CLOSE) * limit <= taken <= limit:
                break
            # At high rates twice the step saves a bit a weight.
            longer += math.log(2) * 8 * (taken - (1 - self._CLOSE / 2) * limit) / place.weight.numel()
        if kept is None:  # the steps are so long that codes hardly depend on them: the rounded ones fit
            quantizer.log_scales.copy_(before)
            codes = quantize(place.weight, quantizer.scale(bits), quantizer.grid(bits))
            kept = self._planned[place.name], 0.0, codes
        taken, self._longer, codes = kept
        quantizer.log_scales.copy_(before + self._longer)
        self._left = limit - taken
        return codes


def _quantizer(place: Place) -> WeightQuantizer:
    assert place.quantizer is not None
    return place.quantizer


def _bits(place: Place) -> int:
    bits = _quantizer(place).bits
    assert bits is not None, "choose the precisions first"
    return bits

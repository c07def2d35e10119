"""Quantizes a model for a file of at most so many bytes, without training: the best step of each weight at that size.

Every quantized weight gets one step (`mpq.quant.steps`), also those that are never searched when bits are the budget:
only the bytes count. What a step costs the model is its squared error times the model's sensitivity there
(`mpq.quant.fisher`), measured on the recordings that GPTQ hears, or on noise where there are none. What it costs the
file is measured by coding its codes. The knapsack (`mpq.search.knapsack`) does the rest. If all errors counted alike,
the posteriors of the tiny models would move at least twice as far at the same bytes (experiments/LOG.md).
"""

import copy
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from mpq.checkpoint.format import Coding
from mpq.checkpoint.prediction import overhead_bytes
from mpq.errors import SizeError
from mpq.quant.calibration import Calibration
from mpq.quant.fisher import fisher_traces
from mpq.quant.gptq import Gptq
from mpq.quant.places import first_places, tensor_places
from mpq.quant.sites import Site, check_finite, find_sites, fold_weight_norm
from mpq.quant.steps import Rounding, narrow, roundings, step_quantizer
from mpq.search.allocate import fill
from mpq.search.knapsack import optimum
from mpq.search.rate import WIDTH, coded_bits
from mpq.train.coded_budget import Fitting, cost_in, lengthen

MEGABYTE = 1_000_000
_WIDTHS: Mapping[Coding, tuple[int, ...]] = {"zstd": (2, 4, 8), "none": (2, 3, 4, 5, 6, 7, 8)}
"""Bits of the grids tried: codes of other widths are coded as those of the next of 2, 4 and 8 bits."""


@torch.no_grad()
def fit_to_size(
    calibration: Calibration, sites: Sequence[Site], most: int, coding: Coding, gptq: Gptq | None, seed: int
) -> None:
    """Attach quantizers to `sites` of the calibration's model, in place, for a file of at most `most` bytes.

    The file is `model.safetensors` and `config.json` as `save_packed` writes them with this `coding`. `gptq` then fits
    the weights to the recordings, with a longer step where its codes would take more bytes than the rounded ones.

    Raises:
        UserError: no such file is possible, or a weight or an output of the model is not finite.
    """

    cost = cost_in(coding)
    weights = [calibration.weight(site) for site in sites]
    for site, weight in zip(sites, weights, strict=True):
        check_finite(site.name, weight)
    told = calibration.track(weights, "Steps", "weights")
    found = [roundings(weight, cost, _WIDTHS[coding]) for weight in told]
    capacity = most - overhead_bytes(calibration.speech.model, sites)
    check_capacity(found, capacity, most)  # before what takes longest
    prices = fisher_traces(calibration, weights, seed) / torch.tensor([site.numel for site in sites]) / 2
    chosen = choose(found, prices, capacity)
    planned = {site.name: one for site, one in zip(sites, chosen, strict=True)}
    places = {group[0].name: group for group in tensor_places(calibration.model)}
    for name, one in planned.items():
        quantizer = step_quantizer(places[name][0].weight, one.log_step, one.bits)
        for place in places[name]:
            place.add_quantizer(quantizer)
    if gptq is not None:
        gptq.calibrate(calibration, Fitting({name: one.taken for name, one in planned.items()}, cost))
    for name in planned:
        place = places[name][0]
        assert place.quantizer is not None
        narrow(place.weight, place.quantizer, cost)


@torch.no_grad()
def open_steps(model: PreTrainedModel, sites: Sequence[Site]) -> float:
    """Give all codes of a quantized `model` 8 bits, in place, so that its steps can be learned; return what they take.

    That is the average, in coded bits: the budget (`mpq.search.rate`) at which the file keeps its size.
    """
    total, bits, cost = sum(site.numel for site in sites), 0.0, cost_in("zstd")
    found = first_places(model)
    for site in sites:
        place = found[site.name]
        assert place.quantizer is not None
        place.quantizer.resize(WIDTH)
        bits += site.numel * coded_bits(place.weight, place.quantizer.scale(WIDTH), cost)
    return bits / total


def keep_within(model: PreTrainedModel, sites: Sequence[Site], most: int, coding: Coding) -> float:
    """Lengthen all steps of a trained `model`, in place, until its file takes at most `most` bytes; return the factor.

    Training moves codes, and so what they take once coded.
    """
    found = first_places(model)
    return lengthen([found[site.name] for site in sites], most - overhead_bytes(model, sites), coding)


def check_size(model: PreTrainedModel, searched: str, most: int) -> None:
    """Refuse a size of the file that is out of reach whatever its codes take, which `check_capacity` measures.

    Raises:
        SizeError: what is no code takes more, or a byte a code takes less, than `most` bytes; `nearest` may not do yet.
    """
    model = copy.deepcopy(model)
    fold_weight_norm(model)  # as in the file
    sites = find_sites(model, searched)
    beside, codes = overhead_bytes(model, sites), sum(site.numel for site in sites)
    if not beside < most <= beside + codes:
        smallest, largest = math.ceil((beside + 1) / 1e3) / 1e3, math.floor((beside + codes) / 1e3) / 1e3
        raise SizeError(
            f"target_megabytes={most / MEGABYTE:g} must be between {smallest:g}, which all but the codes take, and "
            f"{largest:g}, with a byte for each weight",
            nearest=smallest if most <= beside else largest,
        )


def check_capacity(found: Sequence[Sequence[Rounding]], capacity: int, most: int) -> None:
    """Refuse a size for which there are no codes.

    Raises:
        SizeError: `capacity`, the bytes that a file of `most` leaves for codes, is below the least that they take or
            above what all of the finest take.
    """
    least, greatest = (sum(row[end].taken for row in found) for end in (0, -1))
    if not least <= capacity <= greatest:
        beside = most - capacity
        smallest, largest = math.ceil((least + beside) / 1e3) / 1e3, math.floor((greatest + beside) / 1e3) / 1e3
        raise SizeError(
            f"target_megabytes={most / MEGABYTE:g} must be between {smallest:g} and {largest:g}, the smallest and the "
            "largest file that this model can be stored in",
            nearest=smallest if capacity < least else largest,
        )


def choose(found: Sequence[Sequence[Rounding]], prices: Tensor, capacity: int) -> list[Rounding]:
    """Return one rounding of each weight, with the least summed error times price `[S]`, in `capacity` bytes."""
    wide = max(len(row) for row in found)
    scores = np.full((len(found), wide), -np.inf)
    taken = np.tile(np.arange(wide, dtype=np.int64), (len(found), 1))  # rising in the columns that a row lacks, too
    for number, (row, price) in enumerate(zip(found, prices.tolist(), strict=True)):
        scores[number, : len(row)] = [-price * one.error for one in row]
        taken[number, : len(row)] = [one.taken for one in row]
        taken[number, len(row) :] += row[-1].taken
    best = fill(optimum(scores, taken, capacity), scores, taken, capacity)
    return [row[column] for row, column in zip(found, best.tolist(), strict=True)]

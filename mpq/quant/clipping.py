"""Which scale a quantizer starts from: four ways to trade the clipping of large weights against coarse steps.

All but `mse` choose a threshold T and spread the grid over [-T, T], so that each level is the middle of its cell:
scale = T / (top + 1/2), `top` the largest level. For 3 bits and more that is the symmetric scale of PyTorch's observers
and of torchao. `mse` asks the error itself, and is what training starts from.
"""

from math import ceil
from typing import Literal, get_args

import torch
from torch import Tensor

from mpq.errors import UserError
from mpq.quant.fake_quantize import quantize
from mpq.quant.grid import Grid
from mpq.quant.initial_scale import Granularity, check_granularity, initial_scale

Clipping = Literal["mse", "minmax", "percentile", "entropy"]
PERCENTILE = 99.9
BINS = 2048  # of the histogram of magnitudes, as in TensorRT's calibration
STEP = 16  # bins between the thresholds that are tried


def starting_scale(weight: Tensor, grid: Grid, granularity: Granularity, clipping: Clipping = "mse") -> Tensor:
    """Return a scale for `weight` `[out, in, ...]`, float32: `[1, 1, ...]` per tensor, `[out, 1, ...]` per channel.

    `mse`: least squared error (`initial_scale`). `minmax`: T is the largest magnitude. `percentile`: T is the smallest
    magnitude that 99.9 percent of them do not exceed (Wu et al., arXiv 2004.09602, section 5.2). `entropy`: T loses
    least information, see `entropy_share`. These two need many weights and a channel has few; so per channel T is one
    share of each channel's largest magnitude, found over the relative magnitudes of all channels (ours). With channels
    below 1,000 weights the 99.9th percentile is still the largest.

    Raises:
        UserError: the granularity or the clipping is unknown.
    """
    if clipping not in get_args(Clipping):
        raise UserError(f"quantizer.clipping={clipping} must be one of {', '.join(get_args(Clipping))}")
    if clipping == "mse":
        return initial_scale(weight, grid, granularity)
    check_granularity(granularity)
    channels = weight.shape[0] if granularity == "per_channel" else 1
    magnitudes = weight.detach().float().reshape(channels, -1).abs()
    peak = magnitudes.amax(dim=1, keepdim=True)
    relative = (magnitudes / peak.clamp_min(torch.finfo(torch.float32).tiny)).flatten()
    share = 1.0
    if clipping == "percentile":
        share = float(relative.kthvalue(ceil(len(relative) * PERCENTILE / 100)).values)
    elif clipping == "entropy":
        share = entropy_share(relative, grid)
    return spanning_scale(peak * share, grid).reshape(channels, *[1] * (weight.dim() - 1))


def spanning_scale(threshold: Tensor, grid: Grid) -> Tensor:
    """Return the scales whose grid spans [-threshold, threshold], each level in the middle of its cell."""
    # Where the threshold is zero nearly all values are, and any tiny scale keeps them so.
    return threshold.clamp_min(torch.finfo(torch.float32).eps ** 2) / (grid.top + 0.5)


def entropy_share(magnitudes: Tensor, grid: Grid) -> float:
    """Return the threshold with the least KL divergence between the histogram of `magnitudes` and its quantized one.

    TensorRT's calibration (Migacz, "8-bit inference with TensorRT", GTC 2017): of the `magnitudes` `[N]`, in 0..1, that
    are clipped at a threshold, P is the histogram with what is clipped in its last bin; Q has the mass of each level's
    cell, without what is clipped, spread evenly over the bins of the cell that P fills.
    """
    bins = (magnitudes * BINS).long().clamp_max_(BINS - 1)
    counts = bins.bincount(minlength=BINS).double()
    thresholds = range(max(STEP, grid.high + 1), BINS + 1, STEP)
    divergences = torch.stack([_divergence(counts, kept, grid) for kept in thresholds])
    return thresholds[int(divergences.argmin())] / BINS


def _divergence(counts: Tensor, kept: int, grid: Grid) -> Tensor:
    """KL(P || Q) in nats when the first `kept` of the bins `counts` `[BINS]` are kept."""
    inside = counts[:kept]
    clipped = inside.clone()
    clipped[-1] += counts[kept:].sum()
    filled = (clipped > 0).to(counts.dtype)
    centres = torch.arange(kept, dtype=counts.dtype, device=counts.device) + 0.5
    cells = quantize(centres, centres.new_tensor(kept / (grid.top + 0.5)), grid).long()
    mass, width = (values.new_zeros(grid.high + 1).index_add_(0, cells, values) for values in (inside, filled))
    level = (mass / width.clamp_min(1))[cells] * filled
    p, q = clipped / clipped.sum(), level / level.sum()
    return torch.where(p > 0, p * (p / q).log(), 0).sum().nan_to_num(nan=torch.inf)

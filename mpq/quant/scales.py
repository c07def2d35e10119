"""The initial scale of a quantizer.

`mse`, with which training starts, minimises the squared quantization error. The scale that just covers the largest
weight would not do: at 2 bits it rounds nearly every weight to zero and destroys the model.

The other clippings choose a threshold T and spread the grid over [-T, T] so that each level is the middle of its cell:
scale = T / (top + 1/2), where `top` is the largest level. From 3 bits on this is the symmetric scale of PyTorch's
observers and of torchao.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

import torch
from torch import Tensor

from mpq.quant.fake_quantize import dequantize, quantize
from mpq.quant.grid import Grid
from mpq.quant.rules import Clipping, Granularity

_BINS = 2**14
_SMOOTH = 768  # weights per scale from which few trials find the least error: the shortest row of wav2vec2-base
_CHUNK = 2**17  # weights searched at once: on a CPU, a chunk that fits the cache is 3 times faster than all at once


def initial_scale(weight: Tensor, grid: Grid, granularity: Granularity) -> Tensor:
    """Return the scale with the least squared error of the quantized weight, float32, shaped to broadcast.

    `weight` is `[out, in, ...]`, all finite; the scale is `[1, 1, ...]` per tensor, `[out, 1, ...]` per output
    channel. It tries scales in geometric steps, then finer ones around the best, then refits by least squares (which
    never increases the error). The error is within 3 percent of the least from about 1,000 weights per scale, and
    nearly always within 1 percent from 4,000; with fewer, single weights decide and the best scale may be missed.
    """
    weight = weight.detach().float()
    channels = weight.shape[0] if granularity == "per_channel" else 1
    rows = weight.reshape(channels, -1)
    together = max(1, _CHUNK // rows.shape[1]) if rows.device.type == "cpu" else channels
    with _one_thread():
        scale = torch.cat([_least_squares_scale(chunk, grid) for chunk in rows.split(together)])
    return scale.reshape(channels, *[1] * (weight.dim() - 1))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Restrict PyTorch to one CPU thread while the block runs.

    The search runs hundreds of thousands of operations of about 20 microseconds. Two threads, synchronised after each,
    saved a third of the time on an idle machine, but took up to 160 times as long where another process needed a core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _least_squares_scale(rows: Tensor, grid: Grid) -> Tensor:
    """Return the best scale of each row of `rows` `[R, N]`: `[R, 1]`."""
    if len(rows) == 1 and rows.shape[1] > _BINS:
        (values, counts), trials = _histogram(rows), 128
    else:  # the shorter the row, the less smooth its error; a long search over 300 M weights would take minutes
        values, counts, trials = rows, None, min(max(_CHUNK // rows.shape[1], 32), 256)
        trials = 32 if rows.shape[1] >= _SMOOTH else trials
    magnitude = rows.abs()
    # The best scale is at least mean |W| / largest |level|: it equals sum(w q) / sum(q^2), q the levels, and |q| grows
    # with |w| (Chebyshev's sum inequality). Above the other end nothing is clipped and the steps only get coarser.
    low = magnitude.mean(dim=1, keepdim=True) / abs(grid.low + grid.offset)
    high = magnitude.amax(dim=1, keepdim=True) / grid.top
    floor = torch.finfo(rows.dtype).eps ** 2  # for a row of zeros any positive scale works; a tiny one errs least
    low, high = low.clamp_min(floor), high.clamp_min(floor)
    coarse = _best_of(values, counts, low, high, trials, grid)
    step = (high / low) ** (1 / (trials - 1))
    scale = _best_of(values, counts, coarse / step, coarse * step, 17, grid)
    for _ in range(2):
        scale = _refit(rows, scale, grid)
    return scale


def _best_of(values: Tensor, counts: Tensor | None, low: Tensor, high: Tensor, trials: int, grid: Grid) -> Tensor:
    """Return the scale `[R, 1]` with the least error among `trials` from `low` to `high` in geometric steps."""
    best, least = low, torch.full_like(low, torch.inf)
    together = min(max(1, _CHUNK // values.numel()), trials)  # for a small weight, calls take longer than the numbers
    buffer = values.new_empty(together, *values.shape)
    for positions in torch.linspace(0, 1, trials, device=low.device).reshape(-1, 1, 1).split(together):
        scales = low * (high / low) ** positions  # [together, R, 1]
        # Like quantize and dequantize, but in place, without integers and without adding zeros: half the time.
        levels = torch.div(values, scales, out=buffer[: len(positions)])
        levels = levels.sub_(grid.offset) if grid.offset else levels
        levels.round_().clamp_(grid.low, grid.high)
        levels = levels.add_(grid.offset) if grid.offset else levels
        errors = levels.mul_(scales).sub_(values).square_()
        errors = (errors if counts is None else errors.mul_(counts)).sum(dim=2, keepdim=True)
        error, number = errors.min(dim=0, keepdim=True)
        best, least = torch.where(error[0] < least, scales.gather(0, number)[0], best), torch.minimum(error[0], least)
    return best


def _refit(rows: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Return the best scale for the codes that `scale` yields, as in Lloyd's algorithm: sum(w q) / sum(q^2)."""
    levels = dequantize(quantize(rows, scale, grid), torch.ones_like(scale), grid)
    fitted = (rows * levels).sum(dim=1, keepdim=True) / levels.square().sum(dim=1, keepdim=True)
    return torch.where(fitted.isfinite() & (fitted > 0), fitted, scale)


def _histogram(row: Tensor) -> tuple[Tensor, Tensor]:
    """Return bin centres `[1, B]` and counts `[1, B]` of the weights in `row` `[1, N]`.

    A search over a few million weights takes seconds per tensor, over the histogram milliseconds; the refits, which use
    the weights themselves, correct for the bins' width.
    """
    peak = row.abs().max().clamp_min(torch.finfo(row.dtype).tiny)
    bins = ((row[0] / peak + 1) * (_BINS / 2)).long().clamp_max_(_BINS - 1)
    counts = torch.bincount(bins, minlength=_BINS).to(row.dtype)
    centres = (torch.arange(_BINS, dtype=row.dtype, device=row.device) + 0.5) * (2 / _BINS) - 1
    return (centres * peak)[None], counts[None]


PERCENTILE = 99.9
BINS = 2048  # of the histogram of magnitudes, as in TensorRT's calibration
STEP = 16  # bins between the thresholds that are tried


def starting_scale(weight: Tensor, grid: Grid, granularity: Granularity, clipping: Clipping = "mse") -> Tensor:
    """Return a scale for `weight` `[out, in, ...]`, float32: `[1, 1, ...]` per tensor, `[out, 1, ...]` per channel.

    `mse`: least squared error (`initial_scale`). `minmax`: T is the largest magnitude. `percentile`: T is the 99.9th
    percentile of the magnitudes (Wu et al., arXiv 2004.09602, section 5.2). `entropy`: T loses the least information,
    see `entropy_share`. The last two need many weights and a channel has few; so per channel, T is a common share of
    each channel's largest magnitude, found over the relative magnitudes of all channels (ours). With channels below
    1,000 weights the 99.9th percentile is still the largest.
    """
    if clipping == "mse":
        return initial_scale(weight, grid, granularity)
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
    # If the threshold is zero, so are nearly all values, and any tiny scale keeps them at zero.
    return threshold.clamp_min(torch.finfo(torch.float32).eps ** 2) / (grid.top + 0.5)


def entropy_share(magnitudes: Tensor, grid: Grid) -> float:
    """Return the threshold with the least KL divergence between the histogram of `magnitudes` and its quantized form.

    TensorRT's calibration (Migacz, "8-bit inference with TensorRT", GTC 2017). For `magnitudes` `[N]` in 0..1 clipped
    at a threshold, P is their histogram, with all clipped values in its last bin; Q has the mass of each level's cell,
    without the clipped values, spread evenly over those bins of the cell that are not empty in P.
    """
    bins = (magnitudes * BINS).long().clamp_max_(BINS - 1)
    counts = bins.bincount(minlength=BINS).double()
    thresholds = range(max(STEP, grid.high + 1), BINS + 1, STEP)
    divergences = torch.stack([_divergence(counts, kept, grid) for kept in thresholds])
    return thresholds[int(divergences.argmin())] / BINS


def _divergence(counts: Tensor, kept: int, grid: Grid) -> Tensor:
    """Return KL(P || Q) in nats if the first `kept` of the bins `counts` `[BINS]` are kept."""
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

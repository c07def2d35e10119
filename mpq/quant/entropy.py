"""The entropy of a weight's codes on the 8-bit grid, as a smooth function of the weight and of its scale.

Codes that are coded without loss take about their entropy. But a histogram of codes is constant almost everywhere and
so has no gradient. Here a weight near the middle between two codes counts as a share of each: its share of the upper
one grows linearly over `RAMP` codes. That is as if noise of variance RAMP^2 / 12 were added to weight / scale, so the
entropy is slightly above that of the codes. The gradient comes from the weights within the ramps, a share `RAMP` of
all.

A parametric density, a Gaussian for each row, is as close where weights are nearly Gaussian, but misses the entropy
of single sites of Whisper by up to 30 % (experiments/LOG.md).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpq.quant.fake_quantize import of_rows, quantize, row_blocks
from mpq.quant.grid import grid

GRID = grid(8)
RAMP = 0.25  # codes
_CODES = GRID.high - GRID.low + 1


def code_counts(weight: Tensor, scale: Tensor) -> Tensor:
    """Return how often each code of the 8-bit grid occurs, int64 `[256]`; shapes as in `fake_quantize`."""
    counts = torch.zeros(_CODES, dtype=torch.int64, device=weight.device)
    for rows in row_blocks(weight):
        codes = quantize(weight[rows], of_rows(scale, rows), GRID)
        counts += torch.bincount(codes.flatten().int() - GRID.low, minlength=_CODES)
    return counts


def entropy(counts: Tensor) -> Tensor:
    """Return the entropy in bits, float64 `[]`, of the distribution in proportion to `counts` `[K]`."""
    shares = counts.double() / counts.sum()
    return torch.special.entr(shares).sum() / torch.log(shares.new_tensor(2.0))


def smooth_entropy(weight: Tensor, scale: Tensor) -> Tensor:
    """Return the smooth entropy of the codes in bits a weight, float64 `[]`, differentiable in weight and scale.

    `weight` is `[out, in, ...]`; `scale`, positive, `[1, 1, ...]` or `[out, 1, ...]`.
    """
    result = _SmoothEntropy.apply(weight, scale)
    assert isinstance(result, Tensor)
    return result


class _SmoothEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        counts = torch.zeros(_CODES, dtype=torch.float64, device=weight.device)
        for rows in row_blocks(weight):
            _, code, past = _near(weight[rows], of_rows(scale, rows))
            counts += torch.bincount(code, minlength=_CODES)
            near = past != 0
            share, code = past[near].double(), code[near]
            counts += torch.bincount(code + share.sign().long(), share.abs(), minlength=_CODES)
            counts -= torch.bincount(code, share.abs(), minlength=_CODES)
        counts.clamp_min_(0)
        ctx.save_for_backward(weight, scale, counts)
        return entropy(counts)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        weight, scale, counts = ctx.saved_tensors
        # A share that moves from code k to the next adds log2(p_k) - log2(p_next) bits. Empty codes get a trace.
        bits = (counts / counts.sum()).clamp_min(1e-12).log2()
        gain = bits[:-1] - bits[1:]  # of moving up from each code
        by_weight, by_scale = torch.empty_like(weight), torch.zeros_like(scale)
        for rows in row_blocks(weight):
            part = of_rows(scale, rows)
            ratio, code, past = _near(weight[rows], part)
            lower = code - (past < 0).long()
            slope = torch.where(past != 0, gain[lower.clamp(0, _CODES - 2)], 0.0)
            slope = (slope * (grad_outputs[0] / (RAMP * counts.sum()))).to(weight.dtype).view_as(ratio)
            by_weight[rows] = slope / part
            of_rows(by_scale, rows).sub_((slope * ratio / part).sum_to_size(part.shape))
        return by_weight, by_scale


def _near(weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight / scale, and two flat tensors `[N]`: codes counted from 0, and shares.

    The share is that of the code's nearest neighbour, with a minus sign if that is the next lower code; beyond the grid
    it is zero.
    """
    ratio = weight / scale
    clamped = ratio.flatten().clamp(GRID.low, GRID.high)
    code = clamped.round()
    past = clamped - code
    share = ((past.abs() - (0.5 - RAMP / 2)) / RAMP).clamp_min(0) * past.sign()
    return ratio, (code - GRID.low).long(), share

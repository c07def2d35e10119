"""The supernet's weight: candidates of every precision, weighted by their probabilities, in one matrix.

One matrix product a layer instead of one a candidate; and, as in `fake_quantize`, one `autograd.Function` that saves
only weight, scales and lambdas. Composed of differentiable operations, four candidates keep 52 bytes a weight.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpq.quant.fake_quantize import Grid, fake_quantize, lsq_gradients


def mixture(weight: Tensor, scales: Tensor, lambdas: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Return `sum_b lambdas[b] * fake_quantize(weight, scales[b], grids[b])`, `[out, in, ...]`, with its gradients.

    Weight-sharing mixed precision after DARTS (Liu et al., ICLR 2019, eq. 2); every candidate quantizes the same weight
    with its own scale. `weight` is `[out, in, ...]`, `scales` `[C, 1 or out, 1, ...]`, `lambdas` `[C]`.
    """
    result = _Mixture.apply(weight, scales, lambdas, tuple(grids))
    assert isinstance(result, Tensor)
    return result


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scales: Tensor, lambdas: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        ctx.save_for_backward(weight, scales, lambdas)
        ctx.grids = grids
        total = torch.zeros_like(weight)
        for scale, share, grid in zip(scales, lambdas, grids, strict=True):
            total += fake_quantize(weight, scale, grid).mul_(share)
        return total

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        weight, scales, lambdas = ctx.saved_tensors
        grad_weight = torch.zeros_like(weight)
        grad_scales = torch.empty_like(scales)
        grad_lambdas = torch.empty_like(lambdas)
        for b, grid in enumerate(ctx.grids):
            grad_lambdas[b] = (grad_outputs[0] * fake_quantize(weight, scales[b], grid)).sum()
            through_weight, through_scale = lsq_gradients(grad_outputs[0], weight, scales[b], grid)
            grad_weight += through_weight.mul_(lambdas[b])
            grad_scales[b] = through_scale * lambdas[b]
        return grad_weight, grad_scales, grad_lambdas, None

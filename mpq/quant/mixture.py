"""The supernet's weight: the sum of its candidates at every precision, weighted by their probabilities.

So a layer needs one matrix product instead of one per candidate. As in `fake_quantize`, an `autograd.Function` saves
only weight, scales and lambdas; composed of differentiable operations, four candidates would keep 52 bytes per weight.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpq.quant import compiled
from mpq.quant.fake_quantize import gradient_scale, lsq_gradients, of_rows, row_blocks, unit_levels
from mpq.quant.grid import Grid


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
        if compiled.wanted(weight):
            return compiled.quantized(weight, scales, lambdas, grids)
        total = torch.zeros_like(weight)
        for rows in row_blocks(weight):
            levels = torch.empty_like(weight[rows])
            for scale, share, grid in zip(scales, lambdas, grids, strict=True):
                part = of_rows(scale, rows)
                total[rows].addcmul_(unit_levels(weight[rows], part, grid, levels), part * share)
        return total

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        weight, scales, lambdas = ctx.saved_tensors
        gradients = compiled.gradients if compiled.wanted(weight) else _gradients
        grad_weight, grad_scales, grad_lambdas = gradients(grad_outputs[0], weight, scales, lambdas, ctx.grids)
        for b, grid in enumerate(ctx.grids):
            grad_scales[b] *= lambdas[b] * gradient_scale(weight, scales[b], grid)
        return grad_weight, grad_scales, grad_lambdas, None


def _gradients(
    grad: Tensor, weight: Tensor, scales: Tensor, lambdas: Tensor, grids: Sequence[Grid]
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute what `compiled.gradients` does, without compilation."""
    grad_weight, grad_scales = torch.zeros_like(weight), torch.zeros_like(scales)
    grad_lambdas = torch.zeros_like(lambdas)
    for rows in row_blocks(weight):
        part, rows_grad = weight[rows], grad[rows]
        levels, inside = torch.empty_like(part), torch.empty_like(part)
        for b, grid in enumerate(grids):
            scale = of_rows(scales[b], rows)
            by_level, by_scale = lsq_gradients(rows_grad, part, scale, grid, levels, inside)
            grad_weight[rows].addcmul_(inside, lambdas[b])
            grad_lambdas[b] += (by_level * scale).sum()
            of_rows(grad_scales[b], rows).add_(by_scale)
    return grad_weight, grad_scales, grad_lambdas

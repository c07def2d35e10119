"""Uniform quantization of a weight with a learned step size (LSQ).

An `autograd.Function` saves the weight and the scale and recomputes the rest in its backward pass. Written as plain
differentiable operations, the same formula would keep 12 bytes per weight alive between forward and backward; here only
the weight is kept, which is in memory anyway. On a CPU a weight is processed in blocks of rows that fit the cache.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpq.quant import compiled
from mpq.quant.grid import Grid


def quantize(weight: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Return the nearest codes, int8 `[out, in, ...]`: `clamp(round(weight / scale - offset), low, high)`.

    `weight` is `[out, in, ...]`; `scale`, positive and of the same dtype, is `[1, 1, ...]` per tensor or
    `[out, 1, ...]` per output channel. A tie goes to the even code.
    """
    return _codes(weight, scale, grid).to(torch.int8)


def dequantize(codes: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Return the weight that int8 `codes` `[out, in, ...]` encode: `(codes + offset) * scale`, in the scale's dtype."""
    return _levels(codes.to(scale.dtype), scale, grid)


def fake_quantize(weight: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Return `dequantize(quantize(weight))`, bit for bit, with LSQ's gradient.

    LSQ, Esser et al., ICLR 2020 (arXiv 1902.08153): equation 3 for the scale, equation 5 (straight through inside the
    clamp, zero outside) for the weight, and the gradient scale of section 2.2. Shapes as in `quantize`.
    """
    result = _FakeQuantize.apply(weight, scale, grid)
    assert isinstance(result, Tensor)
    return result


def lsq_gradients(
    grad: Tensor, weight: Tensor, scale: Tensor, grid: Grid, levels: Tensor, inside: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the levels' unit and of the scale, given `grad`, the fake-quantized weight's gradient.

    With u = weight / scale - offset, the derivative with respect to the scale is round(u) - u where low < u < high
    (equation 3: the rounded ratio minus the ratio; the offset cancels), and `code + offset` of the outermost level
    beyond. In short: the level, minus weight / scale where inside. `gradient_scale` is not yet applied. The gradient of
    the levels' unit, times the scale, is the gradient of a factor on the whole weight. `levels` and `inside` are
    buffers shaped like `weight`; on return `inside` holds the weight's gradient. Few passes and no new memory: on a CPU
    plain operations took five times as long.
    """
    _ratio(weight, scale, grid, out=levels)
    # The gradient of a hardtanh passes where low < u < high: comparisons, mask and product in one pass.
    torch.ops.aten.hardtanh_backward.grad_input(grad, levels, grid.low, grid.high, grad_input=inside)
    levels.round_().clamp_(grid.low, grid.high)
    levels = levels.add_(grid.offset) if grid.offset else levels
    by_level = levels.mul_(grad).sum_to_size(scale.shape)
    by_ratio = torch.mul(inside, weight, out=levels).sum_to_size(scale.shape) / scale
    return by_level, by_level - by_ratio


def gradient_scale(weight: Tensor, scale: Tensor, grid: Grid) -> float:
    """Return 1 / sqrt(N * top), where N is the number of weights per scale and top the largest level.

    LSQ, section 2.2, with Q_P read as the largest level, so that it is defined for 1 bit, whose highest code is 0.
    """
    return (weight.numel() / scale.numel() * grid.top) ** -0.5


def unit_levels(weight: Tensor, scale: Tensor, grid: Grid, out: Tensor) -> Tensor:
    """Return the nearest levels of `weight` in units of the scale, written to `out`, a buffer shaped like `weight`."""
    codes = _codes(weight, scale, grid, out)
    return codes.add_(grid.offset) if grid.offset else codes


def _ratio(weight: Tensor, scale: Tensor, grid: Grid, out: Tensor | None = None) -> Tensor:
    """Return the codes before rounding, in a new tensor or in `out`; the caller may modify it."""
    ratio = torch.div(weight, scale, out=out)
    return ratio.sub_(grid.offset) if grid.offset else ratio


def _codes(weight: Tensor, scale: Tensor, grid: Grid, out: Tensor | None = None) -> Tensor:
    """Return the codes as floats, in a new tensor or in `out`; the caller may modify it."""
    return _ratio(weight, scale, grid, out).round_().clamp_(grid.low, grid.high)


def _levels(codes: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Turn float codes into levels, in place; adding even an offset of 0.0 matters, as it turns -0.0 into int8's 0."""
    return codes.add_(grid.offset).mul_(scale)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, grid: Grid) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.grid = grid
        if compiled.wanted(weight):
            return compiled.quantized(weight, scale[None], None, [grid])
        result = torch.empty_like(weight)
        for rows in row_blocks(weight):
            part = of_rows(scale, rows)
            _levels(_codes(weight[rows], part, grid, out=result[rows]), part, grid)
        return result

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        weight, scale = ctx.saved_tensors
        if compiled.wanted(weight):
            grad_weight, grad_scale, _ = compiled.gradients(grad_outputs[0], weight, scale[None], None, [ctx.grid])
            grad_scale = grad_scale[0]
        else:
            grad_weight, grad_scale = torch.empty_like(weight), torch.zeros_like(scale)
            for rows in row_blocks(weight):
                grad, part, levels = grad_outputs[0][rows], weight[rows], torch.empty_like(weight[rows])
                _, by_scale = lsq_gradients(grad, part, of_rows(scale, rows), ctx.grid, levels, grad_weight[rows])
                of_rows(grad_scale, rows).add_(by_scale)
        return grad_weight, grad_scale.mul_(gradient_scale(weight, scale, ctx.grid)), None


_BLOCK = 2**16  # weights a core works on at once: five float32 tensors of them fit a cache of 1 to 2 MB


def row_blocks(weight: Tensor) -> Iterator[slice]:
    """Yield slices of the rows of `weight` `[out, in, ...]`, to be processed one after the other.

    On a CPU, each has as many rows as stay in the cores' caches between operations; elsewhere one slice has all rows.
    """
    rows = max(1, weight.shape[0])
    cached = _BLOCK * torch.get_num_threads() // max(1, weight.numel() // rows)
    step = max(1, cached) if weight.device.type == "cpu" else rows
    return (slice(first, first + step) for first in range(0, rows, step))


def of_rows(scale: Tensor, rows: slice) -> Tensor:
    """Return the part of `scale` `[1 or out, 1, ...]` that belongs to some rows of the weight, as a view."""
    return scale if scale.shape[0] == 1 else scale[rows]

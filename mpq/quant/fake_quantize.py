"""Uniform quantization of a weight with a learned step size (LSQ).

One `autograd.Function` that saves the weight and the scale and recomputes the rest in its backward pass. Written as
plain differentiable operations the same formula keeps 12 bytes a weight alive between forward and backward; here the
weight, which lives anyway, is all that is kept.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mpq.errors import UserError


@dataclass(frozen=True)
class Grid:
    """The levels of one precision: `scale * (code + offset)` for the integer codes `low..high`.

    `offset` 0 is a mid-tread grid (zero is a level, one negative level has no positive counterpart); 0.5 is a centred
    grid, symmetric and without a zero: `{-1.5, -0.5, 0.5, 1.5} * scale` at 2 bits.
    """

    low: int
    high: int
    offset: float

    @property
    def top(self) -> float:
        """The largest level, in units of the scale."""
        return self.high + self.offset


def grid(bits: int, centred: bool = True) -> Grid:
    """Return the grid of an n-bit weight: codes from -2^(n-1) to 2^(n-1) - 1.

    One bit is always centred (otherwise it had no positive level), two bits are when `centred` is true; from three bits
    on the wasted level no longer matters and the grid is mid-tread, as in LSQ (Esser et al. 2020, section 2).

    Raises:
        UserError: `bits` is not a whole number from 1 to 8.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
        raise UserError(f"a precision of {bits!r} bits is not possible: it must be a whole number from 1 to 8.")
    offset = 0.5 if bits == 1 or (bits == 2 and centred) else 0.0
    return Grid(low=-(2 ** (bits - 1)), high=2 ** (bits - 1) - 1, offset=offset)


def quantize(weight: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Return the nearest codes, int8 `[out, in, ...]`: `clamp(round(weight / scale - offset), low, high)`.

    `weight` is `[out, in, ...]`; `scale`, positive and of the same dtype, is `[1, 1, ...]` per tensor or
    `[out, 1, ...]` per output channel. A tie goes to the even code.
    """
    return _codes(weight, scale, grid).to(torch.int8)


def dequantize(codes: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Return the weight that int8 `codes` `[out, in, ...]` stand for: `(codes + offset) * scale`, in scale's dtype."""
    return _levels(codes.to(scale.dtype), scale, grid)


def fake_quantize(weight: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Return `dequantize(quantize(weight))`, bit for bit, with LSQ's gradient.

    LSQ, Esser et al., ICLR 2020 (arXiv 1902.08153): equation 3 for the scale, equation 5 (straight through inside the
    clamp, zero outside) for the weight, and the gradient scale of section 2.2. Shapes as in `quantize`.
    """
    result = _FakeQuantize.apply(weight, scale, grid)
    assert isinstance(result, Tensor)
    return result


def lsq_gradients(grad: Tensor, weight: Tensor, scale: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the gradients for weight `[out, in, ...]` and scale, given that of the fake-quantized weight.

    With u = weight / scale - offset, the scale's slope is round(u) - u where low < u < high (equation 3: minus the
    ratio plus the rounded ratio; the offset cancels), and the outermost level's `code + offset` beyond. It is
    multiplied by 1 / sqrt(N * top), N the number of weights that share a scale and top the largest level: section 2.2,
    with Q_P read as the largest level so that 1 bit, whose highest code is 0, has one too.
    """
    u = weight / scale - grid.offset
    inside = (u > grid.low) & (u < grid.high)
    slope = torch.where(inside, u.round() - u, u.clamp(grid.low, grid.high) + grid.offset)
    shared_by = weight.numel() / scale.numel()
    grad_scale = (grad * slope).sum_to_size(scale.shape) * (shared_by * grid.top) ** -0.5
    return grad * inside, grad_scale


def _codes(weight: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Codes as floats, in a tensor of their own that the caller may write to."""
    return (weight / scale).sub_(grid.offset).round_().clamp_(grid.low, grid.high)


def _levels(codes: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """Turn float codes into levels, in place. Adding an offset of 0.0 is not idle: it makes -0.0 the 0.0 of int8."""
    return codes.add_(grid.offset).mul_(scale)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, grid: Grid) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.grid = grid
        return _levels(_codes(weight, scale, grid), scale, grid)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        weight, scale = ctx.saved_tensors
        return *lsq_gradients(grad_outputs[0], weight, scale, ctx.grid), None

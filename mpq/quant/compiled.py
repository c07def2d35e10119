"""The quantizers' arithmetic in kernels by torch.compile: a pass over a weight each way, not one an operation.

The plain versions in `fake_quantize` and `mixture` say what is computed, are what these are tested against, and take
over where PyTorch can't compile. Their sums are added in another order, so results differ by rounding.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from mpq.errors import UserError
from mpq.quant.grid import Grid

Choice = Literal["auto"] | bool
_choice: Choice = "auto"
_failed = False
_VERSIONS = 64
_log = logging.getLogger(__name__)


def choose(choice: Choice) -> None:
    """Compile the quantizers of this process: always, never, or (`auto`) those of weights on a GPU.

    On a CPU it takes a C++ compiler and, the first time, half a minute to some minutes.

    Raises:
        UserError: another word.
    """
    global _choice
    check(choice)
    _choice = choice


def check(choice: object) -> None:
    """Raise UserError unless `choice` is one that `choose` knows."""
    if choice not in ("auto", True, False):
        raise UserError(f"trainer.compile={choice} must be auto, true or false")


def wanted(weight: Tensor) -> bool:
    """Return whether the quantizer of `weight` is to use the compiled kernels."""
    return not _failed and (weight.is_cuda if _choice == "auto" else _choice)


def failed() -> bool:
    """Return whether PyTorch could not compile here, so that the plain versions are used whatever was chosen."""
    return _failed


def quantized(weight: Tensor, scales: Tensor, shares: Tensor | None, grids: Sequence[Grid]) -> Tensor:
    """Return `sum_b shares[b] * fake_quantize(weight, scales[b], grids[b])`, `[out, in, ...]` like `weight`.

    `scales` `[C, 1 or out, 1, ...]`; `shares` `[C]`, or None for one candidate.
    """
    levels = _levels_of(tuple(grids), weight.device, weight.dtype)
    return _run(_forward, *_matrices(weight, scales), shares, levels).view_as(weight)


def gradients(
    grad: Tensor, weight: Tensor, scales: Tensor, shares: Tensor | None, grids: Sequence[Grid]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `quantized` for the weight, for each scale, and `[C]` for the shares.

    `grad` is that of the result. A scale's lacks `shares` and LSQ's gradient scale, as in `lsq_gradients`.
    """
    levels = _levels_of(tuple(grids), weight.device, weight.dtype)
    rows, columns = _matrices(weight, scales)
    by_weight, by_scale, by_share = _run(_backward, grad.reshape(rows.shape), rows, columns, shares, levels)
    return by_weight.view_as(weight), by_scale.view_as(scales), by_share


def _matrices(weight: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """The weight with a row for each scale, `[R, N]`, and the scales `[C, R, 1]`: two kernels serve all shapes."""
    return weight.reshape(scales[0].numel(), -1), scales.reshape(len(scales), -1, 1)


@cache
def _levels_of(grids: tuple[Grid, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Lowest code, highest code and offset of each grid, `[C, 3]`: as numbers they would need a kernel a grid."""
    return torch.tensor([[grid.low, grid.high, grid.offset] for grid in grids], device=device, dtype=dtype)


def _forward(weight: Tensor, scales: Tensor, shares: Tensor | None, levels: Tensor) -> Tensor:
    total = torch.zeros_like(weight)
    for b, (low, high, offset) in enumerate(row.unbind() for row in levels.unbind()):
        level = (weight / scales[b] - offset).round().clamp(low, high) + offset
        unit = scales[b] if shares is None else scales[b] * shares[b]
        total = total + level * unit
    return total


def _backward(
    grad: Tensor, weight: Tensor, scales: Tensor, shares: Tensor | None, levels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `lsq_gradients` for each candidate; see there."""
    total, by_scales, by_shares = torch.zeros_like(weight), [], []
    for b, (low, high, offset) in enumerate(row.unbind() for row in levels.unbind()):
        ratio = weight / scales[b] - offset
        inside = torch.where((ratio > low) & (ratio < high), grad, 0.0)
        by_level = ((ratio.round().clamp(low, high) + offset) * grad).sum(1, keepdim=True)
        by_scales.append(by_level - (inside * weight).sum(1, keepdim=True) / scales[b])
        by_shares.append((by_level * scales[b]).sum())
        total = total + (inside if shares is None else inside * shares[b])
    return total, torch.stack(by_scales), torch.stack(by_shares)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`dynamic`: the sizes of a weight are arguments of a kernel. One thread: no process is left that compiles."""
    # A version for each number of candidates, of dimensions, and one or many scales; from eight on PyTorch gives up.
    torch._dynamo.config.recompile_limit = max(_VERSIONS, torch._dynamo.config.recompile_limit)
    return torch.compile(function, dynamic=True, fullgraph=True, options={"compile_threads": 1})


def _run(function: Callable[..., Any], *arguments: Tensor | None) -> Any:
    """Call `function` compiled; where PyTorch can't compile, say so once and go on without."""
    global _failed
    try:
        return _compiled(function)(*arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of the compilers below torch.compile, each with errors of its own
        _failed = True
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _log.warning("the quantizers run without torch.compile, which takes longer: %s", reason)
        return function(*arguments)

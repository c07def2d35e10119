"""The quantizers' arithmetic, compiled by torch.compile: one pass over a weight each way, not one per operation.

The plain versions in `fake_quantize` and `mixture` define what is computed, serve as the reference in tests, and are
the fallback where PyTorch can't compile. They add in a different order, so results differ by rounding.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mpq.quant.grid import Grid
from mpq.quant.rules import Compile, check_compile

_choice: Compile = "auto"
_failed = False
_VERSIONS = 64
_log = logging.getLogger(__name__)


def choose(choice: Compile) -> None:
    """Compile the quantizers of this process: always (True), never (False), or only for weights on a GPU (`auto`).

    On a CPU this needs a C++ compiler and, the first time, half a minute to a few minutes.

    Raises:
        UserError: any other value.
    """
    global _choice
    check_compile(choice)
    _choice = choice


def wanted(weight: Tensor) -> bool:
    """Return whether the quantizer of `weight` should use the compiled kernels."""
    return not _failed and (weight.is_cuda if _choice == "auto" else _choice)


def failed() -> bool:
    """Return whether compilation has failed in this process, so that the plain versions are used regardless."""
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
    """Return the gradients of `quantized` with respect to the weight, each scale, and the shares `[C]`.

    `grad`: gradient of the result. The scales' gradients are not yet multiplied by `shares` and LSQ's gradient scale
    (as in `lsq_gradients`).
    """
    levels = _levels_of(tuple(grids), weight.device, weight.dtype)
    rows, columns = _matrices(weight, scales)
    by_weight, by_scale, by_share = _run(_backward, grad.reshape(rows.shape), rows, columns, shares, levels)
    return by_weight.view_as(weight), by_scale.view_as(scales), by_share


def _matrices(weight: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight with one row per scale, `[R, N]`, and the scales `[C, R, 1]`: two kernels fit all shapes."""
    return weight.reshape(scales[0].numel(), -1), scales.reshape(len(scales), -1, 1)


@cache
def _levels_of(grids: tuple[Grid, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return lowest code, highest code and offset of each grid, `[C, 3]`; constants would need a kernel per grid."""
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
    """Compute `lsq_gradients` for each candidate; see there."""
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
    """Compile `function`; one kernel fits all weight sizes (`dynamic`), and one thread leaves no compiler processes."""
    # One version per number of candidates, number of dimensions, and one or many scales; PyTorch's default limit is 8.
    torch._dynamo.config.recompile_limit = max(_VERSIONS, torch._dynamo.config.recompile_limit)
    return torch.compile(function, dynamic=True, fullgraph=True, options={"compile_threads": 1})


def _run(function: Callable[..., Any], *arguments: Tensor | None) -> Any:
    """Call `function` compiled; if compilation fails, warn once and run the plain version from then on."""
    global _failed
    try:
        return _compiled(function)(*arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the compilers behind torch.compile each raise their own types
        _failed = True
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _log.warning("the quantizers run without torch.compile, which is slower: %s", reason)
        return function(*arguments)

"""How close the quantizers' kernels get to memory bandwidth: time per weight against copying the weight.

Counted is the least memory traffic, in float32: the forward pass reads the weight and writes the quantized one, the
backward pass reads weight and gradient and writes a gradient; a copy reads and writes once. Scales are negligible.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mpq.bench.measuring import compared, interleave
from mpq.bench.models import CANDIDATES
from mpq.bench.options import Kernels as Options
from mpq.bench.systems import usable_threads
from mpq.bench.train_steps import BITS, chosen_device
from mpq.errors import UserError
from mpq.quant import compiled
from mpq.quant.quantizer import QuantizerSettings, WeightQuantizer
from mpq.quant.rules import Compile

REFERENCE = "copy"
_FORWARD, _BACKWARD = 8, 12  # bytes per weight
_QUANTIZERS = {f"lsq_{BITS}bit": (BITS,), f"mixture_of_{len(CANDIDATES)}": CANDIDATES}
_KERNELS: dict[str, Compile] = {"plain": False, "compiled": True}


def run(options: Options) -> list[dict[str, Any]]:
    """Return rows for the copy and each quantizer, forward only and with backward: times, bytes, share of bandwidth.

    Raises:
        UserError: the device or a kernel is unknown, or `rows`, `columns` or `rounds` is 0.
    """
    device = chosen_device(options.device)
    if unknown := [name for name in options.kernels if name not in _KERNELS]:
        raise UserError(f"there are no kernels {unknown[0]!r}; choose among {', '.join(_KERNELS)}")
    if not (options.rows and options.columns and options.rounds):
        raise UserError("rows, columns and rounds must be 1 or more")
    torch.set_num_threads(usable_threads(options.threads))
    weight = (torch.randn(options.rows, options.columns, device=device) * 0.02).requires_grad_()
    systems, moved = _systems(weight, options.kernels)
    try:
        times = interleave({name: _waiting(call, device) for name, call in systems.items()}, options.rounds)
    finally:
        compiled.choose("auto")
    figures = compared(times, REFERENCE)
    rate = {name: moved[name] * weight.numel() / figures[name]["seconds"]["median"] for name in systems}
    rows: list[dict[str, Any]] = []
    for name in systems:
        if compiled.failed() and "compiled" in name:
            rows.append({"system": name, "problem": "PyTorch can't compile here"})
            continue
        shares = {"gigabytes_a_second": rate[name] / 1e9, "share_of_bandwidth": rate[name] / rate[REFERENCE]}
        rows.append({"system": name, **figures[name], "bytes_a_weight": str(moved[name]), **shares})
    return rows


def _systems(weight: Tensor, kernels: tuple[str, ...]) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """The measured functions, and the bytes per weight that they must move, by name."""
    target, gradient = torch.empty_like(weight, requires_grad=False), torch.randn_like(weight)
    systems: dict[str, Callable[[], object]] = {REFERENCE: lambda: target.copy_(weight.detach())}
    moved = {REFERENCE: _FORWARD}
    for name, candidates in _QUANTIZERS.items():
        quantizer = WeightQuantizer(weight, candidates, QuantizerSettings(clipping="minmax")).to(weight.device)
        if len(candidates) > 1:
            quantizer.lambdas = torch.full((len(candidates),), 1 / len(candidates), device=weight.device)
            quantizer.lambdas.requires_grad_()
        for kernel in kernels:
            systems[f"{name}_{kernel}"] = _pass(quantizer, weight, None, _KERNELS[kernel])
            systems[f"{name}_{kernel}_both_ways"] = _pass(quantizer, weight, gradient, _KERNELS[kernel])
            moved |= {f"{name}_{kernel}": _FORWARD, f"{name}_{kernel}_both_ways": _FORWARD + _BACKWARD}
    return systems, moved


def _pass(quantizer: WeightQuantizer, weight: Tensor, gradient: Tensor | None, choice: Compile) -> Callable[[], object]:
    def call() -> None:
        compiled.choose(choice)
        result = quantizer(weight)
        if gradient is not None:
            torch.autograd.grad(result, [weight, quantizer.log_scales], gradient)

    return call


def _waiting(call: Callable[[], object], device: str) -> Callable[[], None]:
    """Wrap `call` so that it returns only when the GPU has finished."""

    def wait() -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    return wait

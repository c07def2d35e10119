"""A workaround for convolutions whose gradient can't be had in bfloat16 on a CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def strided_in_float32(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Have the strided convolutions that `model` trains compute in float32 while the block runs, if `wanted`.

    On processors with AMX, oneDNN 3.12 (PyTorch 2.13) reads memory that nobody wrote when it computes the gradient of
    such a weight in bfloat16 (`brgconv_bwd_w`; seen with kernels of twice the stride, where samples were left over at
    the end). Mostly that memory holds finite numbers, and no NaN is seen; one run met it within 150 updates.
    """
    found = [m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d)) and max(m.stride) > 1]
    patched = [module for module in found if wanted and module.weight.requires_grad]
    for module in patched:
        module.forward = _in_float32(module.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in patched:
            del module.forward  # the instance's; that of its class stays


def _in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def exact(inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(inputs.float())

    return exact

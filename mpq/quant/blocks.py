"""Working through a weight in blocks of rows that a processor's cache holds."""

from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK = 2**16  # weights a core works on at once: five float32 tensors of them fit a cache of 1 to 2 MB


def row_blocks(weight: Tensor) -> Iterator[slice]:
    """Yield slices of the rows of `weight` `[out, in, ...]`, to be worked through one after the other.

    On a CPU as many rows as stay in the caches of its cores from one operation to the next; elsewhere all at once.
    """
    rows = max(1, weight.shape[0])
    cached = _BLOCK * torch.get_num_threads() // max(1, weight.numel() // rows)
    step = max(1, cached) if weight.device.type == "cpu" else rows
    return (slice(first, first + step) for first in range(0, rows, step))


def of_rows(scale: Tensor, rows: slice) -> Tensor:
    """Return the part of `scale` `[1 or out, 1, ...]` that belongs to some rows of the weight, a view."""
    return scale if scale.shape[0] == 1 else scale[rows]

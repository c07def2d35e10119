"""What one batch counts for in an update that has several: accumulated ones, or those of several processes.

An update's gradient is the mean of those of its batches (Lightning's and DDP's way), but CTC is a mean over utterances
and KL one over frames, and batches differ in both. So each batch's means are multiplied by its share of all utterances
and of all frames, times the number of batches: then the update is that of one big batch, however it was cut.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.models import ctc


@dataclass(frozen=True)
class Share:
    """The factors [] of a batch's mean over `utterances` and of its mean over `frames`."""

    utterances: Tensor
    frames: Tensor


def share_of(batch: Batch, model: Any, batches: int, everyones: Callable[[Tensor], Tensor]) -> Share | None:
    """The share of `batch` in an update of `batches` of them; None where it is the only one.

    `everyones` adds a tensor up over all processes, all of which must ask at the same time.
    """
    if batches == 1:
        return None
    update = batch.lengths if batch.update_lengths is None else batch.update_lengths
    total = everyones(_counts(model, update)).clamp_min(1)  # 0 where each file of each batch was left out
    utterances, frames = batches * _counts(model, batch.lengths) / total
    return Share(utterances, frames)


def _counts(model: Any, lengths: Tensor) -> Tensor:
    """Utterances and output frames [2] of inputs of `lengths` [utterances]."""
    frames = ctc.frames(model, lengths).sum()
    return torch.stack([torch.full_like(frames, len(lengths)), frames]).float()


def no_loss(module: nn.Module) -> Tensor:
    """A loss of zero with gradients of zero: a process that had none would leave the others waiting for it."""
    return torch.stack([0.0 * parameter.sum() for parameter in module.parameters() if parameter.requires_grad]).sum()

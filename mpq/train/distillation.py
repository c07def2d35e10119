"""The training loss: CTC, and the divergence from the full-precision teacher."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.errors import UserError
from mpq.models import ctc


def kl_divergence(student: Tensor, teacher: Tensor, frame_counts: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of the frame posteriors in nats, averaged over the frames that are no padding.

    student, teacher: `[batch, frames, vocabulary]` before softmax. frame_counts: `[batch]`. With a `temperature` T the
    posteriors are softmax(x / T) and the divergence is multiplied by T^2 (Hinton et al. 2015, section 2).
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)
    real = torch.arange(student.shape[1], device=student.device) < frame_counts[:, None]
    return temperature**2 * (divergence * real).sum() / real.sum()


class Loss:
    """`ctc_weight` x CTC + `kl_weight` x KL(teacher || student).

    The teacher is held once, in eval mode and without gradients, and is no part of what is trained or checkpointed.
    """

    def __init__(
        self, ctc_weight: float, kl_weight: float, temperature: float, teacher: nn.Module | None, attention_mask: bool
    ) -> None:
        if ctc_weight < 0 or kl_weight < 0 or ctc_weight + kl_weight == 0 or temperature <= 0:
            raise UserError(
                f"distill.ctc_weight={ctc_weight}, distill.kl_weight={kl_weight} must not be negative nor both zero, "
                f"and distill.temperature={temperature} must be positive"
            )
        if kl_weight > 0 and teacher is None:
            raise UserError("distill.kl_weight must be 0 where there is no teacher (distill=ctc)")
        self._weights = (ctc_weight, kl_weight)
        self._temperature = temperature
        self._teacher = teacher.eval().requires_grad_(False) if teacher is not None and kl_weight > 0 else None
        self._attention_mask = attention_mask

    def __call__(self, model: Any, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of `model` on `batch`, and its parts for the log."""
        outputs = ctc.logits(model, batch.inputs, batch.lengths, self._attention_mask)
        frame_counts = ctc.frames(model, batch.lengths)
        parts = {}
        loss = outputs.new_zeros((), dtype=torch.float32)
        if self._weights[0] > 0:
            parts["ctc"] = ctc.ctc_loss(model, outputs, frame_counts, batch.labels)
            loss = loss + self._weights[0] * parts["ctc"]
        if self._teacher is not None:
            self._teacher.to(outputs.device)
            with torch.no_grad():
                targets = ctc.logits(self._teacher, batch.inputs, batch.lengths, self._attention_mask)
            parts["kl"] = kl_divergence(outputs, targets, frame_counts, self._temperature)
            loss = loss + self._weights[1] * parts["kl"]
        return loss, {name: part.detach() for name, part in parts.items()}

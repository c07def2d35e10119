"""The training loss: CTC, and the divergence from the full-precision teacher."""

from collections.abc import Mapping
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpq.data.dataset import Batch
from mpq.errors import UserError
from mpq.models import ctc
from mpq.train.posteriors import Posteriors, hear
from mpq.train.share import Share


def kl_divergence(student: Tensor, teacher: Tensor, frame_counts: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of the frame posteriors in nats, averaged over the frames that are no padding.

    student, teacher: `[batch, frames, vocabulary]` before softmax. frame_counts: `[batch]`. With a `temperature` T the
    posteriors are softmax(x / T) and the divergence is multiplied by T^2 (Hinton et al. 2015, section 2).
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)
    real = torch.arange(student.shape[1], device=student.device) < frame_counts[:, None]
    return temperature**2 * (divergence * real).sum() / real.sum().clamp_min(1)


class Loss:
    """`ctc_weight` x CTC + `kl_weight` x KL(teacher || student).

    The teacher is held once, in eval mode, and runs without gradients. This class is no `nn.Module`, so the teacher is
    no part of what is trained or checkpointed.
    """

    def __init__(
        self,
        ctc_weight: float,
        kl_weight: float,
        temperature: float,
        teacher: nn.Module | None,
        attention_mask: bool,
        posteriors: Posteriors | None = None,
    ) -> None:
        """Take the weights, the `temperature` of the posteriors, and the `teacher`, which `kl_weight` 0 does without.

        `attention_mask` is that of `mpq.models.ctc.logits`. `posteriors` of the teacher are asked in its place.

        Raises: UserError for a negative weight, two weights of zero, a temperature that is not positive, or a
        `kl_weight` without a teacher.
        """
        numbers = all(isinstance(value, (int, float)) for value in (ctc_weight, kl_weight, temperature))
        if not (numbers and min(ctc_weight, kl_weight) >= 0 and 0 < ctc_weight + kl_weight < inf and temperature > 0):
            raise UserError(
                f"distill.ctc_weight={ctc_weight} and distill.kl_weight={kl_weight} must be numbers, not negative nor "
                f"both zero, and distill.temperature={temperature} must be a positive number"
            )
        if kl_weight > 0 and teacher is None:
            raise UserError("distill.kl_weight must be 0 where there is no teacher (distill=ctc)")
        self._weights = (ctc_weight, kl_weight)
        self._temperature = temperature
        # Its parameters keep their `requires_grad`: the next stage's student may be a copy of it.
        self._teacher = teacher.eval() if teacher is not None and kl_weight > 0 else None
        self._attention_mask = attention_mask
        self._posteriors = posteriors

    def __call__(self, model: Any, batch: Batch, share: Share | None = None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of `model` on `batch`, its `share` of an update's where that has other batches; its parts to log."""
        outputs = ctc.logits(model, batch.inputs, batch.lengths, self._attention_mask)
        frame_counts = ctc.frames(model, batch.lengths)
        parts = {}
        loss = outputs.new_zeros((), dtype=torch.float32)
        if self._weights[0] > 0:
            parts["ctc"] = ctc.ctc_loss(model, outputs, frame_counts, batch.labels)
            loss = loss + self._weights[0] * (parts["ctc"] if share is None else share.utterances * parts["ctc"])
        if self._teacher is not None:
            if self._posteriors is None:
                targets = hear(self._teacher, batch.inputs, batch.lengths, self._attention_mask)
            else:
                targets = self._posteriors(batch, outputs.shape[1])
            parts["kl"] = kl_divergence(outputs, targets, frame_counts, self._temperature)
            loss = loss + self._weights[1] * (parts["kl"] if share is None else share.frames * parts["kl"])
        return loss, {name: part.detach() for name, part in parts.items()}

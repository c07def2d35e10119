"""The divergence of a model's predictions from a teacher's."""

import torch
import torch.nn.functional as F
from torch import Tensor


def kl_divergence(student: Tensor, teacher: Tensor, positions: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) of the posteriors in nats, averaged over the positions without padding.

    student, teacher: `[batch, positions, vocabulary]` before softmax. positions: without padding, `[batch]`.
    With a `temperature` T the posteriors are softmax(x / T) and the divergence is multiplied by T^2 (Hinton et al.
    2015, section 2).
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)
    real = torch.arange(student.shape[1], device=student.device) < positions[:, None]
    return temperature**2 * (divergence * real).sum() / real.sum().clamp_min(1)

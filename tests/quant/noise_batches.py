"""A tiny random CTC model and padded batches of noise for it to hear."""

import torch
from tiny_speech import ARCHITECTURE
from torch import nn

import mpq  # noqa: F401  (before transformers: it makes torchaudio importable)
from mpq.data.dataset import Batch
from mpq.models import loading


def noise_model(model_type: str, **changes: object) -> nn.Module:
    """Return a model of two layers whose outputs differ between frames."""
    model, _ = loading.from_scratch(
        {**ARCHITECTURE, "model_type": model_type, **changes}, int(torch.randint(2**31, ()))
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    return model


def noise_batches(sizes: tuple[int, ...] = (2, 1), equal: bool = True) -> list[Batch]:
    """Return batches of `sizes` utterances of one second, or else of falling length."""
    batches = []
    for size in sizes:
        lengths = [16_000 if equal else 16_000 - 3_000 * k for k in range(size)]
        inputs = nn.utils.rnn.pad_sequence([torch.randn(n) for n in lengths], batch_first=True)
        ids, labels = [str(k) for k in range(size)], torch.randint(5, 9, (size, 3))
        batches.append(Batch(ids, inputs, torch.tensor(lengths), labels, sum(lengths) / 16_000, []))
    return batches

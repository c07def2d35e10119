"""Sensitivity as output divergence: how far quantizing one unit moves the posteriors of frames or tokens."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from mpq.models.divergence import kl_divergence
from mpq.quant.calibration import Calibration
from mpq.quant.sites import Site
from mpq.search.measured import MeasuredSearch


@final
class KLSensitivity(MeasuredSearch):
    """KL(full precision || model with only one unit at b bits), in nats per position, averaged over all of them.

    Follows the performance sensitivity of Xu et al., "Mixed precision low-bit quantization of neural network language
    models for speech recognition" (arXiv 2112.11438), without its ADMM training. Padding doesn't count. The cost is
    U * C + 1 forward passes over the utterances; what runs before all of a unit (`SpeechModel.front`) runs once.
    """

    def __init__(self, candidates: Sequence[int] = (2, 4, 8), utterances: int = 32, share: str = "tensor") -> None:
        """See `MeasuredSearch`."""
        super().__init__(candidates, utterances, share)

    @torch.no_grad()
    def _measure(self, calibration: Calibration) -> Tensor:
        references = [calibration.logits(batch, ()) for batch in calibration.batches]
        rows = []
        for unit in calibration.track(self.units, "KL sensitivity", "weights"):
            weights = [calibration.weight(site) for site in unit.sites]
            stored = [calibration.quantized(site, self._candidates) for site in unit.sites]
            row = []
            for values in zip(*stored, strict=True):  # one candidate after the other
                with calibration.replaced(weights, values):
                    row.append(_divergence(calibration, references, unit.sites))
            rows.append(torch.stack(row))
        return torch.stack(rows)


def _divergence(calibration: Calibration, references: Sequence[Tensor], changed: Sequence[Site]) -> Tensor:
    """Return KL(reference || current model), averaged over the positions of all batches."""
    total, count = torch.zeros((), dtype=torch.float64, device=references[0].device), 0
    for batch, reference in zip(calibration.batches, references, strict=True):
        counts = calibration.positions(batch)
        total = total + kl_divergence(calibration.logits(batch, changed), reference, counts).double() * counts.sum()
        count = count + counts.sum()
    return total / count

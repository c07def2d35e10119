"""Sensitivity without data: how far rounding moves the weights themselves."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from mpq.quant.calibration import Calibration
from mpq.search.measured import MeasuredSearch


@final
class WeightError(MeasuredSearch):
    """||Q_b(W) - W||^2, summed over the weights of a unit: no audio, no gradient, seconds for a large model.

    All weights count equally, so the knapsack finds the precisions with the least total rounding error for the budget
    (reverse water-filling, if bits were continuous). It ignores how the model uses each weight.
    """

    def __init__(self, candidates: Sequence[int] = (2, 4, 8), share: str = "tensor") -> None:
        """See `MeasuredSearch`."""
        super().__init__(candidates, None, share)

    @torch.no_grad()
    def _measure(self, calibration: Calibration) -> Tensor:
        rows = []
        for unit in calibration.track(self.units, "Rounding errors", "weights"):
            row = torch.zeros(len(self._candidates), dtype=torch.float64)
            for site in unit.sites:
                weight = calibration.weight(site)
                stored = calibration.quantized(site, self._candidates)
                row += torch.stack([(value - weight).square().sum(dtype=torch.float64) for value in stored]).cpu()
            rows.append(row)
        return torch.stack(rows)

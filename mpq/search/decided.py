"""Searches with nothing to learn by gradient: the precisions stand before the first update."""

from typing import final

import torch
from torch import Tensor

from mpq.search.base import PrecisionSearch


class DecidedSearch(PrecisionSearch):
    """A search whose scores are known once it is bound (uniform, fixed) or has measured the model (sensitivities)."""

    @final
    def learning_rate(self) -> float:
        """Return 0: there is no parameter."""
        return 0.0

    @final
    def start_step(self, step: int, total: int) -> None:
        """Return None: the quantizers are frozen."""

    @final
    def frozen(self, step: int, total: int) -> bool:
        """Return True."""
        return True

    @final
    def probabilities(self) -> Tensor:
        """Return the assignment as one-hot rows [U, C]."""
        candidates, assignment = self.site_candidates(), self.assignment()
        columns = [candidates.index(assignment[unit.sites[0].name]) for unit in self.units]
        return torch.eye(len(candidates))[columns].to(self.sizes.device)

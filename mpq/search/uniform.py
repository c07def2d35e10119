"""Uniform precision: every searched site at the same bits."""

from typing import final

import torch
from torch import Tensor

from mpq.errors import UserError
from mpq.search.decided import DecidedSearch


@final
class UniformSearch(DecidedSearch):
    """Gives every site the target itself, which must be a whole number of bits."""

    def _start(self) -> None:
        if self.target not in range(1, 9):
            raise UserError(f"target_bits={self.target} must be a whole number from 1 to 8 for a uniform precision")

    def site_candidates(self) -> tuple[int, ...]:
        """Return the one precision."""
        return (int(self.target),)

    def scores(self) -> Tensor:
        """Return zeros [U, 1]: there is no choice."""
        return torch.zeros(len(self.units), 1)

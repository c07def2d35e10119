"""Uniform precision: every searched site at the same bits."""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from mpq.search.allocate import check_uniform
from mpq.search.base import DecidedSearch


@final
class UniformSearch(DecidedSearch):
    """Gives every site the target itself, which must be a whole number of bits."""

    @classmethod
    def check_budget(cls, target: float, settings: Mapping[str, Any]) -> None:
        """Raise UserError unless the target is a whole number from 1 to 8."""
        check_uniform(target)

    def _start(self) -> None:
        check_uniform(self.target)

    def site_candidates(self) -> tuple[int, ...]:
        """Return the one precision."""
        return (int(self.target),)

    def scores(self) -> Tensor:
        """Return zeros [U, 1]: there is no choice."""
        return torch.zeros(len(self.units), 1)

"""A given assignment: for the second of two stages, for a further pass, or written by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from mpq.errors import UserError
from mpq.search.assignment import average_bits, from_json
from mpq.search.base import DecidedSearch
from mpq.search.rules import BITS


@final
class FixedSearch(DecidedSearch):
    """Keeps the assignment it is given; its average must be within the target, unless coded bits are counted."""

    def __init__(self, assignment: Mapping[str, int] | Path | str) -> None:
        """Take an assignment, site name to bits, or the path of its JSON.

        Raises:
            UserError: the file is missing or is not an assignment.
        """
        super().__init__()
        self._given = dict(assignment) if isinstance(assignment, Mapping) else from_json(assignment)

    def _start(self) -> None:
        average = average_bits(self._given, self.sites)
        if average > self.target and self.budget_in == BITS:
            raise UserError(f"the given assignment averages {average:.6g} bits, above target_bits={self.target}")
        self.target = min(
            self.target, max(self._given.values())
        )  # a coarse one may stay below the target it was made for

    def site_candidates(self) -> tuple[int, ...]:
        """Return the bits that occur in the assignment."""
        return tuple(sorted(set(self._given.values())))

    def scores(self) -> Tensor:
        """Return 0 for each site's given bits and -inf for the others [S, C]; every site is its own unit here."""
        given = torch.tensor([self._given[site.name] for site in self.sites])
        is_given = given[:, None] == torch.tensor(self.site_candidates())
        return torch.zeros(is_given.shape).masked_fill(~is_given, -torch.inf)

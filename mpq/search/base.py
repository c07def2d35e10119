"""What every precision search is: sites and a budget in, one assignment out.

A stage calls `bind` once, `start_step` before every update, and `assignment` when `frozen` turns true or the stage
ends. Searches differ only in what they score: the assignment is always the exact knapsack over `scores`, so a uniform
precision, a given assignment, measured sensitivities and learned logits all end in the same place. Methods are abstract
or final, but for `check_budget`. Searches with nothing to learn by gradient derive from `DecidedSearch`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.quant.sites import Site
from mpq.search.allocate import allocate, check_candidates, check_target
from mpq.search.assignment import Assignment
from mpq.search.share import Unit, units


class PrecisionSearch(nn.Module, ABC):
    """Decides how many bits each searched site gets, within a target average over their parameters.

    What is decided, scored and learned is a precision a unit, U of them: a site, or the sites that `share` one. Its
    parameters and buffers travel in the state dict; `bind` must come before loading one.
    """

    share: str = "tensor"  # see mpq.search.share; a search that lets the user choose sets its own
    sites: tuple[Site, ...] = ()
    units: tuple[Unit, ...] = ()
    target: float
    seed: int
    sizes: Tensor  # the units' parameter counts [U]
    unit_of: Tensor  # each site's unit [S]

    @classmethod
    def check_budget(cls, target: float, candidates: Sequence[int] | None) -> None:
        """Refuse a target average that this search can't meet, before it is made.

        Args:
            target: average bits per weight.
            candidates: the bits that its settings name; None where they name none, and `bind` has the last word.

        Raises:
            UserError: with the range that the candidates allow.
        """
        if candidates is not None:
            check_target(target, check_candidates(candidates))

    @final
    def bind(self, sites: Sequence[Site], target: float, seed: int) -> None:
        """Take the searched sites, the target average bits per weight and the seed of whatever is drawn.

        Raises:
            UserError: no site, or a target that the candidates cannot meet.
        """
        if not sites:
            raise UserError("there is no site to search: the glob of searched layers matches no linear layer")
        self.sites, self.target, self.seed = tuple(sites), target, seed
        self.units = units(sites, self.share)
        unit_of = {site.name: number for number, unit in enumerate(self.units) for site in unit.sites}
        self.register_buffer("sizes", torch.tensor([unit.numel for unit in self.units]), persistent=False)
        self.register_buffer("unit_of", torch.tensor([unit_of[site.name] for site in sites]), persistent=False)
        self._start()
        check_target(self.target, self.site_candidates())

    @final
    def assignment(self) -> Assignment:
        """Return the assignment of the highest summed scores that meets the target (`mpq.search.allocate`).

        Raises:
            UserError: the target is below what the allowed candidates need.
        """
        scores, sizes = self.scores().detach().double().cpu().numpy(), self.sizes.cpu().numpy()
        bits = allocate(scores, sizes, self.site_candidates(), self.target)
        return {site.name: int(bits[unit]) for site, unit in zip(self.sites, self.unit_of.tolist(), strict=True)}

    @final
    def per_site(self, rows: Tensor) -> Tensor:
        """Return each site's row [S, ...] of the units' [U, ...]."""
        return rows[self.unit_of.to(rows.device)]

    @final
    def expected_bits(self) -> float:
        """Return the average bits per weight that `probabilities` expect."""
        probabilities = self.probabilities().double()
        bits = probabilities @ probabilities.new_tensor(self.site_candidates())
        return float((bits * self.sizes).sum() / self.sizes.sum())

    @final
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups: the logits at their own rate and undecayed, or nothing to learn.

        Weight decay would pull the logits together, that is, undo the choice.
        """
        parameters = list(self.parameters())
        return [{"params": parameters, "lr": self.learning_rate(), "weight_decay": 0.0}] if parameters else []

    @abstractmethod
    def _start(self) -> None:
        """Make what depends on the sites; `bind` has set the attributes above."""

    @abstractmethod
    def learning_rate(self) -> float:
        """Return the learning rate of the search's own parameters."""

    @abstractmethod
    def site_candidates(self) -> tuple[int, ...]:
        """Return the bits, C of them, ascending, that the quantizers must hold ready at each site."""

    @abstractmethod
    def start_step(self, step: int, total: int) -> Tensor | None:
        """Return the lambdas [U, C] of update `step` (from 0) of `total`, or None where the precisions stand.

        A second call for the same step returns the same values with a graph of its own, for gradient accumulation.
        """

    @abstractmethod
    def frozen(self, step: int, total: int) -> bool:
        """Return whether the precisions stand from before update `step` on, so that the quantizers can be frozen."""

    @abstractmethod
    def scores(self) -> Tensor:
        """Return what the assignment maximises the sum of [U, C]; -inf forbids a candidate at a unit."""

    @abstractmethod
    def probabilities(self) -> Tensor:
        """Return how likely each candidate now is at each unit [U, C], detached and without noise, for the logs."""


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

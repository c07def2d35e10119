"""The interface of every precision search: sites and a budget in, one assignment out.

A stage calls `bind` once, `start_step` before every update, and `assignment` when `frozen` turns true or the stage
ends. Searches differ only in their `scores`: the assignment always comes from the same knapsack over them, for a
uniform precision, a given assignment, measured sensitivities and learned logits alike. All methods except
`check_budget` are abstract or final. Searches that learn nothing by gradient derive from `DecidedSearch`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.quant.sites import Site
from mpq.search.allocate import allocate, check_candidates, check_target
from mpq.search.assignment import Assignment
from mpq.search.rules import BITS, CODED
from mpq.search.share import Unit, units


class PrecisionSearch(nn.Module, ABC):
    """Decides how many bits each searched site gets, within a target average over their parameters.

    It scores, learns and decides one precision for each of U units: a site, or the sites that `share` a precision. Its
    parameters and buffers are in the state dict; call `bind` before loading one.
    """

    share: str = "tensor"  # see mpq.search.share; set by searches that let the user choose
    sites: tuple[Site, ...] = ()
    units: tuple[Unit, ...] = ()
    target: float
    seed: int
    budget_in: str = BITS  # what `target` counts: bits of the codes, or of the codes as they are coded
    costs: Tensor  # bits that each unit takes at each candidate [U, C], whole numbers in float64; 0 until measured
    sizes: Tensor  # the units' parameter counts [U]
    unit_of: Tensor  # each site's unit [S]

    @classmethod
    def check_budget(cls, target: float, settings: Mapping[str, Any]) -> None:
        """Refuse a target average that this search can't meet, before it is bound.

        Args:
            target: average bits per weight.
            settings: the arguments of its constructor; if they name no candidates, only `bind` can check.

        Raises:
            UserError: with the range that the candidates allow.
        """
        if settings.get("candidates") is not None:
            check_target(target, check_candidates(list(settings["candidates"])))

    @final
    def bind(self, sites: Sequence[Site], target: float, seed: int, budget: str = BITS) -> None:
        """Take the searched sites, the target average bits per weight and the seed of all random draws.

        `budget`: `bits`, or `coded`, in which case `renew_costs` must be called before precisions are chosen.

        Raises:
            UserError: no site, or a target that the candidates cannot meet.
        """
        if not sites:
            raise UserError("there is no site to search: the glob of searched layers matches no linear layer")
        self.sites, self.target, self.seed, self.budget_in = tuple(sites), target, seed, budget
        self.units = units(sites, self.share)
        unit_of = {site.name: number for number, unit in enumerate(self.units) for site in unit.sites}
        self.register_buffer("sizes", torch.tensor([unit.numel for unit in self.units]), persistent=False)
        self.register_buffer("unit_of", torch.tensor([unit_of[site.name] for site in sites]), persistent=False)
        self._start()
        check_target(self.target, self.site_candidates())
        bits = torch.tensor(self.site_candidates(), dtype=torch.float64)
        costs = self.sizes[:, None] * bits * float(budget == BITS)
        self.register_buffer("costs", costs, persistent=budget == CODED)  # a resumed run goes on with the last measured

    @final
    @torch.no_grad()
    def renew_costs(self, costs: Tensor) -> None:
        """Take the bits that each site takes at each candidate [S, C] as it is now, whole numbers."""
        self.costs.zero_().index_add_(0, self.unit_of.to(self.costs.device), costs.to(self.costs))

    @final
    def assignment(self) -> Assignment:
        """Return the assignment with the highest summed score that meets the target (`mpq.search.allocate`).

        Raises:
            UserError: the target is below what the allowed candidates need.
        """
        scores, sizes = self.scores().detach().double().cpu().numpy(), self.sizes.cpu().numpy()
        costs = self.costs.cpu().numpy() if self.budget_in == CODED else None
        bits = allocate(scores, sizes, self.site_candidates(), self.target, costs)
        return {site.name: int(bits[unit]) for site, unit in zip(self.sites, self.unit_of.tolist(), strict=True)}

    @final
    def per_site(self, rows: Tensor) -> Tensor:
        """Return one row per site [S, ...] from one row per unit [U, ...]."""
        return rows[self.unit_of.to(rows.device)]

    @final
    def expected_bits(self) -> float:
        """Return the expected average bits per weight under `probabilities`, as the budget counts them."""
        return float((self.probabilities().double() * self.costs).sum() / self.sizes.sum())

    @final
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups: the logits, with their own learning rate and no weight decay, if any.

        Weight decay would pull the logits together and so undo the choice.
        """
        parameters = list(self.parameters())
        return [{"params": parameters, "lr": self.learning_rate(), "weight_decay": 0.0}] if parameters else []

    @abstractmethod
    def _start(self) -> None:
        """Create what depends on the sites; `bind` has set the attributes above."""

    @abstractmethod
    def learning_rate(self) -> float:
        """Return the learning rate of the search's own parameters."""

    @abstractmethod
    def site_candidates(self) -> tuple[int, ...]:
        """Return the C candidates (bits), ascending, that the quantizer of each site must provide."""

    @abstractmethod
    def start_step(self, step: int, total: int) -> Tensor | None:
        """Return the lambdas [U, C] of update `step` (from 0) of `total`, or None once the precisions are frozen.

        A second call for the same step returns the same values with a new graph, for gradient accumulation.
        """

    @abstractmethod
    def frozen(self, step: int, total: int) -> bool:
        """Return whether the precisions are final before update `step`, so that the quantizers can be frozen."""

    @abstractmethod
    def scores(self) -> Tensor:
        """Return the scores [U, C] whose sum the assignment maximises; -inf forbids a candidate at a unit."""

    @abstractmethod
    def probabilities(self) -> Tensor:
        """Return the current probability of each candidate at each unit [U, C], detached and without noise, to log."""


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

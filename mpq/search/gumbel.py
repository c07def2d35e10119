"""Precisions learned by gradient: Gumbel-Softmax over each site's candidates, with the budget met by construction."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from mpq.search.allocate import check_candidates
from mpq.search.base import PrecisionSearch
from mpq.search.budget import descended, log_solve, solve
from mpq.search.rules import BITS, check_descent, check_gumbel


@final
class GumbelSearch(PrecisionSearch):
    """Learns one logit per unit and candidate, with new noise at each update and a falling temperature.

    Gumbel-Softmax: Jang et al., ICLR 2017; as a search over architectures: Liu et al., DARTS, ICLR 2019. The budget's
    multiplier (`mpq.search.budget`) is ours.
    """

    logits: nn.Parameter  # [U, C], U units (mpq.search.share)
    temperature: Tensor  # of the last step started; a buffer, so that a resumed run has the same probabilities
    budget: Tensor  # likewise: the average bits that this step's probabilities have, the target once it has come down

    def __init__(
        self,
        candidates: Sequence[int] = (2, 4, 8),
        temperature: tuple[float, float] = (1.0, 0.1),
        freeze_at: float = 0.5,
        logit_learning_rate: float = 0.05,
        hard: bool = False,
        cotrain: float = 0.0,
        share: str = "tensor",
        descend: float | None = None,
        descend_from: float | None = None,
        noise: float = 1.0,
    ) -> None:
        """Set the search up.

        Args:
            candidates: bits to choose from at every site.
            temperature: at the first and at the last update of the search; geometric in between.
            freeze_at: share of the stage's updates that search, in (0, 1]; after them the precisions are frozen.
            logit_learning_rate: learning rate of the logits.
            hard: use one-hot samples in the forward pass and the soft samples' gradient (straight through); then the
                budget is met only in expectation.
            cotrain: share of the search's updates, in [0, 1), that train a uniform precision instead: one candidate,
                drawn at random, at every site. The weights learn each precision without a mixture; the logits do not
                change.
            share: which sites are decided together (`mpq.search.share`).
            descend: share of the search's updates, in (0, 1], over which the budget comes down to the target, linearly
                in bits; None holds the target from the first update. A mixture at a low budget can undo what a
                model knows before the search has learned where low precisions do little harm.
            descend_from: average bits of the first update, from the target up to the largest candidate; None is the
                largest candidate.
            noise: factor of the Gumbel noise, at least 0; 0 is DARTS' softmax without sampling. A search of few updates
                needs less than 1: its logits move by at most `logit_learning_rate` an update, and until they exceed
                the noise, most low precisions are given to sites at random.

        Raises:
            UserError: a value outside these ranges.
        """
        super().__init__()
        check_gumbel(
            candidates, temperature, freeze_at, logit_learning_rate, hard, cotrain, share, descend, descend_from, noise
        )
        self._candidates = check_candidates(candidates)
        self._noise = noise
        self._first, self._last = temperature
        self._descend = descend
        self._descend_from = self._candidates[-1] if descend_from is None else descend_from
        self.share, self._freeze_at, self._hard, self._cotrain = share, freeze_at, hard, cotrain
        self._learning_rate = logit_learning_rate

    @classmethod
    def check_budget(cls, target: float, settings: Mapping[str, Any]) -> None:
        """Raise UserError unless the candidates span the target and the budget starts no lower."""
        super().check_budget(target, settings)
        if settings.get("descend_from") is not None:
            check_descent(settings["descend_from"], target)

    def _start(self) -> None:
        if self._descend is not None:
            check_descent(self._descend_from, self.target)
        self.logits = nn.Parameter(torch.zeros(len(self.units), len(self._candidates)))
        self.register_buffer("temperature", torch.tensor(self._first, dtype=torch.float64))
        # Without a descent it is constant, and not saved: checkpoints stay as they were before there was one.
        budget = torch.tensor(float(self.target), dtype=torch.float64)
        self.register_buffer("budget", budget, persistent=self._descend is not None)

    def learning_rate(self) -> float:
        """Return the logits' learning rate."""
        return self._learning_rate

    def site_candidates(self) -> tuple[int, ...]:
        """Return the candidates."""
        return self._candidates

    def frozen(self, step: int, total: int) -> bool:
        """Return whether the search's share of the updates is over."""
        return step >= self._search_steps(total)

    def start_step(self, step: int, total: int) -> Tensor | None:
        """Return the lambdas [U, C], or None once frozen; (seed, step) seeds the noise, the same in every process."""
        last = self._search_steps(total) - 1
        progress = min(1.0, step / max(1, last))
        temperature = self._first * (self._last / self._first) ** progress
        self.temperature.fill_(temperature)
        budget = self.target
        if self._descend is not None and step < last:
            budget = descended(self._descend_from, self.target, progress / self._descend)
        self.budget.fill_(budget)
        if self.frozen(step, total):
            return None
        rng = np.random.default_rng([self.seed, step])
        noise = torch.from_numpy(self._noise * rng.gumbel(size=self.logits.shape)).to(self.logits)
        if rng.random() < self._cotrain:
            everywhere = torch.full(noise.shape[:1], int(rng.integers(noise.shape[1])), device=noise.device)
            return nn.functional.one_hot(everywhere, noise.shape[1]).to(noise)
        lambdas = solve(self.logits, self.sizes, self._bits(), budget, temperature, noise)
        if not self._hard:
            return lambdas
        chosen = nn.functional.one_hot(lambdas.argmax(dim=-1), len(self._candidates))
        return chosen + lambdas - lambdas.detach()

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Return the learned log-probabilities [U, C] at the current temperature and the target.

        At the target even while the budget is above it, since the assignment has to meet the target.
        """
        return log_solve(self.logits, self.sizes, self._bits(), self.target, self.temperature)

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """Return the softmax without noise; its expected average is the budget of the last step started."""
        return log_solve(self.logits, self.sizes, self._bits(), float(self.budget), self.temperature).exp()

    def _bits(self) -> Sequence[int] | Tensor:
        """Return the candidates, or the coded bits a weight that each unit takes at each of them [U, C]."""
        return self._candidates if self.budget_in == BITS else self.costs / self.sizes[:, None]

    def _search_steps(self, total: int) -> int:
        return max(1, round(self._freeze_at * total))

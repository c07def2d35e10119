"""Precisions learned by gradient: Gumbel-Softmax over each site's candidates, with the budget met by construction."""

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.search.allocate import check_candidates
from mpq.search.base import PrecisionSearch
from mpq.search.budget import log_solve, solve
from mpq.search.share import check_share


@final
class GumbelSearch(PrecisionSearch):
    """Learns one logit per unit and candidate, with new noise at each update and a falling temperature.

    Gumbel-Softmax: Jang et al., ICLR 2017; as a search over architectures: Liu et al., DARTS, ICLR 2019. The budget's
    multiplier (`mpq.search.budget`) is ours.
    """

    logits: nn.Parameter  # [U, C], U units (mpq.search.share)
    temperature: Tensor  # of the last step started; a buffer, so that a resumed run has the same probabilities

    def __init__(
        self,
        candidates: Sequence[int] = (2, 4, 8),
        temperature: tuple[float, float] = (1.0, 0.1),
        freeze_at: float = 0.5,
        logit_learning_rate: float = 0.05,
        hard: bool = False,
        cotrain: float = 0.0,
        share: str = "tensor",
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

        Raises:
            UserError: a value outside these ranges.
        """
        super().__init__()
        self._candidates = check_candidates(candidates)
        first, last = temperature
        if not 0 < last <= first:
            raise UserError(f"temperature={list(temperature)} must be two numbers above 0, the second no greater")
        if not 0 < freeze_at <= 1:
            raise UserError(f"freeze_at={freeze_at} must be a share of the updates above 0 and at most 1")
        if not 0 <= cotrain < 1:
            raise UserError(f"cotrain={cotrain} must be a share of the search's updates, at least 0 and below 1")
        self.share = check_share(share)
        self._first, self._last, self._freeze_at, self._hard, self._cotrain = first, last, freeze_at, hard, cotrain
        self._learning_rate = logit_learning_rate

    def _start(self) -> None:
        self.logits = nn.Parameter(torch.zeros(len(self.units), len(self._candidates)))
        self.register_buffer("temperature", torch.tensor(self._first, dtype=torch.float64))

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
        progress = min(1.0, step / max(1, self._search_steps(total) - 1))
        temperature = self._first * (self._last / self._first) ** progress
        self.temperature.fill_(temperature)
        if self.frozen(step, total):
            return None
        rng = np.random.default_rng([self.seed, step])
        noise = torch.from_numpy(rng.gumbel(size=self.logits.shape)).to(self.logits)
        if rng.random() < self._cotrain:
            everywhere = torch.full(noise.shape[:1], int(rng.integers(noise.shape[1])), device=noise.device)
            return nn.functional.one_hot(everywhere, noise.shape[1]).to(noise)
        lambdas = solve(self.logits, self.sizes, self._candidates, self.target, temperature, noise)
        if not self._hard:
            return lambdas
        chosen = nn.functional.one_hot(lambdas.argmax(dim=-1), len(self._candidates))
        return chosen + lambdas - lambdas.detach()

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Return the learned log-probabilities [U, C] at the current temperature."""
        return log_solve(self.logits, self.sizes, self._candidates, self.target, self.temperature)

    def probabilities(self) -> Tensor:
        """Return the softmax without noise; its expected average is the target."""
        return self.scores().exp()

    def _search_steps(self, total: int) -> int:
        return max(1, round(self._freeze_at * total))

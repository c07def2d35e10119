"""Precisions learned with a penalty on their size, as the first author's later public code does; for comparison.

Gumbel-Softmax without a multiplier: `lambda_l = softmax((a_l + g_l) / T)` with T along a cosine. The size enters the
loss: above a band of average bits, bits cost; below it, they pay; inside there is no term. Which side of the band a
search is on is told by the most probable precisions, not expected bits. `mpq.search.gumbel` holds the budget instead:
with a penalty all sites tend to move together (experiments/LOG.md). What the penalty does is in search.json, update by
update, as expected bits and probabilities.

Source: github.com/hanyxu/SASPG-pruning, leftovers of its quantization; see experiments/LOG.md for what is a guess.
"""

from collections.abc import Mapping, Sequence
from math import cos, pi
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from mpq.search.allocate import check_candidates
from mpq.search.base import PrecisionSearch
from mpq.search.rules import check_band, check_penalty


@final
class PenaltySearch(PrecisionSearch):
    """Learns one logit per unit and candidate under a penalty; the assignment is the most probable one if it fits.

    Above the target the base class's knapsack decides instead.
    """

    logits: nn.Parameter  # [U, C]
    temperature: Tensor  # of the last step started; a buffer, so that a resumed run has the same probabilities

    def __init__(
        self,
        candidates: Sequence[int] = (2, 4, 8),
        temperature: tuple[float, float] = (0.5, 0.01),
        freeze_at: float = 1.0,
        logit_learning_rate: float = 2e-4,
        head_start: float = 0.02,
        band: float = 0.1,
        weight: float = 0.1,
        hard_size: bool = True,
        share: str = "tensor",
    ) -> None:
        """Set the search up.

        Args:
            candidates: bits to choose from at every site.
            temperature: at the first and at the last update of the search, a cosine in between.
            freeze_at: share of the stage's updates that search, in (0, 1].
            logit_learning_rate: learning rate of the logits.
            head_start: the largest candidate's logit at the start; the others are 0.
            band: bits below the target in which there is no penalty.
            weight: of the penalty, per average bit.
            hard_size: let the penalty count one-hot samples, with the soft samples' gradient (straight through).
            share: which sites are decided together (`mpq.search.share`).

        Raises:
            UserError: a value that can't be used.
        """
        super().__init__()
        check_penalty(
            candidates, temperature, freeze_at, logit_learning_rate, head_start, band, weight, hard_size, share
        )
        self._candidates = check_candidates(candidates)
        self._first, self._last = temperature
        self._freeze_at, self._learning_rate = freeze_at, logit_learning_rate
        self._head_start, self._band, self._weight, self._hard_size = head_start, band, weight, hard_size
        self.share = share
        self._lambdas: Tensor | None = None

    @classmethod
    def check_budget(cls, target: float, settings: Mapping[str, Any]) -> None:
        """Raise UserError unless the candidates span the target and the band below it."""
        super().check_budget(target, settings)
        check_band(target, settings.get("candidates", (2, 4, 8)), settings.get("band", 0.1))

    def _start(self) -> None:
        logits = torch.zeros(len(self.units), len(self._candidates))
        logits[:, -1] = self._head_start
        self.logits = nn.Parameter(logits)
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
        temperature = self._last + 0.5 * (self._first - self._last) * (1 + cos(pi * progress))
        self.temperature.fill_(temperature)
        self._lambdas = None
        if not self.frozen(step, total):
            noise = torch.from_numpy(np.random.default_rng([self.seed, step]).gumbel(size=self.logits.shape))
            self._lambdas = torch.softmax((self.logits + noise.to(self.logits)) / temperature, dim=-1)
        return self._lambdas

    def penalty(self) -> Tensor:
        """Return the size term of the step started last: 0 inside the band, differentiable in its samples."""
        with torch.no_grad():
            now = self._average(nn.functional.one_hot(self.logits.argmax(dim=-1), len(self._candidates)).double())
        # Two decimals, as in the source, so that an average at the edge of the band counts as inside.
        sign = float(torch.round(now, decimals=2) > self.target) - float(
            torch.round(now, decimals=2) < self.target - self._band
        )
        if self._lambdas is None or sign == 0:
            return self.logits.new_zeros(())
        counted = self._lambdas
        if self._hard_size:
            counted = nn.functional.one_hot(counted.argmax(dim=-1), counted.shape[-1]) + counted - counted.detach()
        return sign * self._weight * self._average(counted)

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Return the log-probabilities [U, C]; only the largest of each unit is allowed where all of them fit."""
        scores = torch.log_softmax(self.logits.double() / self.temperature, dim=-1)
        best = nn.functional.one_hot(scores.argmax(dim=-1), scores.shape[-1]).bool()
        return scores.masked_fill(~best, -torch.inf) if self._average(best.double()) <= self.target else scores

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """Return the softmax without noise, at the temperature of the last step started."""
        return torch.softmax(self.logits / self.temperature, dim=-1).to(self.logits)

    def _search_steps(self, total: int) -> int:
        return max(1, round(self._freeze_at * total))

    def _average(self, chosen: Tensor) -> Tensor:
        """Return the average bits per weight of rows [U, C] that sum to one."""
        bits = chosen @ chosen.new_tensor(self._candidates)
        return (bits * self.sizes).sum() / self.sizes.sum()

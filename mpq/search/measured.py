"""Searches that measure how sensitive a trained model is to each precision, without training."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from mpq.errors import UserError
from mpq.quant.calibration import Calibration
from mpq.search.allocate import check_candidates
from mpq.search.base import DecidedSearch
from mpq.search.rules import check_measured


class MeasuredSearch(DecidedSearch):
    """A search whose scores are the negated sensitivities from `measure`, which a stage calls before quantizing.

    Sensitivities are measured one unit at a time and assumed to add up: the knapsack minimises their sum.
    """

    sensitivity: Tensor  # [U, C], NaN until measured

    def __init__(self, candidates: Sequence[int], utterances: int | None, share: str) -> None:
        """Take the candidates (bits), the number of training utterances to measure on, and which sites are one unit.

        `utterances` None: it needs no audio, and its calibration has no batches.

        Raises:
            UserError: a value that can't be used.
        """
        super().__init__()
        check_measured(utterances, share)
        self._candidates = check_candidates(candidates)
        self.utterances = utterances
        self.share = share

    @final
    def measure(self, calibration: Calibration) -> None:
        """Measure every unit at every candidate; the calibration's model is left unchanged.

        Raises:
            UserError: the model's outputs are not finite.
        """
        sensitivity = self._measure(calibration)
        if not sensitivity.isfinite().all():
            raise UserError("the model's outputs on the training audio are not finite: sensitivities can't be measured")
        self.sensitivity = sensitivity.double().to(self.sensitivity.device)

    @final
    def site_candidates(self) -> tuple[int, ...]:
        """Return the candidates."""
        return self._candidates

    @final
    def scores(self) -> Tensor:
        """Return the negated sensitivities [U, C].

        Raises:
            RuntimeError: nothing has been measured yet.
        """
        if self.sensitivity.isnan().any():
            raise RuntimeError("call `measure` first")
        return -self.sensitivity

    @final
    def _start(self) -> None:
        unknown = torch.full((len(self.units), len(self._candidates)), torch.nan, dtype=torch.float64)
        self.register_buffer("sensitivity", unknown)

    @abstractmethod
    def _measure(self, calibration: Calibration) -> Tensor:
        """Return the cost of each candidate at each unit [U, C], not negative; leave `calibration` unchanged."""

"""Searches that measure how sensitive a trained model is to each precision, without an update."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from mpq.errors import UserError
from mpq.quant.calibration import Calibration
from mpq.search.allocate import check_candidates
from mpq.search.base import DecidedSearch
from mpq.search.share import check_share


class MeasuredSearch(DecidedSearch):
    """A search whose scores are minus the sensitivities that `measure` finds; a stage calls it before quantizing.

    Sensitivities are taken one unit at a time and add up: the knapsack minimises their sum.
    """

    sensitivity: Tensor  # [U, C], NaN until measured

    def __init__(self, candidates: Sequence[int], utterances: int | None, share: str) -> None:
        """Take the candidates (bits), how many training utterances to measure on, and who shares a precision.

        `utterances` None: it hears nothing, and its calibration has no batches.

        Raises:
            UserError: a value that can't be used.
        """
        super().__init__()
        if utterances is not None and utterances < 1:
            raise UserError(f"utterances={utterances} must be at least 1: sensitivities are measured on them")
        self._candidates = check_candidates(candidates)
        self.utterances = utterances
        self.share = check_share(share)

    @final
    def measure(self, calibration: Calibration) -> None:
        """Measure every unit at every candidate; the calibration's model is in the end what it was.

        Raises:
            UserError: the model's outputs are not finite.
        """
        sensitivity = self._measure(calibration)
        if not sensitivity.isfinite().all():
            raise UserError("the model gives infinite outputs on the training audio: no sensitivity can be measured")
        self.sensitivity = sensitivity.double().to(self.sensitivity.device)

    @final
    def site_candidates(self) -> tuple[int, ...]:
        """Return the candidates."""
        return self._candidates

    @final
    def scores(self) -> Tensor:
        """Return minus the sensitivities [U, C].

        Raises:
            RuntimeError: nothing was measured yet.
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
        """Return what each candidate costs at each unit [U, C], not negative; `calibration` is left as it was."""

"""Another budget from what a finished search learned, with no model at hand."""

from collections.abc import Sequence

import numpy as np
import torch

from mpq.errors import UserError
from mpq.record.search import StageSearch
from mpq.search.allocate import allocate, check_target
from mpq.search.assignment import Assignment
from mpq.search.budget import log_solve


def reassign(stages: Sequence[StageSearch], target: float) -> Assignment:
    """The assignment of at most `target` bits on average that the last search among `stages` prefers.

    Learned logits are scored as at the search's end, by their probabilities under the new budget; measured
    sensitivities as they are.

    Raises: UserError where no stage learned anything, or the target is outside what its candidates allow.
    """
    searched = [stage for stage in stages if stage.logits or stage.sensitivity]
    if not searched:
        raise UserError("this run searched no precisions, so there is no other budget to derive: take a one-stage run")
    stage = searched[-1]
    check_target(target, stage.candidates)
    if stage.logits:
        logits, sizes = torch.tensor(stage.logits, dtype=torch.float64), torch.tensor(stage.parameters)
        scores = log_solve(logits, sizes, stage.candidates, target, stage.temperature or 1.0).numpy()
    else:
        scores = -np.array(stage.sensitivity)
    bits = allocate(scores, np.array(stage.parameters), stage.candidates, target)
    return {name: int(b) for name, b in zip(stage.sites, bits, strict=True)}

"""The networks that share their weights with the mixture in every update of a search.

Each is the same model at other precisions: one precision at every site, an assignment drawn at random, or full
precision. Weights that are trained at every precision can be read at any budget afterwards (scripts/rebudget.py). All
get the same loss: the task's own and the divergence from full precision, which is the frozen teacher or the model
itself without quantizers. One-shot supernets with such a "sandwich" of networks: Yu and Huang, ICCV 2019
(arXiv 1903.05134); for speech: arXiv 2406.10160.

An update's gradient is the sum over its networks. They run one after the other and each graph is freed before the next
network runs, so an update needs the memory of one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mpq.data.dataset import Batch
from mpq.models.speech import SpeechModel
from mpq.quant.quantizer import FLOAT_BITS
from mpq.search.assignment import Assignment
from mpq.search.base import PrecisionSearch
from mpq.search.budget import log_solve
from mpq.train.loss import Loss, Share
from mpq.train.precisions import Precisions
from mpq.train.rules import RANDOM, TRAINED, check_shared


@dataclass(frozen=True)
class Shared:
    """Which networks are trained beside the mixture; the defaults are those of `conf/recipe/one_stage_shared.yaml`.

    networks: bits of a candidate for one precision at every site, or `random` for an assignment drawn at each update,
    its average uniform between the lowest and the highest candidate. each_update: how many of them, drawn at random;
    None: all. full_precision: `frozen` measures the divergence from the teacher, `trained` from the student without
    quantizers, which then is a network of each update, trained on the task alone.

    Raises: UserError for an invalid value.
    """

    networks: tuple[int | str, ...]
    each_update: int | None = None
    full_precision: Literal["frozen", "trained"] = "frozen"

    def __post_init__(self) -> None:
        check_shared(self.networks, self.each_update, self.full_precision)


class SharedUpdate:
    """Adds the gradients of the networks beside the mixture to those of an update."""

    def __init__(self, settings: Shared, precisions: Precisions, student: SpeechModel, loss: Loss) -> None:
        self._settings = settings
        self._precisions = precisions
        self._student = student
        self._loss = loss

    def add(
        self, batch: Batch, share: Share | None, step: int, backward: Callable[[Tensor], None]
    ) -> tuple[Tensor | None, Mapping[str, Tensor]]:
        """Give `backward` the loss of each network of update `step` on `batch`; return targets and parts to log.

        The targets `[batch, positions, vocabulary]` are also those of the mixture, which the quantizers are left at.
        """
        targets, told = None, {}
        trained = self._settings.full_precision == TRAINED
        for name, network in self._networks(step):
            self._precisions.use(network)
            outputs = self._student.logits(batch.inputs, batch.lengths, batch.labels)
            if targets is None and not trained:
                targets = self._loss.targets(batch, outputs.shape[1])
            loss, parts = self._loss.of(self._student, batch, outputs, targets, share)
            backward(loss)
            if network == FLOAT_BITS:
                targets = outputs.detach()
            told |= {f"{name}/{part}": value for part, value in parts.items()}
        self._precisions.use(None)
        return targets, told

    def _networks(self, step: int) -> Iterator[tuple[str, Assignment | int]]:
        """Yield a name for logs and the precisions of each network of update `step`, full precision first."""
        search, names = self._precisions.search, self._settings.networks
        rng = np.random.default_rng([search.seed, step, 1])  # the search's own noise has the seed without the 1
        if self._settings.full_precision == TRAINED:
            yield f"{FLOAT_BITS}bit", FLOAT_BITS
        count = len(names) if self._settings.each_update is None else self._settings.each_update
        for number in sorted(rng.choice(len(names), count, replace=False)):
            bits = names[number]
            yield (RANDOM, drawn(search, rng)) if isinstance(bits, str) else (f"{bits}bit", bits)


def drawn(search: PrecisionSearch, rng: np.random.Generator) -> Assignment:
    """Return a random assignment whose average is uniform between the search's lowest and highest candidate.

    Each unit draws from the probabilities of least information with this average (`mpq.search.budget` on equal scores).
    """
    candidates, sizes = search.site_candidates(), search.sizes.cpu()
    noise = torch.from_numpy(rng.gumbel(size=(len(sizes), len(candidates))))
    target = rng.uniform(candidates[0], candidates[-1])
    chosen = (log_solve(torch.zeros_like(noise), sizes, candidates, target, 1.0) + noise).argmax(dim=1)
    bits = [candidates[column] for column in chosen[search.unit_of.cpu()].tolist()]
    return {site.name: b for site, b in zip(search.sites, bits, strict=True)}

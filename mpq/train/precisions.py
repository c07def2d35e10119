"""Between the precision search and the quantizers: lambdas in at each update, one precision in the end."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mpq.quant.quantizer import WeightQuantizer
from mpq.record.search import Rows, Snapshot, StageSearch
from mpq.search.assignment import Assignment
from mpq.search.base import PrecisionSearch


class Precisions:
    """Sets the precisions of the searched sites' quantizers as a search wants them."""

    def __init__(self, search: PrecisionSearch, quantizers: Mapping[str, WeightQuantizer]) -> None:
        self.search = search
        self._searched = {site.name: quantizers[site.name] for site in search.sites}

    def start_step(self, step: int, total: int) -> None:
        """Hand out the mixture of update `step` of `total`, or freeze the precisions where the search has ended."""
        lambdas = None if self.search.frozen(step, total) else self.search.start_step(step, total)
        if lambdas is None:
            self.freeze()
            return
        for quantizer, row in zip(self._searched.values(), self.search.per_site(lambdas), strict=True):
            quantizer.lambdas = row

    def freeze(self, assignment: Assignment | None = None) -> None:
        """Give every site the precision of `assignment`, or what the search's allocation decides, unless it has one."""
        if self.decided:
            return
        for name, bits in (assignment or self.search.assignment()).items():
            self._searched[name].freeze(bits)

    @property
    def decided(self) -> bool:
        """Whether every site has one precision."""
        return all(quantizer.bits is not None for quantizer in self._searched.values())

    def assignment(self) -> Assignment:
        """The precision in bits of every searched site, once decided."""
        return {name: bits for name, q in self._searched.items() if (bits := q.bits) is not None}

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """What is logged: the budget, the average bits expected or decided, each site's, each unit's probabilities."""
        search = self.search
        if self.decided:
            bits = {name: float(b) for name, b in self.assignment().items()}
            average = sum(bits[site.name] * site.numel for site in search.sites) / float(search.sizes.sum())
            return {"bits/budget": float(search.target), "bits/average": average, **_prefixed("bits/site/", bits)}
        candidates, probabilities = search.site_candidates(), search.probabilities().double().cpu()
        expected = search.per_site(probabilities @ probabilities.new_tensor(candidates))
        likely = {
            f"{unit.name}/{bits}bit": float(p)
            for unit, row in zip(search.units, probabilities, strict=True)
            for bits, p in zip(candidates, row, strict=True)
        }
        sites = dict(zip(self._searched, expected.tolist(), strict=True))
        averages = {"bits/budget": float(search.target), "bits/average": search.expected_bits()}
        return {**averages, **_prefixed("bits/site/", sites), **_prefixed("probability/", likely)}


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    # Slashes for the dots of a name: W&B's patterns, which keep these hundreds of keys out of sight, pass dots by.
    return {prefix + key.replace(".", "/"): value for key, value in values.items()}


def snapshot(update: int, loss: float | None, search: PrecisionSearch | None) -> Snapshot:
    """Read the state of `search` off; None where there is nothing open any more."""
    if search is None:
        return Snapshot(update, loss)
    temperature = getattr(search, "temperature", None)
    probabilities = search.per_site(search.probabilities())
    return Snapshot(update, loss, _number(temperature), search.expected_bits(), _rows(probabilities, 5))


def describe(name: str, search: PrecisionSearch, trajectory: Sequence[Snapshot]) -> StageSearch:
    """Put together what stage `name` learned."""
    logits, sensitivity = getattr(search, "logits", None), getattr(search, "sensitivity", None)
    return StageSearch(
        name=name,
        method=type(search).__module__.rpartition(".")[2],
        candidates=tuple(search.site_candidates()),
        target=float(search.target),
        sites=tuple(site.name for site in search.sites),
        parameters=tuple(site.numel for site in search.sites),
        trajectory=tuple(trajectory),
        logits=None if logits is None else _rows(search.per_site(logits), 9),
        temperature=None if logits is None else _number(getattr(search, "temperature", None)),
        sensitivity=None if sensitivity is None else _rows(search.per_site(sensitivity), 9),
    )


def _rows(values: Tensor, digits: int) -> Rows:
    """`values` [S, C] as numbers of so many significant digits: 9 give a float32 back exactly."""
    return tuple(tuple(float(f"{value:.{digits}g}") for value in row) for row in values.detach().double().tolist())


def _number(value: Tensor | None) -> float | None:
    return None if value is None else float(value)

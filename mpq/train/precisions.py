"""Passes the decisions of a precision search to the quantizers: lambdas at each update, one precision at the end."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mpq.quant.quantizer import FLOAT_BITS, WeightQuantizer
from mpq.record.search import Rows, Snapshot, StageSearch
from mpq.search.assignment import Assignment
from mpq.search.base import PrecisionSearch
from mpq.search.rate import RateSearch

RENEWED = 20  # updates from one measurement of what codes take in the file to the next


class Precisions:
    """Sets the precisions of the searched sites' quantizers as a search decides."""

    def __init__(
        self,
        search: PrecisionSearch,
        quantizers: Mapping[str, WeightQuantizer],
        renew: Callable[[], None] | None = None,
    ) -> None:
        """Take the `search` and the quantizers by site; `renew` has the search measure anew what its budget counts.

        It is None where nothing changes: for a budget of whole bits, or a search that does not go on.
        """
        self.search = search
        self._all = list(quantizers.values())
        self._renew = renew
        self._step: int | None = None  # the update that was started last
        self._searched = {site.name: quantizers[site.name] for site in search.sites}

    def start_step(self, step: int, total: int) -> None:
        """Set the mixture for update `step` of `total`, or freeze the precisions if the search has ended.

        For each batch that the update accumulates it is called once more.
        """
        frozen = self.search.frozen(step, total)
        if step != self._step and step % RENEWED == 0 and self._renew and not frozen:
            self._renew()
        self._step = step
        lambdas = None if frozen else self.search.start_step(step, total)
        if lambdas is None:
            self.freeze()
            return
        for quantizer, row in zip(self._searched.values(), self.search.per_site(lambdas), strict=True):
            quantizer.lambdas = row

    def use(self, network: Assignment | int | None) -> None:
        """Run the next forward passes at other precisions of the searched sites, until this is called with None.

        `network`: an assignment, bits for all of them, or `FLOAT_BITS` for a model without any quantizer.
        """
        for quantizer in self._all:
            quantizer.now = FLOAT_BITS if network == FLOAT_BITS else None
        if network is not None and network != FLOAT_BITS:
            for name, quantizer in self._searched.items():
                quantizer.now = network if isinstance(network, int) else network[name]

    def freeze(self, assignment: Assignment | None = None) -> None:
        """Freeze every site at `assignment`, or else at the search's allocation, unless the precisions are decided."""
        if self.decided:
            return
        if assignment is None and self._renew:
            self._renew()
        for name, bits in (assignment or self.search.assignment()).items():
            self._searched[name].freeze(bits)

    @property
    def decided(self) -> bool:
        """Whether every site has one precision."""
        return all(quantizer.bits is not None for quantizer in self._searched.values())

    def assignment(self) -> Assignment:
        """Return the precision in bits of every searched site, once decided."""
        return {name: bits for name, q in self._searched.items() if (bits := q.bits) is not None}

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Return what to log: budget, average bits (expected or decided), bits per site, probabilities per unit.

        With learned steps all bits are what the codes take in the file.
        """
        search = self.search
        if isinstance(search, RateSearch):
            rates = dict(zip(self._searched, search.rates(), strict=True))
            average = sum(rates[site.name] * site.numel for site in search.sites) / float(search.sizes.sum())
            return {"bits/budget": search.rate, "bits/average": average, **_prefixed("bits/site/", rates)}
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
    # Slashes for dots, because W&B's patterns, which hide these hundreds of keys, don't match dots.
    return {prefix + key.replace(".", "/"): value for key, value in values.items()}


def snapshot(update: int, loss: float | None, search: PrecisionSearch | None) -> Snapshot:
    """Return a snapshot of `search`; of the loss only if `search` is None, that is, nothing is undecided."""
    if search is None:
        return Snapshot(update, loss)
    temperature = getattr(search, "temperature", None)
    probabilities = search.per_site(search.probabilities())
    return Snapshot(update, loss, _number(temperature), search.expected_bits(), _rows(probabilities, 5))


def describe(name: str, search: PrecisionSearch, trajectory: Sequence[Snapshot]) -> StageSearch:
    """Return the record of what stage `name` learned."""
    logits, sensitivity = getattr(search, "logits", None), getattr(search, "sensitivity", None)
    steps = search if isinstance(search, RateSearch) else None
    return StageSearch(
        name=name,
        method=type(search).__module__.rpartition(".")[2],
        candidates=tuple(search.site_candidates()),
        target=float(steps.rate if steps else search.target),
        sites=tuple(site.name for site in search.sites),
        parameters=tuple(site.numel for site in search.sites),
        trajectory=tuple(trajectory),
        logits=None if logits is None else _rows(search.per_site(logits), 9),
        temperature=None if logits is None else _number(getattr(search, "temperature", None)),
        sensitivity=None if sensitivity is None else _rows(search.per_site(sensitivity), 9),
        rates=steps and steps.rates(),
        zeros=steps and steps.zeros(),
    )


def _rows(values: Tensor, digits: int) -> Rows:
    """Return `values` [S, C] rounded to so many significant digits: 9 restore a float32 exactly."""
    return tuple(tuple(float(f"{value:.{digits}g}") for value in row) for row in values.detach().double().tolist())


def _number(value: Tensor | None) -> float | None:
    return None if value is None else float(value)

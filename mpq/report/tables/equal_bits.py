"""Systems of equal bits against each other, seed by seed: on the same utterances, so that 32 bits play no part.

As every `Column` of a module of columns, those of this module are available under their variable names; their function
takes a `Comparison`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

from mpq.evaluate.pooled import Pooled
from mpq.evaluate.verdict import of_runs, same_seed
from mpq.record.result import Result
from mpq.report.tables import columns
from mpq.report.tables.column import Column, mean_of
from mpq.report.tables.system import System
from mpq.report.tables.system_columns import lifted


@dataclass(frozen=True)
class Comparison:
    """Two systems of one model with equal bits; only seeds that both have are compared."""

    system: System
    other: System

    @cached_property
    def pooled(self) -> Pooled | None:
        """The word error rate of the first minus the second's, over all sets; None if their records can't be pooled."""
        verdict = of_runs(self.pairs)
        return verdict and verdict.change

    @property
    def pairs(self) -> list[tuple[Result, Result]]:
        """Their runs of the same seeds."""
        return same_seed(self.system.runs, self.other.runs)


def comparisons(systems: Sequence[System]) -> list[Comparison]:
    """Every system with each that is listed before it and has its bits, most bits first, if both were run."""
    quantized = [s for s in systems if s.bits is not None and s.runs and s.is_compressed]
    quantized.sort(key=lambda s: (-(s.bits or 0), s.activations))
    groups = [list(alike) for _, alike in groupby(quantized, key=lambda s: (s.bits, s.activations))]
    found = [Comparison(system, other) for alike in groups for n, system in enumerate(alike) for other in alike[:n]]
    return [one for one in found if one.pairs]


def _both(column: Column) -> Callable[[Comparison], str]:
    """A column of records as the means of both systems over their seeds."""
    value = lifted(column).function

    def function(comparison: Comparison) -> str:
        means = (mean_of(value(system)) for system in (comparison.system, comparison.other))
        return " against ".join("–" if mean is None else column.format(mean) for mean in means)

    return function


def _pooled(value: Callable[[Pooled], Any]) -> Callable[[Comparison], Any]:
    return lambda comparison: comparison.pooled and value(comparison.pooled)


first = Column("System", lambda c: c.system.label, "the first system")
second = Column("Against", lambda c: c.other.label, "the second")
seeds = Column("Seeds", lambda c: ", ".join(str(run.seed) for run, _ in c.pairs), "seeds that both have")
updates = Column("Updates", _both(columns.updates), "all stages' updates, of the first and of the second")
difference = replace(columns.difference, function=_pooled(lambda p: p.estimate), per_set=False)
interval = replace(columns.interval, function=_pooled(lambda p: p.interval), per_set=False)
detectable = replace(columns.detectable, function=_pooled(lambda p: p.detectable))

"""The columns of the tables over systems: columns of records pooled over the seeds, and columns that only systems have.

As in `mpq.report.tables.columns`, every `Column` of this module is available under its variable name; its function
takes a `System`, reduced to one evaluation set for columns "per set".
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mpq.report.tables import columns, paper
from mpq.report.tables.column import Column, over_seeds
from mpq.report.tables.system import AdjustedTest, System

NOT_RUN, LOSSLESS, NOT_WORSE, WORSE = "not run", "lossless", "not worse", "worse"
"""Texts of cells: no record; no significant increase on any set; none on this set; the start of "worse 1 of 2"."""


def lifted(column: Column, pool: Callable[[Sequence[Any]], Any] = over_seeds) -> Column:
    """A column of records as a column of systems: `pool` combines the values of the seeds, without None."""

    def function(system: System) -> Any:
        if not system.runs:
            return NOT_RUN
        values = [column.function(run) for run in system.runs]
        known = [value for value in values if value is not None]
        return pool(known) if known else None

    return replace(column, function=function)


def _size(column: Column) -> Column:
    """A column of bits or size; a system that was not run takes it from the tensor shapes of its model."""
    measured = lifted(column)

    def function(system: System) -> Any:
        known_from_shapes = not system.runs and system.shapes is not None
        return column.function(system.shapes) if known_from_shapes else measured.function(system)

    return replace(column, function=function)


def _seeds(system: System) -> str:
    return f"{len(system.runs)} of {len(system.seeds)}" if system.runs else NOT_RUN


def _count(worse: Callable[[AdjustedTest], bool], none: str) -> Callable[[System], str | None]:
    def function(system: System) -> str | None:
        count = sum(map(worse, system.comparisons))
        if not system.comparisons:
            return None if system.runs else NOT_RUN
        return f"{WORSE} {count} of {len(system.comparisons)}" if count else none

    return function


def _stage_seconds(system: System) -> str | None:
    """Seconds of each stage, a mean over the seeds."""
    if not system.runs:
        return NOT_RUN
    stages = dict.fromkeys(stage.name for run in system.runs for stage in run.time.stages)
    texts = []
    for name in stages:
        seconds = [s.seconds for run in system.runs for s in run.time.stages if s.name == name]
        texts.append(f"{name} {statistics.fmean(seconds):.0f}")
    return " + ".join(texts) or None


def _envelope(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _worst(value: Callable[[AdjustedTest], float]) -> Callable[[System], float | str | None]:
    def function(system: System) -> float | str | None:
        worst = max(system.comparisons, key=lambda one: one.test.z, default=None)
        return value(worst) if worst else None if system.runs else NOT_RUN

    return function


system = Column("System", lambda s: s.label, "how the model was compressed")
exp = Column("Run", lambda s: s.exp, "the name of the runs")
seeds = Column("Seeds", _seeds, "seeds recorded, of those planned")
command = Column("Command", lambda s: s.command, "runs what is missing")
average_bits = replace(_size(columns.average_bits), title="W bits")
activation_bits = replace(_size(columns.activation_bits), title="A bits")
size_mb, ideal_ratio, file_ratio = map(_size, (columns.size_mb, columns.ideal_ratio, columns.file_ratio))
paper_ratio = Column(
    "Paper",
    lambda s: paper.ratio(s.model) if paper.is_own(s.recipe, s.bits, s.activations) else None,
    "lossless compression ratio in the paper's abstract",
    format="{:.1f}".format,
    optional=True,
)
wer, cer = map(lifted, (columns.wer, columns.cer))
verdict = Column(
    "Verdict, Holm",
    _count(lambda one: one.worse, LOSSLESS),
    "comparisons significantly worse after Holm's correction",
)
alone = Column(
    "Verdict, alone",
    _count(lambda one: one.worse_alone, LOSSLESS),
    "comparisons significantly worse, without correction",
)
set_name = lifted(columns.set_name)
difference = lifted(columns.difference)
interval = lifted(columns.interval, _envelope)
largest_increase = lifted(columns.largest_increase, max)
cer_difference = lifted(columns.cer_difference)
cer_interval = lifted(columns.cer_interval, _envelope)
z = replace(columns.z, function=_worst(lambda one: one.test.z))
p = replace(columns.p, function=_worst(lambda one: one.test.p))
adjusted_p = replace(
    columns.p,
    title="p Holm",
    function=_worst(lambda one: one.adjusted),
    meaning="p corrected over the tests of the system",
)
table_p = replace(
    columns.p,
    title="p Holm, all",
    function=_worst(lambda one: one.adjusted_all),
    meaning="p corrected over all tests of the model",
)
set_verdict = replace(verdict, function=_count(lambda one: one.worse, NOT_WORSE), per_set=True)
set_alone = replace(alone, function=_count(lambda one: one.worse_alone, NOT_WORSE), per_set=True)
stages = Column("Seconds of each stage", _stage_seconds, "mean over the seeds")
seconds = lifted(columns.seconds)
processor_seconds = lifted(columns.processor_seconds)
device_seconds = lifted(columns.device_seconds)
updates, audio, peak_memory = map(lifted, (columns.updates, columns.audio, columns.peak_memory))

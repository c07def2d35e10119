"""The columns of the tables over systems: columns of records pooled over the seeds, and columns that only systems have.

As in `mpq.report.tables.columns`, every `Column` of this module is available under its variable name; its function
takes a `System`, reduced to one evaluation set for columns "per set".
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mpq.evaluate.verdict import Rate, Verdict, margins
from mpq.report.tables import columns, paper
from mpq.report.tables.column import Column, over_seeds
from mpq.report.tables.system import Against, System, Test

NOT_RUN = "not run"
"""The text of a cell without a record."""


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


def _alone(system: System) -> str | None:
    """How many of a system's tests find an increase."""
    if not system.tests:
        return None if system.runs else NOT_RUN
    return f"worse {sum(one.worse for one in system.tests)} of {len(system.tests)}"


def _verdict(
    value: Callable[[Verdict], Any], against: Against = "plain", rate: Rate = "wer"
) -> Callable[[System], Any]:
    """`value` of the verdict over the seeds; None if there is none."""

    def function(system: System) -> Any:
        verdict = system.verdict(against, rate)
        return value(verdict) if verdict else None if system.runs else NOT_RUN

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


def _worst(value: Callable[[Test], float]) -> Callable[[System], float | str | None]:
    def function(system: System) -> float | str | None:
        worst = max(system.tests, key=lambda one: one.test.z, default=None)
        return value(worst) if worst else None if system.runs else NOT_RUN

    return function


_signed = "{:+z.2f}".format

system = Column("System", lambda s: s.label, "how the model was compressed")
exp = Column("Run", lambda s: s.exp, "the name of the runs")
seeds = Column("Seeds", _seeds, "seeds recorded, of those planned")
command = Column("Command", lambda s: s.command, "runs what is missing")
average_bits = replace(_size(columns.average_bits), title="W bits")
activation_bits = replace(_size(columns.activation_bits), title="A bits")
coded_bits, zeros = map(lifted, (columns.coded_bits, columns.zeros))
packed_mb, coded_mb = map(_size, (columns.packed_mb, columns.coded_mb))
coded_file = replace(coded_mb, format="{:.3g}".format)  # where files of nearly the same size are compared
ideal_ratio, packed_ratio, coded_ratio = map(_size, (columns.ideal_ratio, columns.packed_ratio, columns.coded_ratio))
paper_ratio = Column(
    "Paper",
    lambda s: paper.ratio(s.model) if paper.is_own(s.model, s.recipe, s.bits, s.activations) else None,
    "lossless compression ratio in the paper's abstract",
    format="{:.1f}".format,
    optional=True,
)
wer, cer = map(lifted, (columns.wer, columns.cer))
verdict = Column("Verdict", _verdict(lambda v: v.word), "against 32 bits, at the stated margin")
tuned_verdict = Column(
    "Verdict, fine-tuned", _verdict(lambda v: v.word, "tuned"), "against 32 bits, fine-tuned, at the stated margin"
)
alone = Column("MAPSSWE alone", _alone, "tests of one seed on one set that find an increase at 0.05")
change = Column("Change", _verdict(lambda v: v.change.estimate), "WER minus that of 32 bits, points", "lower", _signed)
change_interval = Column(
    "95 % interval", _verdict(lambda v: v.change.interval), "of that change", format=columns.bounds
)
tuned_change = Column(
    "Change, fine-tuned", _verdict(lambda v: v.change.estimate, "tuned"), "WER minus that of 32 bits, fine-tuned",
    "lower", _signed,
)  # fmt: skip
tuned_interval = Column(
    "95 % interval, fine-tuned", _verdict(lambda v: v.change.interval, "tuned"), "of that change", format=columns.bounds
)
needs = Column(
    "No worse from", _verdict(lambda v: v.needs), "the smallest margin at which the system is no worse, % of the WER",
    "lower", "{:.1f} %".format,
)  # fmt: skip
at_margins = Column(
    f"At {', '.join(f'{m:g}' for m in margins())} %",
    _verdict(lambda v: ", ".join(map(v.at, margins()))),
    "the verdict at each of these margins",
)
set_name = lifted(columns.set_name)
difference = lifted(columns.difference)
interval = replace(columns.interval, function=_verdict(lambda v: v.change.interval))
largest_increase = replace(columns.largest_increase, function=_verdict(lambda v: columns.up_to(v.change.interval)))
detectable = replace(columns.detectable, function=_verdict(lambda v: v.change.detectable))
cer_difference = lifted(columns.cer_difference)
cer_interval = replace(columns.cer_interval, function=_verdict(lambda v: v.change.interval, rate="cer"))
z = replace(columns.z, function=_worst(lambda one: one.test.z))
p = replace(columns.p, function=_worst(lambda one: one.test.p))
stages = Column("Seconds of each stage", _stage_seconds, "mean over the seeds")
seconds = lifted(columns.seconds)
processor_seconds = lifted(columns.processor_seconds)
device_seconds = lifted(columns.device_seconds)
hardware = lifted(columns.hardware)
updates, audio, posteriors, peak_memory = map(
    lifted, (columns.updates, columns.audio, columns.posteriors, columns.peak_memory)
)

"""How much longer two stages take than one at equal average bits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mpq.report.tables import columns, paper
from mpq.report.tables.column import Column, mean_of
from mpq.report.tables.recipes import ONE_STAGE, TWO_STAGE
from mpq.report.tables.system import System
from mpq.report.tables.system_columns import NOT_RUN, lifted


@dataclass(frozen=True)
class TimeFactor:
    """A two-stage system and a one-stage system with the same bits; `paper` is the abstract's number."""

    two_stage: System
    one_stage: System
    paper: str | None


def time_factors(systems: Sequence[System]) -> list[TimeFactor]:
    """Every planned pair of a two-stage and a one-stage system with the same bits."""
    return [
        TimeFactor(two, one, paper.time_factor(two.model))
        for two in systems
        for one in systems
        if (two.method, one.method) == (TWO_STAGE, ONE_STAGE)
        and two.bits is not None
        and (two.bits, two.activations) == (one.bits, one.activations)
    ]


def _quotient(column: Column) -> Callable[[TimeFactor], float | str | None]:
    """Two-stage over one-stage, each a mean over its seeds; None if a record lacks the quantity."""
    value: Callable[[System], Any] = lifted(column).function

    def function(factor: TimeFactor) -> float | str | None:
        above, below = (mean_of(value(system)) for system in (factor.two_stage, factor.one_stage))
        if NOT_RUN in (above, below):
            return NOT_RUN
        return above / below if above and below else None

    return function


_two = "{:.2f}".format
factor = Column("Factor", lambda f: f"{f.two_stage.group} / {f.one_stage.group}", "two stages over one")
bits = Column("Bits", lambda f: f.two_stage.bits, "average bits of both", format="{:g}".format)
seconds = Column("Seconds", _quotient(columns.seconds), "quotient of wall-clock seconds", "higher", _two)
processor_seconds = Column(
    "Processor s", _quotient(columns.processor_seconds), "quotient of processor-seconds", "higher", _two
)
device_seconds = Column("Device s", _quotient(columns.device_seconds), "quotient of device-seconds", "higher", _two)
updates = Column("Updates", _quotient(columns.updates), "quotient of optimizer updates", "higher", _two)
paper_factor = Column("Paper", lambda f: f.paper, "in the paper's abstract", optional=True)

"""How far each method can compress and be no worse than 32 bits, and the factors between the methods.

"Lossless" is the paper's word. Here a system is lossless if its verdict is "no worse" (`mpq.evaluate.verdict`), against
the 32-bit model as it is or fine-tuned; "alone" is the paper's own reading, that no single MAPSSWE finds an increase.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mpq.report.tables import paper, recipes
from mpq.report.tables.column import Column
from mpq.report.tables.columns import NONE
from mpq.report.tables.recipes import ONE_STAGE, TWO_STAGE, UNIFORM
from mpq.report.tables.system import System
from mpq.report.tables.system_columns import NOT_RUN

Reading = Callable[[System], bool | None]


@dataclass(frozen=True)
class Method:
    """The systems of one group or of one method (see `mpq.report.tables.recipes`), without 32 bits."""

    name: str
    systems: tuple[System, ...]

    def best(self, reading: Reading) -> System | str | None:
        """The lossless system with the largest ideal ratio, `none`, or `not run`; None: no verdict can be reached."""
        if not any(system.runs for system in self.systems):
            return NOT_RUN
        judged = [(system, reading(system)) for system in self.systems]
        if all(lossless is None for _, lossless in judged):
            return None
        good = [system for system, lossless in judged if lossless]
        return max(good, key=_ideal, default=NONE)


@dataclass(frozen=True)
class Factor:
    """The largest lossless ratio of one method over that of another; `paper` is the abstract's number."""

    over: Method
    method: Method
    paper: str | None


def methods(systems: Sequence[System]) -> list[Method]:
    """The groups of the systems with float activations, in the order of `groups`."""
    counted, order = _counted(systems), recipes.groups()
    names = dict.fromkeys(system.group for system in counted)
    ordered = sorted(names, key=lambda name: order.index(name) if name in order else len(order))
    return [Method(name, tuple(s for s in counted if s.group == name)) for name in ordered]


def factors(systems: Sequence[System]) -> list[Factor]:
    """One-stage over uniform and over two-stage precision, each with its best recipe."""
    model = systems[0].model

    def of(method: str) -> Method:
        return Method(recipes.title(method), tuple(s for s in _counted(systems) if s.method == method))

    return [Factor(of(one), of(ONE_STAGE), paper.lossless_factor(model, one)) for one in (UNIFORM, TWO_STAGE)]


def _counted(systems: Sequence[System]) -> list[System]:
    return [system for system in systems if system.is_compressed and not system.activations]


def _plain(system: System) -> bool | None:
    return system.no_worse()


def _tuned(system: System) -> bool | None:
    return system.no_worse("tuned")


def _alone(system: System) -> bool | None:
    return system.lossless_alone


def _of_best(value: Callable[[System], Any], reading: Reading = _plain) -> Callable[[Method], Any]:
    def function(method: Method) -> Any:
        best = method.best(reading)
        return value(best) if isinstance(best, System) else best

    return function


def _divided(value: Callable[[System], float], reading: Reading = _plain) -> Callable[[Factor], float | str | None]:
    def function(factor: Factor) -> float | str | None:
        above, below = (_of_best(value, reading)(method) for method in (factor.method, factor.over))
        if NOT_RUN in (above, below):
            return NOT_RUN
        if above is None or below is None:
            return None
        return NONE if NONE in (above, below) else above / below

    return function


def _ideal(system: System) -> float:
    return statistics.fmean(run.size.ideal_ratio for run in system.runs)


def _packed(system: System) -> float:
    return statistics.fmean(run.size.packed_ratio for run in system.runs)


def _coded(method: Method) -> float | None:
    """The ratio of the best system's coded files; None unless the file of every seed is coded."""
    best = method.best(_plain)
    ratios = [run.size.coded_ratio for run in best.runs] if isinstance(best, System) else []
    known = [ratio for ratio in ratios if ratio is not None]
    return statistics.fmean(known) if known and len(known) == len(ratios) else None


def _seeds(system: System) -> str:
    return f"{len(system.runs)} of {len(system.seeds)}"


_two, _bits = "{:.2f}".format, "{:g}".format
method = Column("Method", lambda m: m.name, "the compression method")
run = Column("Systems run", lambda m: f"{sum(bool(s.runs) for s in m.systems)} of {len(m.systems)}", "of all planned")
ideal = Column("Ideal ratio", _of_best(_ideal), "the largest that is no worse than 32 bits", "higher", _two)
packed = Column("Packed ratio", _of_best(_packed), "of that system", "higher", _two)
coded = Column(
    "Coded ratio", _coded, "of that system, if the file of every seed is coded", "higher", _two, optional=True
)
bits = Column("at bits", _of_best(lambda s: s.bits), "of that system", format=_bits)
seeds = Column("Seeds", _of_best(_seeds), "of that system")
ideal_tuned = Column(
    "Ideal ratio, fine-tuned", _of_best(_ideal, _tuned), "the largest that is no worse than fine-tuned", "higher", _two
)
bits_tuned = Column("at bits, fine-tuned", _of_best(lambda s: s.bits, _tuned), "of that system", format=_bits)
ideal_alone = Column(
    "Ideal ratio, alone", _of_best(_ideal, _alone), "the largest without an increase by MAPSSWE alone", "higher", _two
)
bits_alone = Column("at bits, alone", _of_best(lambda s: s.bits, _alone), "of that system", format=_bits)
factor = Column("Factor", lambda f: f"{f.method.name} / {f.over.name}", "quotient of largest lossless ratios")
ideal_factor = Column("Ideal", _divided(_ideal), "ideal ratio / ideal ratio", "higher", _two)
packed_factor = Column("Packed", _divided(_packed), "packed ratio / packed ratio", "higher", _two)
factor_tuned = Column(
    "Ideal, fine-tuned", _divided(_ideal, _tuned), "ideal ratio / ideal ratio, against fine-tuned", "higher", _two
)
factor_alone = Column(
    "Ideal, alone", _divided(_ideal, _alone), "ideal ratio / ideal ratio, by MAPSSWE alone", "higher", _two
)
paper_factor = Column("Paper", lambda f: f.paper, "in the paper's abstract", optional=True)

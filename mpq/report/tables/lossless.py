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

CODED = "coded"
"""The table of `conf/table/` with the systems that are compared by their coded files."""
Reading = Callable[[System], bool | None]
Ratio = Callable[[System], float | None]


def _ideal(system: System) -> float:
    return statistics.fmean(run.size.ideal_ratio for run in system.runs)


def _packed(system: System) -> float:
    return statistics.fmean(run.size.packed_ratio for run in system.runs)


def _coded(system: System) -> float | None:
    return system.coded_ratio


@dataclass(frozen=True)
class Method:
    """The systems of one group or of one method (see `mpq.report.tables.recipes`), without 32 bits."""

    name: str
    systems: tuple[System, ...]

    def best(self, reading: Reading, ratio: Ratio = _ideal) -> System | str | None:
        """The lossless system with the largest ratio, `none`, or `not run`; None: no verdict can be reached.

        Systems without a ratio don't count.
        """
        if not any(system.runs for system in self.systems):
            return NOT_RUN
        sized = [(system, size) for system in self.systems if system.runs and (size := ratio(system)) is not None]
        judged = [(system, size, reading(system)) for system, size in sized]
        if all(lossless is None for _, _, lossless in judged):
            return None
        good = [(system, size) for system, size, lossless in judged if lossless]
        return max(good, key=lambda one: one[1])[0] if good else NONE


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


def with_coded_files(systems: Sequence[System]) -> list[System]:
    """The systems with a coded file for each of their seeds, the largest file first, after those at 32 bits.

    None at all, not even 32 bits, where no system has such files.
    """
    found = [(system, ratio) for system in systems if (ratio := system.coded_ratio) is not None]
    plain = [system for system in systems if not system.is_compressed] if found else []
    return [*plain, *(system for system, _ in sorted(found, key=lambda one: one[1]))]


def coded_methods(systems: Sequence[System]) -> list[Method]:
    """The groups of those systems."""
    return methods(with_coded_files(systems))


def coded_factors(systems: Sequence[System]) -> list[Factor]:
    """Each of those groups over uniform precision."""
    found = coded_methods(systems)
    over = next((one for one in found if one.systems[0].method == UNIFORM), None)
    return [Factor(over, one, None) for one in found if one is not over] if over else []


def _counted(systems: Sequence[System]) -> list[System]:
    return [system for system in systems if system.is_compressed and not system.activations]


def _plain(system: System) -> bool | None:
    return system.no_worse()


def _tuned(system: System) -> bool | None:
    return system.no_worse("tuned")


def _alone(system: System) -> bool | None:
    return system.lossless_alone


def _of_best(
    value: Callable[[System], Any], reading: Reading = _plain, ratio: Ratio = _ideal
) -> Callable[[Method], Any]:
    def function(method: Method) -> Any:
        best = method.best(reading, ratio)
        return value(best) if isinstance(best, System) else best

    return function


def _divided(value: Ratio, reading: Reading = _plain, ratio: Ratio = _ideal) -> Callable[[Factor], float | str | None]:
    def function(factor: Factor) -> float | str | None:
        above, below = (_of_best(value, reading, ratio)(method) for method in (factor.method, factor.over))
        if NOT_RUN in (above, below):
            return NOT_RUN
        if above is None or below is None:
            return None
        return NONE if NONE in (above, below) else above / below

    return function


def _coded_of_best(method: Method) -> float | None:
    best = method.best(_plain)
    return best.coded_ratio if isinstance(best, System) else None


def _bits(system: System) -> float | str:
    """The requested bits; where none were, what was."""
    return system.target if system.bits is None else system.bits


def _seeds(system: System) -> str:
    return f"{len(system.runs)} of {len(system.seeds)}"


_two, _number = "{:.2f}".format, "{:g}".format
method = Column("Method", lambda m: m.name, "the compression method")
run = Column("Systems run", lambda m: f"{sum(bool(s.runs) for s in m.systems)} of {len(m.systems)}", "of all planned")
ideal = Column("Ideal ratio", _of_best(_ideal), "the largest that is no worse than 32 bits", "higher", _two)
packed = Column("Packed ratio", _of_best(_packed), "of that system", "higher", _two)
coded = Column(
    "Coded ratio", _coded_of_best, "of that system, if the file of every seed is coded", "higher", _two, optional=True
)
bits = Column("at bits", _of_best(_bits), "of that system", format=_number)
seeds = Column("Seeds", _of_best(_seeds), "of that system")
ideal_tuned = Column(
    "Ideal ratio, fine-tuned", _of_best(_ideal, _tuned), "the largest that is no worse than fine-tuned", "higher", _two
)
bits_tuned = Column("at bits, fine-tuned", _of_best(_bits, _tuned), "of that system", format=_number)
ideal_alone = Column(
    "Ideal ratio, alone", _of_best(_ideal, _alone), "the largest without an increase by MAPSSWE alone", "higher", _two
)
bits_alone = Column("at bits, alone", _of_best(_bits, _alone), "of that system", format=_number)
largest_coded = Column(
    "Coded ratio", _of_best(_coded, ratio=_coded), "the largest that is no worse than 32 bits", "higher", _two
)
at_coded = Column("of", _of_best(lambda s: s.label, ratio=_coded), "the system with this ratio")
seeds_at_coded = Column("Seeds", _of_best(_seeds, ratio=_coded), "of that system")
factor = Column("Factor", lambda f: f"{f.method.name} / {f.over.name}", "quotient of largest lossless ratios")
ideal_factor = Column("Ideal", _divided(_ideal), "ideal ratio / ideal ratio", "higher", _two)
packed_factor = Column("Packed", _divided(_packed), "packed ratio / packed ratio", "higher", _two)
coded_factor = Column("Coded", _divided(_coded, ratio=_coded), "coded ratio / coded ratio", "higher", _two)
factor_tuned = Column(
    "Ideal, fine-tuned", _divided(_ideal, _tuned), "ideal ratio / ideal ratio, against fine-tuned", "higher", _two
)
factor_alone = Column(
    "Ideal, alone", _divided(_ideal, _alone), "ideal ratio / ideal ratio, by MAPSSWE alone", "higher", _two
)
paper_factor = Column("Paper", lambda f: f.paper, "in the paper's abstract", optional=True)

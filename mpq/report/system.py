"""A row of the three tables: one model compressed in one way, over the seeds that were planned.

A system rather than a run, because chance moves a run's word error rate by as much as systems differ: what a table says
of a system must rest on all of its seeds, and must show how many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mpq.evaluate.significance import holm
from mpq.record.result import Result, Significance
from mpq.record.shapes import Shapes
from mpq.report.columns import ALPHA, only
from mpq.report.names import label, method


@dataclass(frozen=True)
class Comparison:
    """One seed of a system on one set against 32 bits; `adjusted` is MAPSSWE's p after Holm's correction."""

    seed: int
    set_name: str
    test: Significance
    adjusted: float

    @property
    def worse(self) -> bool:
        """Whether the increase in WER is significant after Holm's correction."""
        return self.test.difference > 0 and self.adjusted < ALPHA

    @property
    def worse_alone(self) -> bool:
        """Whether it is significant as if it were the only comparison; Holm's correction never finds more."""
        return self.test.difference > 0 and self.test.p < ALPHA


@dataclass(frozen=True)
class System:
    """One row: what was planned, the records there are of it, and their comparisons with 32 bits.

    `bits` is the average asked for (None: 32 bits), `command` makes what is missing, `shapes` stands in for the size of
    a model that was not run.
    """

    exp: str
    model: str
    recipe: str
    bits: float | None
    seeds: tuple[int, ...]
    command: str = ""
    runs: tuple[Result, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    shapes: Shapes | None = None

    @property
    def label(self) -> str:
        """What the row is called: the recipe, its bits a weight, and 8-bit activations where there are any."""
        bits = [] if self.bits is None else [f"{self.bits:g} bit{'s' if self.bits != 1 else ''}"]
        return ", ".join([label(self.recipe), *bits, *([f"A8 {self.activations}"] if self.activations else [])])

    @property
    def activations(self) -> str:
        """How activations are quantized, as the run's name tells: dynamic, static, or empty for not at all."""
        return self.exp.partition("_a8_")[2]

    @property
    def method(self) -> str:
        """The method that the row belongs to."""
        return method(self.recipe)

    @property
    def lossless(self) -> bool | None:
        """Whether no seed is significantly worse on any set after Holm's correction; None: nothing was compared."""
        return not any(one.worse for one in self.comparisons) if self.comparisons else None

    @property
    def lossless_alone(self) -> bool | None:
        """The same with every comparison judged alone, without the correction."""
        return not any(one.worse_alone for one in self.comparisons) if self.comparisons else None

    def only(self, name: str) -> "System":
        """The system cut down to the evaluation set `name`."""
        kept = tuple(one for one in self.comparisons if one.set_name == name)
        return replace(self, runs=tuple(only(run, name) for run in self.runs), comparisons=kept)


def compared(systems: Sequence[System]) -> list[System]:
    """The systems with their comparisons, Holm's correction made over all of them: every system, seed and set.

    Call it with the systems of one model, the family that a claim such as "lossless at 3.5 bits" is read from.
    """
    tests = [
        (system.exp, run.seed, name, test)
        for system in systems
        for run in system.runs
        for name, test in (run.significance or {}).items()
    ]
    adjusted = holm([test.p for *_, test in tests])
    found: dict[str, list[Comparison]] = {system.exp: [] for system in systems}
    for (exp, seed, name, test), p in zip(tests, adjusted, strict=True):
        found[exp].append(Comparison(seed, name, test, p))
    return [replace(system, comparisons=tuple(found[system.exp])) for system in systems]

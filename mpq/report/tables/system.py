"""A system: one model compressed in one way, over all planned seeds, joined with the existing records.

Tables compare systems rather than runs, because a run's word error rate varies by chance as much as systems differ:
a statement about a system must use all of its seeds and show how many there are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mpq import conf
from mpq.commands import script
from mpq.errors import UserError
from mpq.evaluate.significance import holm
from mpq.record.result import Result, Significance
from mpq.record.run_folder import RunFolder, readable
from mpq.record.shapes import FILE, Shapes, read_shapes
from mpq.report.tables import recipes
from mpq.report.tables.columns import ALPHA, only
from mpq.report.tables.planned import Row, planned


@dataclass(frozen=True)
class AdjustedTest:
    """The test of one seed of a system on one set against 32 bits, with Holm's corrections.

    `adjusted` is MAPSSWE's p after Holm's correction over the comparisons of its system, `adjusted_all` over those of
    all systems of the model.
    """

    seed: int
    set_name: str
    test: Significance
    adjusted: float
    adjusted_all: float

    @property
    def worse(self) -> bool:
        """Whether the increase in WER is significant after the correction over its system's comparisons."""
        return self.test.difference > 0 and self.adjusted < ALPHA

    @property
    def worse_alone(self) -> bool:
        """Whether the increase is significant without correction, as if this were the only comparison."""
        return self.test.difference > 0 and self.test.p < ALPHA


@dataclass(frozen=True)
class System:
    """One row: the plan, its existing records, and their comparisons with 32 bits.

    `bits` is the requested average (None: 32 bits), `command` runs what is missing, and `shapes` gives the size of a
    model that was not run.
    """

    exp: str
    model: str
    recipe: str
    bits: float | None
    seeds: tuple[int, ...]
    command: str = ""
    runs: tuple[Result, ...] = ()
    comparisons: tuple[AdjustedTest, ...] = ()
    shapes: Shapes | None = None

    @property
    def label(self) -> str:
        """The name of the row: the recipe, its bits per weight, and 8-bit activations if any."""
        bits = [] if self.bits is None else [f"{self.bits:g} bit{'s' if self.bits != 1 else ''}"]
        return ", ".join([recipes.label(self.recipe), *bits, *([f"A8 {self.activations}"] if self.activations else [])])

    @property
    def activations(self) -> str:
        """How activations are quantized, according to the run's name: dynamic, static, or empty for float."""
        return self.exp.partition("_a8_")[2]

    @property
    def method(self) -> str:
        """The method that the recipe belongs to."""
        return recipes.method(self.recipe)

    @property
    def group(self) -> str:
        """The group in which it is drawn and compared: see `mpq.report.tables.recipes.group`."""
        return recipes.group(self.recipe)

    @property
    def is_compressed(self) -> bool:
        """Whether the model is compressed, that is, not the 32-bit one."""
        return recipes.is_compressed(self.recipe)

    @property
    def lossless(self) -> bool | None:
        """Whether no seed is significantly worse on any set after Holm's correction; None: nothing was compared."""
        return not any(one.worse for one in self.comparisons) if self.comparisons else None

    @property
    def lossless_alone(self) -> bool | None:
        """The same with every comparison judged alone, without the correction."""
        return not any(one.worse_alone for one in self.comparisons) if self.comparisons else None

    def only(self, name: str) -> "System":
        """The system reduced to the evaluation set `name`."""
        kept = tuple(one for one in self.comparisons if one.set_name == name)
        return replace(self, runs=tuple(only(run, name) for run in self.runs), comparisons=kept)


def compared(systems: Sequence[System]) -> list[System]:
    """The systems of one model with their comparisons and Holm's corrections.

    A verdict is corrected over the comparisons of its own system, seeds x sets, because the claim "this system is
    lossless" is about all of them. Over a whole table the correction would grow with every added row, so that a system
    could become lossless because of other rows: right for "which of these differ", wrong for "this one does not".
    """
    found = [[(run.seed, *item) for run in s.runs for item in (run.significance or {}).items()] for s in systems]
    over_all = iter(holm([test.p for tests in found for *_, test in tests]))
    made = []
    for system, tests in zip(systems, found, strict=True):
        own = holm([test.p for *_, test in tests])
        comparisons = (AdjustedTest(*test, p, next(over_all)) for test, p in zip(tests, own, strict=True))
        made.append(replace(system, comparisons=tuple(comparisons)))
    return made


SCALES = ("tiny", "mini", "paper")


def models_of(scale: str) -> list[str]:
    """The models of `scale`, those of `conf/model/`, small ones first; raises UserError for an unknown scale."""
    if scale not in SCALES:
        raise UserError(f"unknown scale {scale!r}; the scales are {', '.join(SCALES)}")
    found = [name for name in conf.names("model") if conf.model(name).get("scale") == scale]
    return sorted(found, key=lambda name: ("wav2vec2" not in name, name))


def sets_of(model: str) -> list[str]:
    """The evaluation sets that `model` is meant for: those of its data group."""
    return conf.data_of(model).get("test", [])


def load_systems(table: str, model: str, root: Path | str) -> list[System]:
    """Every system that `table` plans for `model`, with its records below `root`, most bits first in each recipe.

    Records are read only from the folders of their runs, `<root>/<exp>/seed<k>/`; records in other folders below
    `root` are ignored.

    Raises: UserError for a record or a file of sizes that can't be read.
    """
    shapes = read_shapes(Path(root) / FILE)
    grouped: dict[str, list[Row]] = {}
    for row in planned(table, model):
        grouped.setdefault(row.exp, []).append(row)
    systems = [_system(model, rows, root, shapes.get(exp)) for exp, rows in grouped.items()]
    order = list(dict.fromkeys((system.activations, system.recipe) for system in systems))
    return compared(sorted(systems, key=lambda s: (order.index((s.activations, s.recipe)), -(s.bits or 32))))


def _system(model: str, rows: list[Row], root: Path | str, shapes: Shapes | None) -> System:
    runs = tuple(_records(rows, root))
    missing = [row for row in rows if row.seed not in {run.seed for run in runs}]
    first = rows[0]
    return System(
        exp=first.exp,
        model=model,
        recipe=first.recorded_as,
        bits=first.bits if recipes.is_compressed(first.recipe) else None,
        seeds=tuple(row.seed for row in rows),
        command=_command(missing),
        runs=runs,
        shapes=shapes,
    )


def _command(missing: list[Row]) -> str:
    """The command for the rows without a record: one run, or a sweep over several seeds."""
    if not missing:
        return ""
    words = [word for word in missing[0].words if not word.startswith("seed=")]
    seeds = ",".join(str(row.seed) for row in missing)
    sweep = ["--multirun"] if len(missing) > 1 else []
    return script("run", *sweep, *words, f"seed={seeds}", "root=experiments")


def _records(rows: Iterable[Row], root: Path | str) -> Iterable[Result]:
    return readable(RunFolder(root, row.exp, row.seed) for row in rows)

"""A system: one model compressed in one way, over all planned seeds, joined with the existing records.

Tables compare systems rather than runs, because a run's word error rate varies by chance as much as systems differ:
a statement about a system must use all of its seeds and show how many there are.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mpq import conf
from mpq.commands import script
from mpq.errors import UserError
from mpq.evaluate.pooled import NO_WORSE
from mpq.evaluate.verdict import Rate, Verdict, of_runs, same_seed
from mpq.record.result import Result, Significance
from mpq.record.run_folder import RunFolder, readable
from mpq.record.shapes import FILE, Shapes, read_shapes
from mpq.report.tables import recipes
from mpq.report.tables.columns import SIGNIFICANT, judge, only
from mpq.report.tables.planned import Row, planned
from mpq.settings import run_name

Against = Literal["plain", "tuned"]
PLAIN, TUNED = "full_precision", "fine_tuned"
"""The recipes of the two baselines: 32 bits as they are, and trained further like the other systems."""


@dataclass(frozen=True)
class Test:
    """MAPSSWE of one seed of a system on one set against 32 bits."""

    seed: int
    set_name: str
    test: Significance

    @property
    def worse(self) -> bool:
        """Whether the increase in WER is significant, as if this were the only comparison."""
        return judge(self.test) == SIGNIFICANT


@dataclass(frozen=True)
class System:
    """One row: the plan, its existing records, and those of the two baselines.

    `bits` is the requested average of the bits in which codes are packed (None: 32 bits, or made for coded bits or for
    a size), `target` what was requested, as text; `command` runs what is missing, and `shapes` gives the size of a
    model that was not run. `plain` and `tuned` are the records of the 32-bit model as it is, and trained further like
    the other systems; a baseline has none of itself.
    """

    exp: str
    model: str
    recipe: str
    bits: float | None
    seeds: tuple[int, ...]
    command: str = ""
    runs: tuple[Result, ...] = ()
    shapes: Shapes | None = None
    plain: tuple[Result, ...] = ()
    tuned: tuple[Result, ...] = ()
    target: str = ""

    @property
    def label(self) -> str:
        """The name of the row: the recipe, its bits per weight or its size, and 8-bit activations if any."""
        activations = f"A8 {self.activations}" if self.activations else ""
        return ", ".join(word for word in (recipes.label(self.recipe), self.target, activations) if word)

    @property
    def coded_ratio(self) -> float | None:
        """The compression ratio of its coded files, a mean over the seeds; None unless the file of each is coded."""
        ratios = [run.size.coded_ratio for run in self.runs]
        known = [ratio for ratio in ratios if ratio is not None]
        return statistics.fmean(known) if known and len(known) == len(ratios) else None

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
    def tests(self) -> tuple[Test, ...]:
        """The significance tests of its runs against 32 bits."""
        return tuple(Test(run.seed, *item) for run in self.runs for item in (run.significance or {}).items())

    def verdict(self, against: Against = "plain", rate: Rate = "wer") -> Verdict | None:
        """The verdict over all its seeds and sets; None if it wasn't run, or its records can't be pooled.

        The plain 32-bit model is one model for all seeds, the fine-tuned one is compared seed by seed.
        """
        if against == "plain":
            return of_runs([(run, other) for run in self.runs for other in self.plain[:1]], rate)
        return of_runs(same_seed(self.runs, self.tuned), rate)

    def no_worse(self, against: Against = "plain") -> bool | None:
        """Whether it is no worse than the baseline; None: no verdict."""
        verdict = self.verdict(against)
        return None if verdict is None else verdict.word == NO_WORSE

    @property
    def lossless_alone(self) -> bool | None:
        """The paper's reading: whether no seed's test on any set finds an increase; None: nothing was compared."""
        return not any(one.worse for one in self.tests) if self.tests else None

    def only(self, name: str) -> "System":
        """The system reduced to the evaluation set `name`."""
        cut = {key: tuple(only(run, name) for run in getattr(self, key)) for key in ("runs", "plain", "tuned")}
        return replace(self, **cut)


def compared(systems: Sequence[System]) -> list[System]:
    """The systems of one model, each with the records of the two baselines."""
    found = {recipe: next((s.runs for s in systems if s.recipe == recipe), ()) for recipe in (PLAIN, TUNED)}
    return [
        replace(
            system,
            plain=() if system.recipe == PLAIN else found[PLAIN],
            tuned=() if system.recipe in (PLAIN, TUNED) else found[TUNED],
        )
        for system in systems
    ]


SCALES = ("real", "tiny", "paper")


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

    Those that are made for a size or for coded bits keep the order of the table, after the others of their recipe.

    Records are read only from the folders of their runs, `<root>/<exp>/seed<k>/`; records in other folders below
    `root` are ignored.

    Raises: UserError for a record or a file of sizes that can't be read.
    """
    shapes = read_shapes(Path(root) / FILE)
    grouped: dict[str, list[Row]] = {}
    for row in planned(table, model):
        grouped.setdefault(row.exp, []).append(row)
    where = [*_other_path(model, root), f"root={root}"]
    systems = [_system(model, rows, root, shapes.get(exp), where) for exp, rows in grouped.items()]
    order = list(dict.fromkeys((system.activations, system.recipe) for system in systems))
    return compared(sorted(systems, key=lambda s: (order.index((s.activations, s.recipe)), -(s.bits or 0))))


def _system(model: str, rows: list[Row], root: Path | str, shapes: Shapes | None, where: Sequence[str]) -> System:
    runs = tuple(_records(rows, root))
    missing = [row for row in rows if row.seed not in {run.seed for run in runs}]
    first = rows[0]
    return System(
        exp=first.exp,
        model=model,
        recipe=first.recorded_as,
        bits=first.packed_bits,
        seeds=tuple(row.seed for row in rows),
        command=_command(missing, where),
        runs=runs,
        shapes=shapes,
        target=first.target,
    )


def _other_path(model: str, root: Path | str) -> list[str]:
    """The word for the model's path, where the record of its 32-bit model below `root` has another than `conf/model`.

    Runs are compared with that record.
    """
    declared = conf.model(model)["path"]
    baseline = RunFolder(root, run_name(model, conf.recipe(PLAIN)["infix"], 32), 0)
    path = baseline.settings().get("model.path", declared)
    return [f"model.path={path}"] if path != declared else []


def _command(missing: list[Row], where: Sequence[str]) -> str:
    """The command for the rows without a record, with the words `where`: one run, or a sweep over several seeds."""
    if not missing:
        return ""
    words = [word for word in missing[0].words if not word.startswith("seed=")]
    seeds = ",".join(str(row.seed) for row in missing)
    sweep = ["--multirun"] if len(missing) > 1 else []
    return script("run", *sweep, *words, f"seed={seeds}", *where)


def _records(rows: Iterable[Row], root: Path | str) -> Iterable[Result]:
    return readable(RunFolder(root, row.exp, row.seed) for row in rows)

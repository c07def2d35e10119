"""The systems of a model: what a table plans, joined with the records there are."""

from collections.abc import Iterable
from pathlib import Path

from mpq import conf
from mpq.errors import UserError
from mpq.record.records import folder, read_record
from mpq.record.result import Result
from mpq.record.shapes import FILE, Shapes, read_shapes
from mpq.report.names import LABELS
from mpq.report.rows import Row, planned
from mpq.report.system import System, compared

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

    A record is looked for where its run leaves it, `<root>/<exp>/seed<k>/`; so the records of other folders below
    `root` have no part in the tables.

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
        recipe=_recipe(first),
        bits=None if first.recipe == "full_precision" else first.bits,
        seeds=tuple(row.seed for row in rows),
        command=_command(missing),
        runs=runs,
        shapes=shapes,
    )


def _recipe(row: Row) -> str:
    """The recipe's whole name, which for rounding tells of the clipping: the run's name without model and bits."""
    infix = row.exp.removeprefix(f"{row.model}_").partition(f"_{row.bits:g}bit".replace(".", "p"))[0]
    return infix if infix in LABELS else row.recipe


def _command(missing: list[Row]) -> str:
    """What to type for the rows that have no record: one command, over several seeds a sweep."""
    if not missing:
        return ""
    words = [word for word in missing[0].words if not word.startswith("seed=")]
    seeds = ",".join(str(row.seed) for row in missing)
    sweep = ["--multirun"] if len(missing) > 1 else []
    return " ".join(["python scripts/run.py", *sweep, *words, f"seed={seeds}", "root=experiments"])


def _records(rows: Iterable[Row], root: Path | str) -> Iterable[Result]:
    for row in rows:
        path = folder(root, row.exp, row.seed) / "result.json"
        if path.is_file():
            yield read_record(path)

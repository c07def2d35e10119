"""The table of word error rates against updates: the systems, and one stage beside two of more updates."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from mpq.conf import CONF
from mpq.record.result import Result
from mpq.report import columns
from mpq.report.caption import data_line
from mpq.report.column import Column
from mpq.report.fewer_updates import ALL, TABLE, Change, compare_updates
from mpq.report.load import load_tables
from mpq.report.names import label
from mpq.report.parts import Block
from mpq.report.system_table import SystemTable
from mpq.report.systems import load_systems, models_of
from mpq.report.table import Sheet

_UPDATES = Column("Updates", lambda c: f"{c.updates} against {c.others}", "of one stage, of both stages together")
_RECIPE = Column("System", lambda c: label(c.recipe), "one stage in one of its recipes")
_SEED = Column("Seed", lambda c: c.seed, "of both runs")
_CHANGE = (
    Column("Set", lambda c: c.set_name, "the evaluation set"),
    replace(columns.difference, function=lambda c: c.difference),
    replace(columns.interval, function=lambda c: c.interval),
    replace(columns.largest_increase, function=lambda c: max(0.0, c.interval[1])),
)
_TEST = (
    replace(columns.p, function=lambda c: c.p),
    replace(columns.p, title="p Holm", function=lambda c: c.adjusted),
)
_NOTE = (
    "Below 0 one stage is better than two stages. Intervals: paired bootstrap, 95 %, which draws "
    "speakers and takes the seeds as they are. p: MAPSSWE; p Holm: over the seeds and sets of the same updates."
)


def updates_sheet(scale: str, root: Path | str) -> Sheet | None:
    """The table of every model of `scale` that has runs to compare, and its comparisons; None where none has.

    Raises: UserError for a record that can't be read.
    """
    (table,) = load_tables(TABLE, CONF / "table")
    assert isinstance(table, SystemTable)
    blocks: list[Block] = []
    runs: list[Result] = []
    for model in models_of(scale):
        systems = load_systems(TABLE, model, root)
        if changes := list(compare_updates(systems, root)):
            runs += [run for system in systems for run in system.runs]
            sets = list(dict.fromkeys(name for run in runs for name in run.wer))
            blocks += [part.build(systems, sets, model) for part in table.parts]
            blocks += _comparisons(model, changes)
    return (
        Sheet(f"{table.title} (scale {scale})", tuple(blocks), (*table.notes, _NOTE, data_line(runs))) if runs else None
    )


def _comparisons(model: str, changes: Sequence[Change]) -> Iterator[Block]:
    """What is pooled over the seeds, and, folded, each seed."""
    title = "One stage against two stages of more updates"
    for pooled in (True, False):
        shown = (_RECIPE, _UPDATES, *_CHANGE) if pooled else (_RECIPE, _UPDATES, _SEED, *_CHANGE, *_TEST)
        rows = [[column.function(c) for column in shown] for c in changes if (c.seed == ALL) == pooled]
        frame = pd.DataFrame(rows, columns=[column.title for column in shown], dtype=object)
        if rows:
            part = f"{title}, {'all seeds' if pooled else 'each seed'}"
            yield Block(part, shown, frame, grouped=False, model=model, folded=not pooled)

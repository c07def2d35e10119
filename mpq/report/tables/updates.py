"""Word error rate against updates (`conf/table/updates.yaml`), and one stage against two, at equal and at more updates.

One stage and two stages are compared with each other directly rather than through 32 bits: on the same utterances, seed
by seed, so that the difficulty of an utterance cancels out. Three seeds on one utterance are not three utterances, so
values pooled over seeds have no MAPSSWE, only the interval over speakers and seeds (`mpq.evaluate.pooled`). The same
number of updates for both comes first: at equal cost, only the method differs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mpq import conf
from mpq.evaluate.mapsswe import segment_errors, z_test
from mpq.evaluate.pooled import Pooled
from mpq.evaluate.verdict import of_runs, same_seed
from mpq.record.hypotheses import has_hypotheses, read_hypotheses, read_references
from mpq.record.result import Result
from mpq.record.run_folder import RunFolder, references_file
from mpq.report.tables import columns
from mpq.report.tables.captions import data_line
from mpq.report.tables.column import Column
from mpq.report.tables.parts import Block
from mpq.report.tables.recipes import ONE_STAGE, TWO_STAGE, label
from mpq.report.tables.system import System, load_systems, models_of
from mpq.report.tables.tables import Sheet, SystemTable, load_tables

_Pair = tuple[str, int, int]  # recipe, updates, two stages' updates
TABLE = "updates"
ALL = "all"  # sets, seeds
_RATIOS = (1, 1.5, 2)  # updates of two stages over those of one: the same cost first, then as in the recipes, and twice


@dataclass(frozen=True)
class Change:
    """`recipe` with `updates` against two stages with `others`: `pooled` is the WER of the first minus the second.

    seed, set_name: a seed and an evaluation set, or `all` of them. p is MAPSSWE's, None if pooled over seeds or without
    transcripts.
    """

    recipe: str
    updates: int
    others: int
    seed: str
    set_name: str
    pooled: Pooled
    p: float | None = None


def total_updates(system: System) -> int:
    """The total updates of all stages, from the system's first record."""
    return sum(stage.updates for stage in system.runs[0].time.stages)


def is_curve(systems: Sequence[System]) -> bool:
    """Whether any recipe has records with different numbers of updates."""
    found = {(system.recipe, total_updates(system)) for system in systems if system.runs}
    return len(found) > len({recipe for recipe, _ in found})


def compare_updates(systems: Sequence[System], root: Path | str) -> Iterator[Change]:
    """Every one-stage system against the two-stage systems with 1, 1.5 and 2 times its updates, if both were run.

    Only seeds that both have are compared.

    Raises: UserError for a file that can't be read, or that lacks utterances of the other file.
    """
    run = [system for system in systems if system.runs]
    for ratio in _RATIOS:
        for system in (system for system in run if system.method == ONE_STAGE):
            for other in (other for other in run if other.method == TWO_STAGE):
                counts = total_updates(system), total_updates(other)
                if counts[1] / counts[0] == ratio:
                    yield from _changes((system.recipe, *counts), system, other, root)


def _changes(pair: _Pair, system: System, other: System, root: Path | str) -> Iterator[Change]:
    """The changes of each seed and set, then over all sets, over all seeds, and over both."""
    runs = same_seed(system.runs, other.runs)
    sets = list(dict.fromkeys(name for mine, _ in runs for name in mine.wer))
    tests = {mine.seed: _differences(mine, theirs, root) for mine, theirs in runs}
    for chosen in (*([one] for one in runs), runs):
        for name in (*sets, ALL):
            cut = [(_only(mine, name), _only(theirs, name)) for mine, theirs in chosen]
            if verdict := of_runs(cut):
                seed = str(chosen[0][0].seed) if chosen is not runs else ALL
                segments = tests[chosen[0][0].seed] if chosen is not runs else {}
                found = list(segments.values()) if name == ALL else [segments[name]] if name in segments else []
                p = z_test(np.concatenate(found)).p if found else None
                yield Change(*pair, seed, name, verdict.change, p)


def _only(run: Result, name: str) -> Result:
    return run if name == ALL else columns.only(run, name)


def _differences(mine: Result, theirs: Result, root: Path | str) -> dict[str, np.ndarray]:
    """The difference in errors of each MAPSSWE segment, for each set; none without transcripts."""
    paths = [RunFolder.of(root, run).hypotheses for run in (mine, theirs)]
    if not all(map(has_hypotheses, paths)):
        return {}
    said = read_references(references_file(root, mine.references))
    first, second = map(read_hypotheses, paths)
    return {
        name: np.subtract(*segment_errors({key: said[name][key] for key in texts}, texts, second[name]))
        for name, texts in first.items()
    }


_UPDATES = Column(
    "Updates", lambda c: f"{c.updates} against {c.others}", "of one stage, against the total of two stages"
)
_RECIPE = Column("System", lambda c: label(c.recipe), "the one-stage recipe")
_SEED = Column("Seed", lambda c: c.seed, "the seed of both runs")
_CHANGE = (
    Column("Set", lambda c: c.set_name, "the evaluation set"),
    replace(columns.difference, function=lambda c: c.pooled.estimate),
    replace(columns.interval, function=lambda c: c.pooled.interval),
    replace(columns.detectable, function=lambda c: c.pooled.detectable),
)
_TEST = replace(columns.p, function=lambda c: c.p)
_NOTE = (
    "A WER change below 0 means that one stage is better than two stages. Intervals: 95 %, over speakers and seeds, "
    "seed against seed; an interval that holds 0 shows no difference, and “Detectable” is the smallest that these sets "
    "and seeds would have shown with a probability of 80 %. p: MAPSSWE, without correction."
)


def updates_sheet(scale: str, root: Path | str) -> Sheet | None:
    """The table and the comparisons of every model of `scale` that has runs to compare; None if none has.

    Raises: UserError for a record that can't be read.
    """
    (table,) = load_tables(TABLE, conf.folder("table"))
    assert isinstance(table, SystemTable)
    blocks: list[Block] = []
    runs: list[Result] = []
    for model in models_of(scale):
        systems = load_systems(TABLE, model, root)
        if changes := list(compare_updates(systems, root)):
            runs += [run for system in systems for run in system.runs]
            sets = list(dict.fromkeys(name for run in runs for name in run.wer))
            blocks += _comparisons(model, changes)
            blocks += [part.build(systems, sets, model) for part in table.parts]
    return (
        Sheet(f"{table.title} (scale {scale})", tuple(blocks), (*table.notes, _NOTE, data_line(runs))) if runs else None
    )


def _comparisons(model: str, changes: Sequence[Change]) -> Iterator[Block]:
    """Equal updates first; of each, the comparisons pooled over the seeds and, folded, those of each seed."""
    for title, alike in (("as many updates", True), ("more updates", False)):
        for pooled in (True, False):
            shown = (_RECIPE, _UPDATES, *_CHANGE) if pooled else (_RECIPE, _UPDATES, _SEED, *_CHANGE, _TEST)
            chosen = [c for c in changes if (c.seed == ALL) == pooled and (c.updates == c.others) == alike]
            rows = [[column.function(c) for column in shown] for c in chosen]
            frame = pd.DataFrame(rows, columns=[column.title for column in shown], dtype=object)
            if rows:
                part = f"One stage against two stages of {title}, {'all seeds' if pooled else 'each seed'}"
                yield Block(part, shown, frame, grouped=False, model=model, folded=not pooled)

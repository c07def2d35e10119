"""Word error rate against updates (`conf/table/updates.yaml`), and one stage against two stages with more updates.

One stage and two stages are compared with each other directly rather than through 32 bits: on the same utterances, seed
by seed, so that the difficulty of an utterance cancels out. Three seeds on one utterance are not three utterances, so
values pooled over seeds have no MAPSSWE, only the interval of the bootstrap, which resamples whole speakers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mpq import conf
from mpq.evaluate.bootstrap import difference_interval
from mpq.evaluate.mapsswe import segment_errors, z_test
from mpq.evaluate.significance import holm
from mpq.evaluate.wer import word_errors_per_utterance
from mpq.record.hypotheses import Texts, has_hypotheses, read_hypotheses, read_references
from mpq.record.result import Result
from mpq.record.run_folder import RunFolder, references_file
from mpq.report.tables import columns
from mpq.report.tables.captions import data_line
from mpq.report.tables.column import Column
from mpq.report.tables.parts import Block
from mpq.report.tables.recipes import ONE_STAGE, TWO_STAGE, label
from mpq.report.tables.system import System, load_systems, models_of
from mpq.report.tables.tables import Sheet, SystemTable, load_tables

_Three = tuple[Texts, Texts, Texts]
_Pair = tuple[str, int, int]  # recipe, updates, two stages' updates
TABLE = "updates"
ALL = "all"  # sets, seeds
_RATIOS = (1.5, 2)  # updates of two stages over those of one: as in the recipes, and twice as many


@dataclass(frozen=True)
class _Count:
    """One stage minus two stages on one set and seed: the counts that are pooled over sets and seeds.

    more, words, speakers: `[utterances]`, difference in errors, reference words, speaker. segments: `[segments]`,
    difference in errors of each MAPSSWE segment.
    """

    more: np.ndarray
    words: np.ndarray
    speakers: np.ndarray
    segments: np.ndarray


@dataclass(frozen=True)
class Change:
    """`recipe` with `updates` against two stages with `others`: WER of the first minus the second, percentage points.

    seed, set_name: a seed and an evaluation set, or `all` of them. p is MAPSSWE's, `adjusted` its Holm correction over
    the seeds and sets of these two systems. Both are None if pooled over seeds, `adjusted` also if pooled over sets.
    """

    recipe: str
    updates: int
    others: int
    seed: str
    set_name: str
    difference: float
    interval: tuple[float, float]
    p: float | None = None
    adjusted: float | None = None


def total_updates(system: System) -> int:
    """The total updates of all stages, from the system's first record."""
    return sum(stage.updates for stage in system.runs[0].time.stages)


def is_curve(systems: Sequence[System]) -> bool:
    """Whether any recipe has records with different numbers of updates."""
    found = {(system.recipe, total_updates(system)) for system in systems if system.runs}
    return len(found) > len({recipe for recipe, _ in found})


def compare_updates(systems: Sequence[System], root: Path | str) -> Iterator[Change]:
    """Every one-stage system against the two-stage systems with 1.5 and 2 times its updates, if both were run.

    Only seeds with the hypotheses of both are compared.

    Raises: UserError for a file that can't be read, or that lacks utterances of the other file.
    """
    for system in systems:
        if not system.runs or system.method != ONE_STAGE:
            continue
        for other in systems:
            if other.runs and other.method == TWO_STAGE:
                counts = total_updates(system), total_updates(other)
                if counts[1] / counts[0] in _RATIOS:
                    yield from _changes((system.recipe, *counts), _texts(system, other, root))


def _texts(system: System, other: System, root: Path | str) -> dict[int, _Three]:
    """Seed -> references, hypotheses of `other`, and hypotheses of `system`."""
    found = {}
    for mine in system.runs:
        for theirs in other.runs:
            paths = [RunFolder.of(root, run).hypotheses for run in (theirs, mine)]
            if mine.seed == theirs.seed and all(map(has_hypotheses, paths)):
                said = read_references(references_file(root, mine.references))
                written = [read_hypotheses(path) for path in paths]
                references = {name: {key: said[name][key] for key in texts} for name, texts in written[1].items()}
                found[mine.seed] = (references, *written)
    return found


def _changes(pair: _Pair, texts: dict[int, _Three]) -> Iterator[Change]:
    """The changes of each seed and set, then pooled over all sets, over all seeds, and over both."""
    sets = list(dict.fromkeys(name for said, _, _ in texts.values() for name in said))
    found = {(seed, name): _count(*(part[name] for part in texts[seed])) for seed in texts for name in sets}
    single = [_change(pair, str(seed), name, [count]) for (seed, name), count in found.items()]
    adjusted = holm([change.p for change in single if change.p is not None])
    yield from (replace(change, adjusted=p) for change, p in zip(single, adjusted, strict=True))
    for seed in texts:
        yield _change(pair, str(seed), ALL, [found[seed, name] for name in sets])
    for name in sets:
        yield _change(pair, ALL, name, [found[seed, name] for seed in texts])
    if texts:
        yield _change(pair, ALL, ALL, list(found.values()))


def _count(said: Mapping[str, str], theirs: Mapping[str, str], mine: Mapping[str, str]) -> _Count:
    errors, words = word_errors_per_utterance(said, mine)
    return _Count(
        more=errors - word_errors_per_utterance(said, theirs)[0],
        words=words,
        speakers=np.array([key.partition("-")[0] for key in said]),  # LibriSpeech's identities
        segments=np.subtract(*segment_errors(said, mine, theirs)),
    )


def _change(pair: _Pair, seed: str, set_name: str, parts: Sequence[_Count]) -> Change:
    """The change over all `parts` together, with MAPSSWE's p if they belong to one seed."""
    more, words, speakers, segments = (
        np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(_Count)
    )
    difference = 100.0 * float(more.sum()) / float(words.sum())
    p = None if seed == ALL else z_test(segments).p
    return Change(*pair, seed, set_name, difference, difference_interval(more, words, speakers), p)


_UPDATES = Column(
    "Updates", lambda c: f"{c.updates} against {c.others}", "of one stage, against the total of two stages"
)
_RECIPE = Column("System", lambda c: label(c.recipe), "the one-stage recipe")
_SEED = Column("Seed", lambda c: c.seed, "the seed of both runs")
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
    "A WER change below 0 means that one stage is better than two stages. Intervals: 95 %, paired bootstrap that "
    "resamples speakers and keeps the seeds. p: MAPSSWE; p Holm: corrected over the seeds and sets of the same updates."
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
            blocks += [part.build(systems, sets, model) for part in table.parts]
            blocks += _comparisons(model, changes)
    return (
        Sheet(f"{table.title} (scale {scale})", tuple(blocks), (*table.notes, _NOTE, data_line(runs))) if runs else None
    )


def _comparisons(model: str, changes: Sequence[Change]) -> Iterator[Block]:
    """The comparisons pooled over the seeds and, folded, those of each seed."""
    title = "One stage against two stages of more updates"
    for pooled in (True, False):
        shown = (_RECIPE, _UPDATES, *_CHANGE) if pooled else (_RECIPE, _UPDATES, _SEED, *_CHANGE, *_TEST)
        rows = [[column.function(c) for column in shown] for c in changes if (c.seed == ALL) == pooled]
        frame = pd.DataFrame(rows, columns=[column.title for column in shown], dtype=object)
        if rows:
            part = f"{title}, {'all seeds' if pooled else 'each seed'}"
            yield Block(part, shown, frame, grouped=False, model=model, folded=not pooled)

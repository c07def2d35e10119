"""The verdict on a system: whether its rate is no worse than a baseline's by more than a stated margin.

A test that finds no difference does not show that there is none: fewer utterances find fewer differences. So a system
passes only if the interval of its change, pooled over all seeds, speakers and sets, ends below the margin
(non-inferiority). Tables, pictures, cards and pages all take their verdict from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mpq import conf
from mpq.evaluate.pooled import UNDECIDED, Pooled, pooled
from mpq.evaluate.units import less
from mpq.record.result import Result, Units

Rate = Literal["wer", "cer"]
_Set = tuple[Units, Mapping[str, int]]  # the units of one set, and the errors of each minus the baseline's


@dataclass(frozen=True)
class Verdict:
    """The pooled `change` of a rate against a baseline, in points, and the `baseline`'s own rate in percent."""

    change: Pooled
    baseline: float

    @property
    def word(self) -> str:
        """The verdict at the margin of `conf/verdict.yaml`."""
        return self.at(margin())

    def at(self, relative: float) -> str:
        """The verdict at a margin of `relative` percent of the baseline's rate."""
        return self.change.verdict(relative / 100.0 * self.baseline)

    @property
    def needs(self) -> float | None:
        """The margin in percent of the baseline's rate from which on the system is no worse; None without interval."""
        interval = self.change.interval
        return max(0.0, 100.0 * interval[1] / self.baseline) if interval and self.baseline else None

    def sentence(self) -> str:
        """The verdict in words, with all that it rests on."""
        pool, seeds = self.change, f"{self.change.seeds} seed{'s' if self.change.seeds != 1 else ''}"
        if pool.interval is None:
            return f"{pool.estimate:+z.2f} points; no interval ({pool.missing}), so {UNDECIDED}"
        low, high = pool.interval
        within = f"{margin():g} % of the baseline's WER, {margin() / 100 * self.baseline:.2f} points"
        return (
            f"{pool.estimate:+z.2f} points, 95 % interval [{low:+z.2f}, {high:+z.2f}] over {pool.units} "
            f"{'speakers' if pool.by_speaker else 'utterances'} and {seeds}: {self.word} at a margin of {within}; "
            f"a difference of {pool.detectable:.2f} would have been found four times in five"
        )


def of_run(result: Result) -> Verdict | None:
    """One run against the baseline of its record, over all its sets; None if the record has no units to pool."""
    return of_seeds([result])


def of_seeds(results: Sequence[Result]) -> Verdict | None:
    """The runs of one system, one a seed, against the baselines of their records; None if one has no units to pool."""
    rows = []
    for result in results:
        sets = {}
        for name, test in (result.significance or {}).items():
            units = result.wer[name].units if name in result.wer else None
            if units is None or test.change is None:
                return None
            sets[name] = (units, test.change)
        rows.append(sets)
    return _verdict(rows)


def of_sets(sets: Mapping[str, tuple[Units, Mapping[str, int]]]) -> Verdict | None:
    """One system over `sets`: its units, and the errors of each minus the baseline's; None without words."""
    return _verdict([sets])


def of_runs(pairs: Sequence[tuple[Result, Result]], rate: Rate = "wer") -> Verdict | None:
    """Pool pairs of a system's run and a baseline's run, one pair a seed, over the sets that all of them have.

    None without pairs, or if one lacks units or transcribed other utterances.
    """
    rows = []
    for run, other in pairs:
        mine, theirs = _units(run, rate), _units(other, rate)
        row = {name: _paired(mine[name], theirs[name]) for name in mine if name in theirs}
        if not row or any(pair is None for pair in row.values()):
            return None
        rows.append(row)
    return _verdict(rows)


def same_seed(runs: Sequence[Result], others: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Pair the runs of two systems that have the same seed."""
    by_seed = {other.seed: other for other in others}
    return [(run, by_seed[run.seed]) for run in runs if run.seed in by_seed]


def margin() -> float:
    """The margin of `conf/verdict.yaml`, in percent of the baseline's rate."""
    return float(conf.read("", "verdict")["margin"])


def margins() -> list[float]:
    """That margin and the others at which tables show the verdict, smallest first."""
    return sorted({margin(), *map(float, conf.read("", "verdict")["others"])})


def _units(result: Result, rate: Rate) -> dict[str, Units | None]:
    if rate == "wer":
        return {name: words.units for name, words in result.wer.items()}
    return {name: words.characters and words.characters.units for name, words in result.wer.items()}


def _paired(units: Units | None, other: Units | None) -> _Set | None:
    if units is None or other is None or _spoken(units) != _spoken(other):
        return None
    return units, less(units, other)


def _spoken(units: Units) -> dict[str, int]:
    """The words of each unit: only what was compared with the same references can be pooled."""
    return {name: words for name, (_, words) in units.counts.items()}


def _verdict(rows: Sequence[Mapping[str, _Set]]) -> Verdict | None:
    """Pool rows, one a seed, of the same units; None if there are none or the units differ."""
    sets = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
    first = [rows[0][name][0] for name in sets]
    spoken = [_spoken(units) for units in first]
    if not sets or any([_spoken(row[name][0]) for name in sets] != spoken for row in rows):
        return None
    keys = [(name, key) for name, units in zip(sets, first, strict=True) for key in units.counts]
    words = np.array([said[key] for said in spoken for key in said])
    if not words.sum():
        return None
    more = np.array([[row[name][1][key] for name, key in keys] for row in rows])
    errors = np.array([[row[name][0].counts[key][0] for name, key in keys] for row in rows])
    # A speaker is the same in all sets; an utterance of that name is not.
    names = [key if rows[0][name][0].kind == "speaker" else f"{name} {key}" for name, key in keys]
    change = pooled(more, words, names, all(units.kind == "speaker" for units in first))
    return Verdict(change, 100.0 * float((errors - more).sum()) / (len(rows) * float(words.sum())))

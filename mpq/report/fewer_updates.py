"""Word error rate against updates (`conf/table/updates.yaml`), and one stage beside two stages of twice its updates.

The two are compared with each other and not through 32 bits: on the same utterances, seed by seed, so that what all
systems find hard does not count. Three seeds of one utterance are no three utterances; so what is pooled over the seeds
has the bootstrap's interval alone, which draws speakers with all that hangs on them, and no MAPSSWE.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mpq.errors import UserError
from mpq.evaluate.significance import compare, holm
from mpq.record.hypotheses import Texts, read_hypotheses, read_references
from mpq.record.records import folder
from mpq.record.result import Result
from mpq.report.system import System

TABLE = "updates"
ALL = "all"  # sets, seeds


@dataclass(frozen=True)
class Change:
    """One stage against two stages of twice its `updates`: the WER of the first minus that of the second, in points.

    seed, set_name: a seed and a set of the evaluation, or `all` of them. p is MAPSSWE's, `adjusted` its correction
    after Holm over the seeds and sets of this number of updates; None for what is pooled over seeds (both) or sets.
    """

    updates: int
    seed: str
    set_name: str
    difference: float
    interval: tuple[float, float]
    p: float | None = None
    adjusted: float | None = None


def total_updates(system: System) -> int:
    """The updates of all stages together, those of its first record."""
    return sum(stage.updates for stage in system.runs[0].time.stages)


def is_curve(systems: Sequence[System]) -> bool:
    """Whether some recipe has records of two numbers of updates."""
    found = {(system.recipe, total_updates(system)) for system in systems if system.runs}
    return len(found) > len({recipe for recipe, _ in found})


def compare_updates(systems: Sequence[System], root: Path | str) -> Iterator[Change]:
    """Every one-stage system against the two-stage system of twice its updates; a seed needs both hypotheses.

    Raises: UserError for a file that can't be read, or that lacks utterances of the other one.
    """
    two_stages = {total_updates(s): s for s in systems if s.runs and s.recipe.startswith("two_stage")}
    for system in systems:
        if not system.runs or system.recipe != "one_stage" or 2 * total_updates(system) not in two_stages:
            continue
        others = {run.seed: run for run in two_stages[2 * total_updates(system)].runs}
        pairs = [(run, others[run.seed]) for run in system.runs if run.seed in others]
        texts = {run.seed: _texts(run, other, root) for run, other in pairs}
        yield from _changes(total_updates(system), {seed: found for seed, found in texts.items() if found})


def _texts(run: Result, other: Result, root: Path | str) -> tuple[Texts, Texts, Texts] | None:
    """What was said, and what the two runs wrote; None where either left no hypotheses."""
    try:
        mine, theirs = (read_hypotheses(folder(root, r.exp, r.seed) / "hypotheses.jsonl") for r in (run, other))
    except UserError:
        return None
    said = read_references(Path(root) / "references" / f"{run.provenance.data.name}.jsonl")
    return {name: {key: said[name][key] for key in mine[name]} for name in mine}, theirs, mine


def _changes(updates: int, texts: dict[int, tuple[Texts, Texts, Texts]]) -> Iterator[Change]:
    """Of each seed and set, then over all sets, over all seeds, and over both."""
    sets = list(dict.fromkeys(name for said, _, _ in texts.values() for name in said))
    single = [_change(updates, texts, [seed], [name]) for seed in texts for name in sets]
    adjusted = holm([change.p for change in single if change.p is not None])
    yield from (replace(change, adjusted=p) for change, p in zip(single, adjusted, strict=True))
    for seed in texts:
        yield replace(_change(updates, texts, [seed], sets), set_name=ALL)
    for name in sets if texts else ():
        yield replace(_change(updates, texts, list(texts), [name]), seed=ALL, p=None)
    if texts:
        yield replace(_change(updates, texts, list(texts), sets), seed=ALL, set_name=ALL, p=None)


def _change(
    updates: int, texts: dict[int, tuple[Texts, Texts, Texts]], seeds: Sequence[int], sets: Sequence[str]
) -> Change:
    keys = [(seed, name, key) for seed in seeds for name in sets for key in texts[seed][0][name]]
    named = {f"{seed} {name} {key}": (seed, name, key) for seed, name, key in keys}
    said, theirs, mine = (
        {label: texts[seed][part][name][key] for label, (seed, name, key) in named.items()} for part in range(3)
    )
    speakers = {label: key.partition("-")[0] for label, (_, _, key) in named.items()}  # LibriSpeech's identities
    found = compare(said, theirs, mine, speakers)
    return Change(updates, str(seeds[0]), sets[0], found.difference, found.interval, found.p)

"""All pictures of a scale, made from its records."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from mpq.commands import script
from mpq.errors import UserError
from mpq.evaluate.verdict import Rate
from mpq.record.run_folder import RunFolder
from mpq.record.search import read_search
from mpq.report.figures import bit_map, searches, time_bars, updates, wer_size
from mpq.report.figures.style import save
from mpq.report.tables import paper
from mpq.report.tables.lossless import CODED, with_coded_files
from mpq.report.tables.system import PLAIN, System, load_systems, models_of
from mpq.report.tables.updates import TABLE, is_curve
from mpq.search.assignment import from_json


@dataclass(frozen=True)
class Picture:
    """A picture to draw: its file's name without extension, its description, and the function that draws it.

    `headline`: whether it is one of the main pictures, for a page that shows only those.
    """

    name: str
    shows: str
    draw: Callable[[], Figure]
    headline: bool = True


def pictures(scale: str, root: Path | str, table: str = "compression") -> list[Picture]:
    """The pictures of the systems that `table` plans for the models of `scale`, of coded files, and of updates.

    What has no record is left out.

    Raises: UserError for an unknown scale, or a record that can't be read.
    """
    found = []
    for model in models_of(scale):
        systems = load_systems(table, model, root)
        if any(system.runs for system in systems):
            found += _of_model(model, systems, Path(root))
        if coded := with_coded_files(load_systems(CODED, model, root)):
            found.append(_of_coded(model, coded))
        if is_curve(curve := load_systems(TABLE, model, root)):
            found.append(_of_updates(model, curve))
    return found


def draw_all(scale: str, root: Path | str, output: Path | str) -> list[Path]:
    """Write every picture of `scale` to the folder `output` as PNG and SVG, and return the paths.

    Raises: UserError as `pictures` does, and if there is no record to draw.
    """
    found = pictures(scale, root)
    if not found:
        command = script("sweep", f"model={models_of(scale)[0]}", f"root={root}")
        raise UserError(f"no model of scale {scale} has a record below {root}; make one with: {command}")
    return [path for picture in found for path in save(picture.draw, Path(output), picture.name)]


def _of_model(model: str, systems: Sequence[System], root: Path) -> Iterator[Picture]:
    if any(system.runs for system in systems if system.is_compressed):
        for rate, intervals in _intervals(systems).items():
            yield Picture(
                f"{model}_{rate}_size",
                f"{model}: {wer_size.RATES[rate][1]} against size",
                lambda rate=rate, intervals=intervals: wer_size.draw(systems, intervals, rate),
            )
    if maps := _assignments(systems, root):
        yield Picture(f"{model}_bits", f"{model}: bits of each weight", lambda: bit_map.draw(model, maps))
    for system in systems:
        for seed, stage in _searches(system, root):
            title = f"{model}, {system.label}, seed {seed}"
            yield Picture(
                f"{system.exp}_probabilities",
                f"{title}: probabilities of the precisions over the updates",
                lambda title=title, stage=stage: searches.draw_probabilities(title, stage),
                headline=paper.is_own(model, system.recipe, system.bits, system.activations),
            )
            break  # one seed is enough
    if any(run.time.stages for system in systems for run in system.runs):
        yield Picture(f"{model}_time", f"{model}: compression time by stage", lambda: time_bars.draw(systems))


def _of_coded(model: str, systems: Sequence[System]) -> Picture:
    shows = f"{model}: word error rate against {wer_size.shown_size('coded')}"
    intervals = _intervals(systems)["wer"]
    return Picture(f"{model}_wer_coded", shows, lambda: wer_size.draw(systems, intervals, measure="coded"))


def _of_updates(model: str, systems: Sequence[System]) -> Picture:
    shows = f"{model}: word error rate against updates"
    return Picture(f"{model}_{TABLE}", shows, lambda: updates.draw(systems), headline=False)


def _intervals(systems: Sequence[System]) -> dict[Rate, dict[str, tuple[float, float]]]:
    """The rates that every run has (names of `RATES`), with the 95 % interval of 32 bits for each set that has one."""
    plain = [run.wer for system in systems if system.recipe == PLAIN for run in system.runs]
    sets = {name: words for wer in plain for name, words in wer.items()}
    found: dict[Rate, dict[str, tuple[float, float]]] = {
        "wer": {name: words.interval for name, words in sets.items() if words.interval}
    }
    if all(words.characters for system in systems for run in system.runs for words in run.wer.values()):
        counted = {name: words.characters for name, words in sets.items()}
        found["cer"] = {name: c.interval for name, c in counted.items() if c and c.interval}
    return found


def _assignments(systems: Sequence[System], root: Path) -> dict[str, dict[int, dict[str, int]]]:
    """Label -> seed -> bits of each weight, for the systems with mixed precisions in at least one seed.

    Not for those that are made for a size or coded bits: their codes have as many bits as their steps need.
    """
    found = {}
    for system in (system for system in systems if system.bits is not None):
        files = {run.seed: RunFolder.of(root, run).bits for run in system.runs}
        seeds = {seed: from_json(path) for seed, path in files.items() if path.is_file()}
        if any(map(bit_map.is_mixed, seeds.values())):
            found[system.label] = seeds
    return found


def _searches(system: System, root: Path) -> Iterator[tuple[int, searches.StageSearch]]:
    for run in system.runs:
        path = RunFolder.of(root, run).search
        if path.is_file() and (stage := searches.learned(read_search(path))):
            yield run.seed, stage

"""Several budgets of finished runs: a model for each, a table of all, and a picture of error rate against size."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mpq.compress.output import Quantized
from mpq.compress.rebudget import config, rebudget
from mpq.errors import UserError
from mpq.evaluate.pooled import Pooled
from mpq.evaluate.verdict import of_runs, of_seeds
from mpq.markdown import table
from mpq.record.result import Result
from mpq.record.run_folder import RunFolder
from mpq.report.figures import budgets
from mpq.report.figures.style import save

PICTURE = "budgets"


def curve(
    runs: Sequence[Path],
    targets: Sequence[float],
    updates: Sequence[int],
    evaluate: bool,
    calibrate: bool,
    **changes: Any,
) -> tuple[list[list[Quantized]], list[Path]]:
    """Pack the models of finished `runs`, seeds of one experiment, at every target and number of updates.

    Return the models, for each budget one of each run, and the pictures `budgets.png` and `.svg`, which go to the first
    run's folder; without `evaluate` there are none.

    Raises: UserError for runs of several experiments or a run given twice, and as `rebudget` does, for any of the
    models before the first is made.
    """
    if len({run.resolve().parent for run in runs}) > 1 or len({run.resolve() for run in runs}) < len(runs):
        raise UserError(
            f"run={','.join(map(str, runs))} must be seeds of one experiment, <root>/<name>/seed<k>, each once"
        )
    wanted = [(target, count) for count in dict.fromkeys(updates) for target in dict.fromkeys(targets)]
    for target, count in wanted:
        for run in runs:
            config(run, target, calibrate, changes, count)
    made = [
        [rebudget(run, target, None, evaluate, calibrate, count, **changes) for run in runs] for target, count in wanted
    ]
    results = [_results(seeds) for seeds in made]
    pictures = save(lambda: budgets.draw(results), RunFolder.at(runs[0]).path, PICTURE) if evaluate else []
    return made, pictures


def trained_alone(result: Result, root: Path) -> Result | None:
    """Return the record below `root` of the run that was trained for the budget of `result` alone, if there is one.

    It has the same seed, and one stage or else uniform precision: at the smallest and largest candidate they are one.
    Learned steps are compared with learned steps.

    Raises: UserError if the record can't be read.
    """
    kinds = r"(_(?P<kept>shared|every_rate)(?P<variant>\w*?)(_\d+updates)?)?"
    parts = re.fullmatch(rf"(?P<model>.+)_rebudget{kinds}(?P<bits>_[\dp]+bit(?!\w*_[\dp]+bit)\w*)", result.exp)
    if parts is None:
        return None
    steps = parts["kept"] == "every_rate"
    for infix in [f"_one_stage_rate{parts['variant']}"] if steps else ["", "_uniform"]:
        folder = RunFolder(root, f"{parts['model']}{infix}{parts['bits']}", result.seed)
        if folder.result.is_file():
            return folder.read()
    return None


def report(made: Sequence[Sequence[Quantized]], pictures: Sequence[Path]) -> str:
    """Return the table of `made`, the pictures and the folders, to print."""
    results = [found for seeds in made if (found := _results(seeds))]
    sets = list(results[0][0].wer) if results else []
    heads = ["target bits", "bits", "updates", "MB", "ratio", *(f"{name}, WER %" for name in sets)]
    heads += ["all sets, against 32 bits", "verdict", "against the run for this budget alone"] if sets else []
    lines = [table(heads, [_row(seeds, sets) for seeds in made], [True] * (5 + len(sets)))]
    if (best := budgets.largest_lossless(results)) is not None:
        ratio = fmean(one.size.file_ratio for one in best)
        lines.append(f"\nlargest lossless: {best[0].exp}, {budgets.megabytes(best):.3f} MB, {ratio:.2f} times smaller")
    elif results:
        lines.append("\nnone is lossless, that is, no worse than 32 bits over all sets")
    lines += [f"picture  {path}" for path in pictures] + [f"model    {one.folder}" for seeds in made for one in seeds]
    return "\n".join(lines)


def _results(seeds: Sequence[Quantized]) -> list[Result]:
    return [one.result for one in seeds if one.result is not None]


def _row(seeds: Sequence[Quantized], sets: Sequence[str]) -> list[str]:
    results, first = _results(seeds), seeds[0]
    updates = sum(stage.updates for stage in results[0].time.stages) if results else "-"
    learned = first.method == "rebudget_every_rate"  # steps, whose budget counts coded bits
    bits = fmean((one.bits.coded if learned else None) or one.bits.average for one in seeds)
    cells = [f"{first.bits.target:g}", f"{bits:.3f}", str(updates)]
    cells += [f"{fmean(one.size.file_bytes for one in seeds) / 1e6:.3f}"]
    cells += [f"{fmean(one.size.file_ratio for one in seeds):.2f}"]
    if not results:
        return cells
    verdict, root = of_seeds(results), RunFolder.at(first.folder.parent).root
    cells += [f"{fmean(result.wer[name].wer for result in results):.2f}" for name in sets]
    cells += [_points(verdict.change), verdict.word] if verdict else ["-", "-"]
    pairs = [(result, alone) for result in results if (alone := trained_alone(result, root))]
    apart = of_runs(pairs) if len(pairs) == len(results) else None
    return [*cells, _points(apart.change, told=True) if apart else "-"]


def _points(change: Pooled, told: bool = False) -> str:
    """The change with its interval; `told`: also what would have been found four times in five."""
    within = "" if change.interval is None else f" [{change.interval[0]:+.2f}, {change.interval[1]:+.2f}]"
    found = "" if change.detectable is None or not told else f", {change.detectable:.2f} detectable"
    return f"{change.estimate:+.2f}{within}{found}"

"""Several budgets of one finished run: a model for each, a table of all, and a picture of error rate against size."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpq.compress.output import Quantized
from mpq.compress.rebudget import config, rebudget
from mpq.evaluate.pooled import Pooled
from mpq.evaluate.units import completed
from mpq.evaluate.verdict import of_run, of_runs
from mpq.markdown import table
from mpq.record.result import Result
from mpq.record.run_folder import RunFolder
from mpq.report.figures import budgets
from mpq.report.figures.style import save

PICTURE = "budgets"


def curve(
    run: Path, targets: Sequence[float], updates: Sequence[int], evaluate: bool, calibrate: bool, **changes: Any
) -> tuple[list[Quantized], list[Path]]:
    """Pack the model of the finished `run` at every target and number of updates; return the models and pictures.

    The pictures, `budgets.png` and `.svg`, go to the run's folder; without `evaluate` there are none.

    Raises: UserError as `rebudget` does, for any of them before the first is made.
    """
    wanted = [(target, count) for count in dict.fromkeys(updates) for target in dict.fromkeys(targets)]
    for target, count in wanted:
        config(run, target, calibrate, changes, count)
    made = [rebudget(run, target, None, evaluate, calibrate, count, **changes) for target, count in wanted]
    results = [one.result for one in made if one.result is not None]
    pictures = save(lambda: budgets.draw(results), RunFolder.at(run).path, PICTURE) if results else []
    return made, pictures


def trained_alone(result: Result, root: Path) -> Result | None:
    """Return the record below `root` of the run that was trained for the budget of `result` alone, if there is one.

    It has the same seed, and one stage or else uniform precision: at the smallest and largest candidate they are one.
    Learned steps are compared with learned steps.

    Raises: UserError if the record can't be read.
    """
    kinds = r"(_(?P<kept>shared|every_rate|rate)(?P<variant>\w*?)(_\d+updates)?)?"
    parts = re.fullmatch(rf"(?P<model>.+)_rebudget{kinds}(?P<bits>_[\dp]+bit\w*)", result.exp)
    if parts is None:
        return None
    steps = parts["kept"] in ("rate", "every_rate")
    for infix in [f"_one_stage_rate{parts['variant']}"] if steps else ["", "_uniform"]:
        folder = RunFolder(root, f"{parts['model']}{infix}{parts['bits']}", result.seed)
        if folder.result.is_file():
            return completed(folder)
    return None


def report(made: Sequence[Quantized], pictures: Sequence[Path]) -> str:
    """Return the table of `made`, the pictures and the folders, to print."""
    results = [one.result for one in made if one.result is not None]
    sets = list(results[0].wer) if results else []
    heads = ["target bits", "bits", "updates", "MB", "ratio", *(f"{name}, WER %" for name in sets)]
    heads += ["all sets, against 32 bits", "verdict", "against the run for this budget alone"] if sets else []
    lines = [table(heads, [_row(one, sets) for one in made], [True] * (5 + len(sets)))]
    if (best := budgets.largest_lossless(results)) is not None:
        size = best.size
        lines.append(
            f"\nlargest lossless: {best.exp}, {size.file_bytes / 1e6:.3f} MB, {size.file_ratio:.2f} times smaller"
        )
    elif results:
        lines.append("\nnone is lossless, that is, no worse than 32 bits over all sets")
    lines += [f"picture  {path}" for path in pictures] + [f"model    {one.folder}" for one in made]
    return "\n".join(lines)


def _row(one: Quantized, sets: Sequence[str]) -> list[str]:
    size, result = one.size, one.result
    updates = sum(stage.updates for stage in result.time.stages) if result else "-"
    bits = one.bits.coded if one.method.endswith("rate") else None  # learned steps, whose budget counts coded bits
    cells = [f"{one.bits.target:g}", f"{bits or one.bits.average:.3f}", str(updates), f"{size.file_bytes / 1e6:.3f}"]
    cells.append(f"{size.file_ratio:.2f}")
    if result is None:
        return cells
    verdict, alone = of_run(result), trained_alone(result, RunFolder.at(one.folder.parent).root)
    cells += [f"{result.wer[name].wer:.2f}" for name in sets]
    cells += [_points(verdict.change), verdict.word] if verdict else ["-", "-"]
    apart = of_runs([(result, alone)]) if alone else None
    return [*cells, _points(apart.change, told=True) if apart else "-"]


def _points(change: Pooled, told: bool = False) -> str:
    """The change with its interval; `told`: also what would have been found four times in five."""
    within = "" if change.interval is None else f" [{change.interval[0]:+.2f}, {change.interval[1]:+.2f}]"
    found = "" if change.detectable is None or not told else f", {change.detectable:.2f} detectable"
    return f"{change.estimate:+.2f}{within}{found}"

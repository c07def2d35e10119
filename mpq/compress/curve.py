"""Several budgets of one finished run: a model for each, a table of all, and a picture of error rate against size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpq.compress.output import Quantized
from mpq.compress.rebudget import config, rebudget
from mpq.evaluate.verdict import of_run
from mpq.markdown import table
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


def report(made: Sequence[Quantized], pictures: Sequence[Path]) -> str:
    """Return the table of `made`, the pictures and the folders, to print."""
    sets = list(next((one.result.wer for one in made if one.result is not None), {}))
    heads = ["target bits", "bits", "updates", "MB", "ratio", *(f"{name}, WER %" for name in sets)]
    heads += ["all sets, against 32 bits", "verdict"] if sets else []
    lines = [table(heads, [_row(one, sets) for one in made], [True] * (len(heads) - 2 * bool(sets)))]
    results = [one.result for one in made if one.result is not None]
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
    cells = [f"{one.bits.target:g}", f"{one.bits.average:.3f}", str(updates), f"{size.file_bytes / 1e6:.3f}"]
    cells.append(f"{size.file_ratio:.2f}")
    if result is None:
        return cells
    verdict = of_run(result)
    change = verdict.change if verdict else None
    within = f" [{change.interval[0]:+.2f}, {change.interval[1]:+.2f}]" if change and change.interval else ""
    cells += [f"{result.wer[name].wer:.2f}" for name in sets]
    return [*cells, f"{change.estimate:+.2f}{within}" if change else "-", verdict.word if verdict else "-"]

"""What a dashboard shows for a finished run: its table row, its results, and its precisions over the updates."""

import logging
from collections.abc import Sequence
from typing import Any

from mpq.evaluate.verdict import of_run
from mpq.record.result import Result
from mpq.record.search import StageSearch
from mpq.report.tables.parts import Part

_log = logging.getLogger(__name__)
# The columns of a run's row (mpq/report/tables/columns.py); those "per set" appear once for each evaluation set.
ROW = (
    "system", "model", "recipe", "seed", "target_bits", "average_bits", "activation_bits", "packed_mb", "coded_mb",
    "ideal_ratio", "packed_ratio", "coded_ratio", "wer", "cer", "difference", "largest_increase", "cer_difference",
    "p", "alone", "change", "verdict", "seconds", "device_seconds", "updates", "peak_memory",
)  # fmt: skip


def log_result(logger: Any, result: Result, stages: Sequence[StageSearch]) -> None:
    """Log the numbers of `result` and what the searches of its `stages` learned to the run of `logger`.

    The numbers go to the run's summary, by which W&B sorts and compares runs. `result/row` is a table of one row,
    `search/<stage>` a table of each site's expected bits with one row per snapshot, and `pictures/<stage>` a heat map
    of each site's probabilities over the updates. With `logger` False nothing is logged. The run is already finished,
    so a failure in W&B is only a warning.
    """
    if not logger:
        return
    try:
        _log_result(logger, result, stages)
    except Exception as error:
        _log.warning("W&B did not accept the run's results (%s); its record has them", error)


def _log_result(logger: Any, result: Result, stages: Sequence[StageSearch]) -> None:
    import wandb  # here, because a run without a logger does not need it

    from mpq.report.figures import searches
    from mpq.report.figures.style import style

    row = Part("", "runs", ROW).build([result], list(result.wer)).frame
    shown: dict[str, Any] = {"result/row": wandb.Table(columns=list(row.columns), data=row.to_numpy().tolist())}
    for stage in stages:
        if lines := _site_bits(stage):
            shown[f"search/{stage.name}"] = wandb.Table(columns=["update", *stage.sites], data=lines)
        if searches.learned([stage]):
            with style():
                shown[f"pictures/{stage.name}"] = wandb.Image(searches.draw_probabilities(result.exp, stage))
    logger.experiment.log(shown)
    logger.experiment.summary.update(summary(result))


def summary(result: Result) -> dict[str, float]:
    """The numbers of `result` under the names that the dashboard plots; `verdict/` is over all sets."""
    tests = (result.significance or {}).items()
    verdict = of_run(result)
    interval = verdict and verdict.change.interval
    return {
        "size/file_bytes": result.size.file_bytes,
        "size/file_ratio": result.size.file_ratio,
        "size/packed_bytes": result.size.packed,
        "size/packed_ratio": result.size.packed_ratio,
        "size/ideal_ratio": result.size.ideal_ratio,
        "bits/average": result.bits.average,
        **{f"bits/{name}": value for name in ("coded", "zeros") if (value := getattr(result.bits, name)) is not None},
        "time/seconds": result.time.seconds,
        "time/device_seconds": result.time.device_seconds,
        **{f"time/stage/{stage.name}": stage.seconds for stage in result.time.stages},
        **{f"wer/{name}": words.wer for name, words in result.wer.items()},
        **{f"cer/{name}": words.characters.cer for name, words in result.wer.items() if words.characters},
        **{f"significance/{name}/p": test.p for name, test in tests},
        **{f"significance/{name}/difference": test.difference for name, test in tests},
        **{f"significance/{name}/largest_increase": max(0.0, t.interval[1]) for name, t in tests if t.interval},
        **{f"significance/{name}/cer_difference": t.characters.difference for name, t in tests if t.characters},
        **({"verdict/difference": verdict.change.estimate} if verdict else {}),
        **({"verdict/low": interval[0], "verdict/high": interval[1]} if interval else {}),
    }


def _site_bits(stage: StageSearch) -> list[Any]:
    """For each snapshot before the precisions were fixed: the update and each site's expected bits."""
    lines = []
    for snapshot in stage.trajectory:
        if snapshot.probabilities is not None:
            expected = (
                sum(p * b for p, b in zip(row, stage.candidates, strict=True)) for row in snapshot.probabilities
            )
            lines.append([snapshot.update, *expected])
    return lines

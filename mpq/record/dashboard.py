"""What a dashboard shows of a finished run: its row of the tables, as the summary of its W&B run."""

from typing import Any

from mpq.record.result import Result


def log_result(logger: Any, result: Result) -> None:
    """Write the figures of `result` to the summary of `logger`'s run (`logger` False: nothing is logged)."""
    if not logger:
        return
    summary = {
        "size/file_bytes": result.size.file_bytes,
        "size/file_ratio": result.size.file_ratio,
        "size/ideal_ratio": result.size.ideal_ratio,
        "bits/average": result.bits.average,
        "time/seconds": result.time.seconds,
        **{f"time/stage/{stage.name}": stage.seconds for stage in result.time.stages},
        **{f"wer/{name}": words.wer for name, words in result.wer.items()},
        **{f"significance/{name}/p": test.p for name, test in (result.significance or {}).items()},
        **{f"significance/{name}/difference": t.difference for name, t in (result.significance or {}).items()},
    }
    logger.experiment.summary.update(summary)

"""The paper's claims in one table: the results of each model, and the claims of the abstract.

Source of the claims: arXiv 2501.03643, abstract. Every cell is computed as in the three tables, so they can't disagree.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mpq.report.tables import columns, lossless, paper, system_columns, time_factors
from mpq.report.tables.column import Column
from mpq.report.tables.equal_bits import Comparison
from mpq.report.tables.parts import Block
from mpq.report.tables.recipes import ONE_STAGE, TWO_STAGE
from mpq.report.tables.system import SCALES, System, load_systems, models_of
from mpq.report.tables.system_columns import NOT_RUN
from mpq.report.tables.tables import Sheet

_NOTES = (
    "Ratios and verdicts are those of the tables below (“none”: the method has no system that is no worse than 32 bits "
    "by the stated margin; “undecided”: these sets and seeds don't tell). Time: processor-seconds on a CPU, "
    "device-seconds on a GPU, and in brackets the factor of the updates, which is a setting of the recipes. “WER "
    "change”: one stage minus two stages at 3.5 bits (Gumbel; for Whisper a descending budget against KL), pooled over "
    "seeds, speakers and sets, with its 95 % interval. Sizes of systems that were not run are computed from tensor "
    "shapes.",
)


@dataclass(frozen=True)
class Findings:
    """All systems that Table 1 plans for one model, with their records."""

    model: str
    systems: tuple[System, ...]

    def system(self, method: str) -> System:
        """The claimed system of `method`, with float activations; it is planned for every model."""
        wanted = (paper.claimed_of(method, self.model), paper.BITS, "")
        return next(s for s in self.systems if (s.recipe, s.bits, s.activations) == wanted)


def claims_sheet(root: Path | str) -> Sheet:
    """The table of all models, with the paper as its last row; raises UserError for a record that can't be read."""
    models = [model for scale in SCALES for model in models_of(scale)]
    rows = [Findings(model, tuple(load_systems(paper.TABLE, model, root))) for model in models]
    values = [[column.function(row) for column in COLUMNS] for row in rows]
    values.append(["*the paper says*", "LibriSpeech", None, *paper.CLAIMS])
    frame = pd.DataFrame(values, columns=[column.title for column in COLUMNS], dtype=object)
    block = Block("One stage against uniform and two-stage precision", COLUMNS, frame, grouped=False)
    return Sheet("The paper's claims", (block,), _NOTES)


def _speech(findings: Findings) -> str:
    data = [run.provenance.data for system in findings.systems for run in system.runs]
    if not data:
        return NOT_RUN
    kinds = {True: "synthetic", False: "recorded", None: "unstated"}
    return ", ".join(dict.fromkeys(kinds[one.synthetic] for one in data))


def _lossless_factor(number: int) -> Any:
    return lambda findings: lossless.ideal_factor.function(lossless.factors(findings.systems)[number])


def _time_factor(findings: Findings) -> str | None:
    """The quotient of the costs and, because the recipes set it, that of the updates."""
    two_stage, one_stage = findings.system(TWO_STAGE), findings.system(ONE_STAGE)
    on_gpus = any(run.provenance.hardware.gpus for run in one_stage.runs)
    column = time_factors.device_seconds if on_gpus else time_factors.processor_seconds
    both = time_factors.TimeFactor(two_stage, one_stage, None)
    spent, updates = column.function(both), time_factors.updates.function(both)
    return spent if spent is None or isinstance(spent, str) else f"{spent:.2f} (updates: {updates:.2f})"


def _change(findings: Findings) -> str | None:
    """The change over the sets, one stage minus two stages, with its interval."""
    two_stage, one_stage = findings.system(TWO_STAGE), findings.system(ONE_STAGE)
    if not (one_stage.runs and two_stage.runs):
        return NOT_RUN
    change = Comparison(one_stage, two_stage).pooled
    if change is None:
        return None
    return f"{change.estimate:+z.2f} " + (columns.bounds(change.interval) if change.interval else f"({change.missing})")


def _of_one_stage(column: Column) -> Any:
    return lambda findings: column.function(findings.system(ONE_STAGE))


COLUMNS: tuple[Column, ...] = (
    Column("Model", lambda f: f.model, "the model"),
    Column("Speech", _speech, "the kind of evaluation data"),
    Column("Seeds", _of_one_stage(system_columns.seeds), "seeds of one stage at 3.5 bits"),
    Column(
        "Lossless ratio / uniform",
        _lossless_factor(0),
        "largest lossless ratio of one-stage over that of uniform",
        "higher",
        "{:.2f}".format,
    ),
    Column(
        "Lossless ratio / two-stage",
        _lossless_factor(1),
        "largest lossless ratio of one-stage over that of two-stage",
        "higher",
        "{:.2f}".format,
    ),
    Column("Time, two-stage / one-stage", _time_factor, "quotient at 3.5 bits", "higher", "{:.2f}".format),
    Column("WER change, points", _change, "one-stage minus two-stage, at 3.5 bits", "lower"),
    Column(
        "Ratio at 3.5 bits",
        _of_one_stage(system_columns.ideal_ratio),
        "ideal ratio of one-stage",
        "higher",
        "{:.2f}".format,
    ),
    Column("At 3.5 bits", _of_one_stage(system_columns.verdict), "verdict of one-stage against 32 bits"),
)

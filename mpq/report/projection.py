"""What the paper's rows would cost on a GPU: projected from counted operations, not measured.

    hours = updates x FLOP an update / (peak FLOP/s x utilisation) / 3600

The operations are counted (`mpq.report.operations`); peak and utilisation are the reader's assumptions. Quantizers,
optimizer and the reading of audio move bytes and are not counted: utilisation has to cover them, too.
`scripts/bench.py train` measures instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mpq import conf
from mpq.errors import UserError
from mpq.report.column import Column
from mpq.report.names import label
from mpq.report.operations import count, updates_of
from mpq.report.parts import Block, with_values
from mpq.report.rows import Row, planned
from mpq.report.table import Sheet

TABLE = "compression"
_RECIPES = ("uniform", "two_stage_gumbel", "one_stage")
_EVALUATED = 21.2 * 3600  # audio-seconds of dev and test, clean and other (Panayotov et al., ICASSP 2015, table 1)
_HELD = 20  # bytes a parameter: weight, gradient and AdamW's two moments of the student, and the teacher's weight


@dataclass(frozen=True)
class Assumptions:
    """What is not counted: peak FLOP/s of a GPU, the lowest and highest share of it, GPUs, and an hour's price."""

    peak: float
    utilisation: tuple[float, float]
    gpus: int = 8
    price: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no GPU has."""
        low, high = self.utilisation
        if not (self.peak > 0 and 0 < low <= high <= 1 and self.gpus > 0):
            raise UserError("peak and gpus must be positive, and utilisation=LOW,HIGH two shares of at most 1")

    def hours(self, flop: float) -> tuple[float, float]:
        """Hours of one GPU for `flop` operations: the fewest and the most."""
        low, high = self.utilisation
        return flop / (self.peak * high) / 3600, flop / (self.peak * low) / 3600


def projection_sheet(models: Sequence[str], assumptions: Assumptions) -> Sheet:
    """The table for `models`; raises UserError for an unknown model."""
    blocks = [_block(model, assumptions) for model in models]
    low, high = assumptions.utilisation
    notes = [
        "Projected, not measured: hours = updates x FLOP an update / (peak x utilisation) / 3600, with a peak of "
        f"{assumptions.peak / 1e12:g} TFLOP/s of which {low:.0%} to {high:.0%} is reached, both assumptions. “Side by "
        f"side”: on {assumptions.gpus} GPUs, a run each; no sooner than the longest run. "
        "Evaluation is counted; measured sensitivities and post-training's calibration are not.",
        *(_counted(model) for model in models),
        "To measure instead: python scripts/bench.py train model=MODEL batch=10 seconds=16",
    ]
    return Sheet("Projected cost of the paper's rows", tuple(blocks), tuple(notes))


def _counted(model: str) -> str:
    found, audio = count(model), conf.read("trainer", "paper")["audio_seconds"]
    return (
        f"{model}: an update of {audio:g} s of audio is {audio * found.update / 1e12:.1f} TFLOP; weights, gradients, "
        f"AdamW's moments and the teacher are {_HELD} bytes a parameter, {_HELD * found.parameters / 1e9:.1f} GB, "
        "activations not counted."
    )


@dataclass(frozen=True)
class Line:
    """A row of the table: runs of one model, under the reader's assumptions."""

    name: str
    model: str
    rows: tuple[Row, ...]
    assumptions: Assumptions

    @property
    def flop(self) -> list[float]:
        """Of each run, evaluation included."""
        found, audio = count(self.model), conf.read("trainer", "paper")["audio_seconds"]
        return [updates_of(row.recipe) * audio * found.update + _EVALUATED * found.forward for row in self.rows]

    @property
    def hours(self) -> tuple[float, float]:
        """All runs, one after the other."""
        return self.assumptions.hours(sum(self.flop))

    @property
    def side_by_side(self) -> tuple[float, float]:
        """Runs on a GPU each: no sooner than the longest."""
        longest = self.assumptions.hours(max(self.flop))
        least, most = (max(h / self.assumptions.gpus, last) for h, last in zip(self.hours, longest, strict=True))
        return least, most

    @property
    def price(self) -> tuple[float, float] | None:
        """Of the hours, where an hour's price was given."""
        price = self.assumptions.price
        return None if price is None else (self.hours[0] * price, self.hours[1] * price)


def _block(model: str, assumptions: Assumptions) -> Block:
    rows = planned(TABLE, model)
    mini = "mini_wav2vec2"  # of a scale that has the claims' rows alone
    claims = {model + row.exp.removeprefix(mini) for row in planned(TABLE, mini)}
    chosen = {f"{label(recipe)}, one run": [r for r in rows if r.recipe == recipe][:1] for recipe in _RECIPES}
    chosen["the claims, seed 0"] = [row for row in rows if row.exp in claims and row.seed == 0]
    chosen["every row"] = rows
    lines = [Line(name, model, tuple(found), assumptions) for name, found in chosen.items()]
    shown = with_values(COLUMNS, lines)
    values = [[column.function(line) for column in shown] for line in lines]
    frame = pd.DataFrame(values, columns=[column.title for column in shown], dtype=object)
    return Block("Projected, not measured", tuple(shown), frame, grouped=False, model=model)


def _range(ends: tuple[float, float]) -> str:
    return " to ".join(f"{end:,.1f}" if end < 10 else f"{end:,.0f}" for end in ends)


COLUMNS = (
    Column("Rows of Table 1", lambda line: line.name, "which runs"),
    Column("Runs", lambda line: len(line.rows), "how many"),
    Column("Updates", lambda line: sum(updates_of(row.recipe) for row in line.rows), "in all", format="{:,}".format),
    Column("EFLOP", lambda line: sum(line.flop) / 1e18, "10^18 operations, with evaluation", format="{:.2f}".format),
    Column("GPU-hours", lambda line: line.hours, "at the highest and the lowest utilisation", format=_range),
    Column("Hours, side by side", lambda line: line.side_by_side, "of all GPUs, a run each", format=_range),
    Column("Price", lambda line: line.price, "GPU-hours x the price of an hour", format=_range, optional=True),
)

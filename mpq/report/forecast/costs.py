"""Projects what the paper's rows would cost on a GPU from counted operations; nothing is measured.

    hours = updates x FLOP per update / (peak FLOP/s x utilisation) / 3600

The operations of a forward pass are counted by PyTorch (`torch.utils.flop_counter`: matrix products, convolutions,
attention) at the true dimensions on the meta device. A backward pass has two products for each one of the forward pass
(the gradients of inputs and of weights), but none for the frozen convolutions on the audio. It is not counted by
PyTorch, because PyTorch 2.13 overcounts the backward pass of a grouped convolution.

Peak and utilisation are the reader's assumptions. Quantizers, optimizer and data loading are memory-bound and not
counted, so utilisation has to cover them. `scripts/bench.py train` measures instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from mpq import conf
from mpq.errors import UserError
from mpq.models.kinds import CTC, kind_of
from mpq.report.tables import paper
from mpq.report.tables.column import Column
from mpq.report.tables.parts import Block, with_values
from mpq.report.tables.planned import Row, planned
from mpq.report.tables.recipes import label
from mpq.report.tables.system import PLAIN
from mpq.report.tables.tables import Sheet

_SECONDS = 16  # of an utterance; because of attention, cost per second grows by 2 percent from 12 to 16 s


@dataclass(frozen=True)
class Count:
    """A model's parameters, and its FLOP per second of audio for a forward pass and for an update.

    An update consists of the student's forward and backward pass and the teacher's forward pass.
    """

    parameters: int
    forward: float
    update: float


@cache
def count(model: str) -> Count:
    """Count the operations of a CTC model of `conf/model/` at its true dimensions.

    Raises: UserError for an unknown model, or one of another kind.
    """
    architecture = conf.model(model).get("architecture")
    if architecture is None:
        known = [name for name in conf.names("model") if "architecture" in conf.model(name)]
        raise UserError(f"model={model} has no architecture to count; choose one of {', '.join(known)}")
    if kind_of(architecture) != CTC:
        raise UserError(f"model={model} must be a CTC model: what it costs to write a text depends on the text")
    import torch

    from mpq.models.loading import from_scratch

    with torch.device("meta"):
        network: Any = from_scratch(architecture, seed=0)[0].eval()
        audio = torch.empty(1, 16000 * _SECONDS)
        whole = _flop(lambda: network(audio))
        frozen = 0.0
        if not conf.read("trainer", "paper")["train_feature_encoder"]:
            frozen = _flop(lambda: network.base_model.feature_extractor(audio))
    return Count(sum(parameter.numel() for parameter in network.parameters()), whole, 2 * whole + 2 * (whole - frozen))


def _flop(work: Callable[[], object]) -> float:
    """FLOP of `work` per second of audio."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / _SECONDS


def updates_of(recipe: str) -> int:
    """The total updates of a recipe's stages at scale paper; 0 if it doesn't train."""
    settings = {"trainer": conf.read("trainer", "paper"), "stages": conf.recipe(recipe)["stages"]}
    stages: Any = OmegaConf.create(settings).stages
    return sum(stage.updates for stage in stages.values())


_EVALUATED = 21.2 * 3600  # audio-seconds of dev and test, clean and other (Panayotov et al., ICASSP 2015, table 1)
_HELD = 20  # bytes per parameter: weight, gradient and AdamW's two moments of the student, and the teacher's weight


@dataclass(frozen=True)
class Assumptions:
    """A GPU's peak FLOP/s, the lowest and highest utilisation, the number of GPUs, and the price of a GPU-hour."""

    peak: float
    utilisation: tuple[float, float]
    gpus: int = 8
    price: float | None = None

    def __post_init__(self) -> None:
        """Raise UserError for impossible values."""
        low, high = self.utilisation
        for name, value in (("peak", self.peak), ("gpus", self.gpus)):
            if not value > 0:
                raise UserError(f"{name}={value:g} must be above 0")
        if not 0 < low <= high <= 1:
            raise UserError(
                f"utilisation={low:g},{high:g} must be two shares above 0 and at most 1, the lower one first"
            )

    def hours(self, flop: float) -> tuple[float, float]:
        """Hours of one GPU for `flop` operations: the fewest and the most."""
        low, high = self.utilisation
        return flop / (self.peak * high) / 3600, flop / (self.peak * low) / 3600


def projection_sheet(models: Sequence[str], assumptions: Assumptions) -> Sheet:
    """The table for `models`; raises UserError for an unknown model."""
    blocks = [_block(model, assumptions) for model in models]
    low, high = assumptions.utilisation
    notes = [
        "Projected, not measured: hours = updates x FLOP per update / (peak x utilisation) / 3600, assuming a peak of "
        f"{assumptions.peak / 1e12:g} TFLOP/s and a utilisation of {low:.0%} to {high:.0%}. “Side by side”: on "
        f"{assumptions.gpus} GPUs, each with one run at a time; never shorter than the longest run. "
        "Evaluation is included; measuring sensitivities and post-training calibration are not.",
        *(_update_cost(model) for model in models),
        "To measure instead: python scripts/bench.py train model=MODEL batch=10 seconds=16",
    ]
    return Sheet("Projected cost of the paper's rows", tuple(blocks), tuple(notes))


def _update_cost(model: str) -> str:
    found, audio = count(model), conf.read("trainer", "paper")["audio_seconds"]
    return (
        f"{model}: an update of {audio:g} s of audio is {audio * found.update / 1e12:.1f} TFLOP; weights, gradients, "
        f"AdamW's moments and the teacher take {_HELD} bytes per parameter, {_HELD * found.parameters / 1e9:.1f} GB, "
        "not counting activations."
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
        """FLOP of each run, evaluation included."""
        found, audio = count(self.model), conf.read("trainer", "paper")["audio_seconds"]
        return [updates_of(row.recipe) * audio * found.update + _EVALUATED * found.forward for row in self.rows]

    @property
    def hours(self) -> tuple[float, float]:
        """Hours for all runs, one after the other."""
        return self.assumptions.hours(sum(self.flop))

    @property
    def side_by_side(self) -> tuple[float, float]:
        """Hours with one run per GPU: never shorter than the longest run."""
        longest = self.assumptions.hours(max(self.flop))
        least, most = (max(h / self.assumptions.gpus, last) for h, last in zip(self.hours, longest, strict=True))
        return least, most

    @property
    def price(self) -> tuple[float, float] | None:
        """The price of the hours; None without the price of an hour."""
        price = self.assumptions.price
        return None if price is None else (self.hours[0] * price, self.hours[1] * price)


def _block(model: str, assumptions: Assumptions) -> Block:
    rows = planned(paper.TABLE, model)
    chosen = {
        f"{label(recipe)}, one run": [r for r in rows if r.recipe == recipe][:1] for recipe in paper.claimed(model)
    }
    chosen["the claims, seed 0"] = [row for row in rows if _claimed(row) and row.seed == 0]
    chosen["every row"] = rows
    lines = [Line(name, model, tuple(found), assumptions) for name, found in chosen.items() if found]
    shown = with_values(COLUMNS, lines)
    values = [[column.function(line) for column in shown] for line in lines]
    frame = pd.DataFrame(values, columns=[column.title for column in shown], dtype=object)
    return Block("Projected, not measured", tuple(shown), frame, grouped=False, model=model)


def _claimed(row: Row) -> bool:
    """Whether a row carries the claims: one of `conf/exp/`, either 32 bits as they are or of a claimed recipe."""
    return row.recipe in (PLAIN, *paper.claimed(row.model)) and row.exp in conf.names("exp")


def _range(ends: tuple[float, float]) -> str:
    return " to ".join(f"{end:,.1f}" if end < 10 else f"{end:,.0f}" for end in ends)


COLUMNS = (
    Column("Rows of Table 1", lambda line: line.name, "the runs that are projected"),
    Column("Runs", lambda line: len(line.rows), "number of runs"),
    Column(
        "Updates", lambda line: sum(updates_of(row.recipe) for row in line.rows), "of all runs", format="{:,}".format
    ),
    Column("EFLOP", lambda line: sum(line.flop) / 1e18, "10^18 operations, with evaluation", format="{:.2f}".format),
    Column("GPU-hours", lambda line: line.hours, "at the highest and the lowest utilisation", format=_range),
    Column("Hours, side by side", lambda line: line.side_by_side, "on all GPUs, one run per GPU", format=_range),
    Column("Price", lambda line: line.price, "GPU-hours x the price of an hour", format=_range, optional=True),
)

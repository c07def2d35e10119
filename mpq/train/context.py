"""The inputs of a stage: its own settings, and the run that it belongs to."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpq.checkpoint.format import Coding
from mpq.data.dataset import SpeechDataset
from mpq.errors import UserError
from mpq.files import write_text
from mpq.quant.activation_scales import Activations
from mpq.quant.gptq import Gptq
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import SEARCHED
from mpq.record.ledger import Ledger
from mpq.search.base import PrecisionSearch
from mpq.search.rules import BITS
from mpq.train import processes
from mpq.train.loss import Loss
from mpq.train.machine import Machine
from mpq.train.optimization import Optimization
from mpq.train.rules import Trained, check_trained
from mpq.train.shared import Shared

LEDGER = "ledger.json"


@dataclass(frozen=True)
class StageSettings:
    """What one stage of a recipe does.

    search: decides the precisions of the sites that match the glob `searched`, at an average of `target` bits; None
    trains in full precision. quantizer: for the weights. activations: for the layers' inputs. calibrate: fits the
    quantized weights to audio at the end. shared: networks that are trained beside the mixture. most_bytes: of the
    file, with this `coding`, in place of a target; without a search the steps are chosen for it
    (`mpq.train.file_size`). budget: what the target counts, bits of the codes or coded bits. trained: all parameters,
    or vectors alone: norms and biases, so that codes and scales stay as they are.

    Raises: UserError if there is a calibration but nothing is quantized, shared networks but no mixture, or an unknown
    `trained`.
    """

    name: str
    loss: Loss
    optimization: Optimization
    search: PrecisionSearch | None
    target: float
    searched: str = SEARCHED
    quantizer: QuantizerSettings = field(default_factory=QuantizerSettings)
    activations: Activations = field(default_factory=Activations)
    calibrate: Gptq | None = None
    shared: Shared | None = None
    most_bytes: int | None = None
    coding: Coding = "zstd"
    budget: str = BITS
    trained: Trained = "all"

    def __post_init__(self) -> None:
        check_trained(f"recipe.stages.{self.name}", self.trained)
        if self.calibrate is not None and self.search is None and self.most_bytes is None:
            raise UserError(f"recipe.stages.{self.name}.calibrate fits quantized weights: the stage must have a search")
        if self.shared is not None and (self.search is None or self.search.frozen(0, self.optimization.updates)):
            raise UserError(f"recipe.stages.{self.name}.shared needs a search that learns during the updates")


@dataclass(frozen=True)
class RunContext:
    """What all stages of a run share: training data, machine, seed, the `folder` of unfinished work, ledger, logger.

    Each stage keeps its checkpoint and what it has learned in a subfolder of its name.
    """

    dataset: SpeechDataset
    machine: Machine
    seed: int
    folder: Path
    ledger: Ledger
    logger: Any

    def folder_of(self, stage: StageSettings) -> Path:
        """Return where the `stage` keeps its files."""
        return self.folder / stage.name

    def save_ledger(self) -> None:
        """Write the ledger, in the first process."""
        if processes.rank() == 0:
            write_text(self.folder / LEDGER, json.dumps(self.ledger.state()))

    def count_others(self) -> None:
        """Add up what the stage has cost the other processes so far; all processes must call this."""
        ledger = self.ledger
        ledger.others_processor_seconds = sum(processes.everyones(ledger.own_processor_seconds())[1:])

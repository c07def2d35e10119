"""One stage of a recipe: quantizers on, updates, precisions read off."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from mpq.data.dataset import SpeechDataset
from mpq.quant.sites import attach, find_sites, quantizers_of
from mpq.record.atomic import write_text
from mpq.record.ledger import Ledger
from mpq.search.assignment import Assignment
from mpq.search.base import PrecisionSearch
from mpq.train.distillation import Loss
from mpq.train.fit import Machine, choose_threads, fit
from mpq.train.module import Optimization, TrainingModule
from mpq.train.precisions import Precisions

LEDGER = "ledger.json"


def run_stage(
    name: str,
    student: nn.Module,
    *,
    searched: str,
    search: PrecisionSearch | None,
    target: float,
    quantizer: dict[str, Any],
    loss: Loss,
    optimization: Optimization,
    machine: Machine,
    dataset: SpeechDataset,
    seed: int,
    folder: Path,
    ledger: Ledger,
    logger: Any,
) -> Assignment:
    """Train `student` in place; return the precision of every searched site (none for full precision).

    `search` None trains in full precision; `quantizer` holds the arguments of `attach`. Checkpoints go to `folder`;
    where it holds those of an earlier run, that run is continued, and if it was finished only its outcome is loaded.
    """
    choose_threads(student, machine.threads)
    if not optimization.train_feature_encoder:
        student.freeze_feature_encoder()  # type: ignore[operator]  # every CTC model of transformers has it
    precisions = None if search is None else _precisions(student, searched, search, target, seed, quantizer)

    def save_ledger() -> None:
        write_text(folder / LEDGER, json.dumps(ledger.state()))

    module = TrainingModule(student, loss, optimization, dataset, seed, precisions, save_ledger)
    clock = nullcontext() if ledger.finished(name) else ledger.stage(name, int(machine.devices) * machine.nodes)
    with clock as entry:
        if optimization.updates > 0:
            fit(module, name, optimization, machine, folder / name, logger)
        if precisions is not None:
            precisions.freeze()
        if entry is not None:
            entry.updates, entry.audio_seconds = optimization.updates, module.audio_seconds
    save_ledger()
    return precisions.assignment() if precisions else {}


def _precisions(
    student: nn.Module, searched: str, search: PrecisionSearch, target: float, seed: int, quantizer: dict[str, Any]
) -> Precisions:
    """Bind the search to the student's sites and put quantizers there, unless an earlier stage has."""
    sites = find_sites(student, searched)
    search.bind([site for site in sites if site.searched], target, seed)
    quantizers = quantizers_of(student) or attach(student, sites, search.site_candidates(), **quantizer)
    return Precisions(search, quantizers)

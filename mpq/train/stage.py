"""One stage of a recipe: quantizers on, updates, precisions."""

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from mpq.data.dataset import SpeechDataset
from mpq.errors import UserError
from mpq.quant import compiled
from mpq.quant.activation_scales import Activations
from mpq.quant.gptq import Gptq
from mpq.quant.sites import find_sites
from mpq.record.atomic import write_text
from mpq.record.ledger import Ledger, Stage
from mpq.record.search import describe, write_search
from mpq.search.assignment import Assignment, from_json, to_json
from mpq.search.base import PrecisionSearch
from mpq.train import processes
from mpq.train.distillation import Loss
from mpq.train.fit import fit
from mpq.train.machine import Machine, choose_threads
from mpq.train.module import Optimization, TrainingModule
from mpq.train.precisions import Precisions
from mpq.train.quantizing import BITS, SEARCH, calibration, quantized

LEDGER = "ledger.json"


def run_stage(
    name: str,
    student: nn.Module,
    *,
    searched: str,
    search: PrecisionSearch | None,
    target: float,
    quantizer: dict[str, Any],
    activations: Activations | None = None,
    calibrate: Gptq | None = None,
    loss: Loss,
    optimization: Optimization,
    machine: Machine,
    dataset: SpeechDataset,
    seed: int,
    folder: Path,
    ledger: Ledger,
    logger: Any,
    attention_mask: bool = False,
) -> Assignment:
    """Train `student` in place; return the precision of every searched site (none for full precision).

    `search` None trains in full precision; `quantizer` holds the arguments of `attach`; `activations` quantizes the
    layers' inputs too; `calibrate` fits the quantized weights to audio in the end; `attention_mask` is that of
    `mpq.models.ctc.logits`, for what hears audio without training. The stage's checkpoint and its assignment, once
    known, go to a folder of its name in `folder`; where there are those of an earlier run, that run is continued, and
    if it was finished only its outcome is loaded.

    Raises: UserError where the settings can't be used.
    """
    choose_threads(student, machine.threads)
    compiled.choose(machine.compile)
    if not optimization.train_feature_encoder:
        student.freeze_feature_encoder()  # type: ignore[operator]  # every CTC model of transformers has it
    if calibrate is not None and search is None:
        raise UserError(f"recipe.stages.{name}.calibrate fits quantized weights: the stage must have a search")
    hear = partial(
        calibration, student, dataset, optimization.audio_seconds, seed, machine.accelerator, attention_mask, quantizer
    )
    clock = nullcontext(Stage(name)) if ledger.finished(name) else ledger.stage(name, processes.count())
    with clock as entry:
        _save(ledger, folder)  # so that a resumption counts, however soon the next kill comes
        precisions, module = None, None  # without a search; without an update, for which there may be no data
        if search is not None:
            sites = find_sites(student, searched)
            search.bind([site for site in sites if site.searched], target, seed)
            save = partial(_save, ledger, folder)
            precisions = quantized(
                name, student, sites, search, quantizer, activations, hear, entry, folder / name, save
            )
        if optimization.updates > 0:
            earlier = sum(stage.updates for stage in ledger.time().stages if stage.name != name)

            def save_of_all() -> None:
                _count_others(ledger)
                _save(ledger, folder)

            module = TrainingModule(student, loss, optimization, dataset, seed, precisions, save_of_all, earlier)
            fit(module, name, optimization, machine, folder / name, logger)
        if precisions is not None:
            _decide(name, precisions, module, folder / name)
        if calibrate is not None:
            heard = hear(calibrate.utterances)
            calibrate.calibrate(heard)
            entry.audio_seconds += heard.audio_seconds
        entry.updates = optimization.updates
        entry.audio_seconds += module.all_audio_seconds() if module else 0.0
        _count_others(ledger)
    _save(ledger, folder)
    return precisions.assignment() if precisions else {}


def _decide(name: str, precisions: Precisions, module: TrainingModule | None, folder: Path) -> None:
    """Settle the precisions as an earlier, killed process did, if it did, and write them down."""
    saved, learned = folder / BITS, folder / SEARCH
    precisions.freeze(processes.from_first(lambda: from_json(saved) if saved.is_file() else None))
    if processes.rank() == 0:
        to_json(precisions.assignment(), saved)
        if not learned.is_file():
            write_search(learned, [describe(name, precisions.search, module.trajectory if module else ())])


def _count_others(ledger: Ledger) -> None:
    """Count what the stage has cost the other processes so far; all of them must ask."""
    ledger.others_processor_seconds = sum(processes.everyones(ledger.own_processor_seconds())[1:])


def _save(ledger: Ledger, folder: Path) -> None:
    if processes.rank() == 0:
        write_text(folder / LEDGER, json.dumps(ledger.state()))

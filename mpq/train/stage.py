"""One stage of a recipe: sensitivities measured where its search asks for them, quantizers on, updates, precisions."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from mpq.data.dataset import SpeechDataset
from mpq.errors import UserError
from mpq.models.ctc import to_accelerator
from mpq.quant.activation_scales import Activations
from mpq.quant.gptq import Gptq
from mpq.quant.quantizer import WeightQuantizer
from mpq.quant.sites import attach, find_sites, fold_weight_norm, quantizers_of
from mpq.record.atomic import write_text
from mpq.record.ledger import Ledger
from mpq.record.search import describe, write_search
from mpq.search.assignment import Assignment, from_json, to_json
from mpq.search.base import PrecisionSearch
from mpq.search.calibration import Calibration, draw_batches
from mpq.search.fixed import FixedSearch
from mpq.search.measured import MeasuredSearch
from mpq.train import processes
from mpq.train.distillation import Loss
from mpq.train.fit import Machine, choose_threads, fit
from mpq.train.module import Optimization, TrainingModule
from mpq.train.precisions import Precisions

LEDGER = "ledger.json"
BITS = "bits.json"
SEARCH = "search.json"


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
    if not optimization.train_feature_encoder:
        student.freeze_feature_encoder()  # type: ignore[operator]  # every CTC model of transformers has it
    saved, learned = folder / name / BITS, folder / name / SEARCH

    is_first = processes.rank() == 0  # of several processes only that one measures and writes

    def save_ledger() -> None:
        if is_first:
            write_text(folder / LEDGER, json.dumps(ledger.state()))

    def calibration(utterances: int | None) -> Calibration:
        to_accelerator(student, machine.accelerator)
        fold_weight_norm(student)
        device = next(student.parameters()).device
        seconds = optimization.audio_seconds
        batches = [] if utterances is None else draw_batches(dataset, utterances, seconds, seed, device)
        settings = {key: value for key, value in quantizer.items() if key != "fixed_bits"}
        return Calibration(student.eval(), batches, attention_mask, **settings)

    _check_calibrate(name, search, calibrate)
    clock = nullcontext() if ledger.finished(name) else ledger.stage(name, processes.count())
    with clock as entry:
        save_ledger()  # so that a resumption counts, however soon the next kill comes
        precisions = None
        if search is not None:
            sites = find_sites(student, searched)
            search.bind([site for site in sites if site.searched], target, seed)
            attached, made = quantizers_of(student), {}
            _check_start(name, search, attached)
            if isinstance(search, MeasuredSearch) and is_first and not saved.is_file():
                heard = calibration(search.utterances)
                search.measure(heard)
                made = heard.quantizers
                write_search(learned, [describe(name, search, ())])
                to_json(search.assignment(), saved)
                if entry is not None:
                    entry.audio_seconds = heard.audio_seconds
                save_ledger()
            if activations is not None and not attached:
                seconds = activations.attach(student, sites, calibration)
                if entry is not None:
                    entry.audio_seconds += seconds
            bits = search.site_candidates()
            if isinstance(search, MeasuredSearch):
                bits = processes.from_first(lambda: from_json(saved))
            precisions = Precisions(search, attached or attach(student, sites, bits, **quantizer, made=made))
        earlier = sum(stage.updates for stage in ledger.time().stages if stage.name != name)
        module = None  # without an update there may be no data
        if optimization.updates > 0:
            module = TrainingModule(student, loss, optimization, dataset, seed, precisions, save_ledger, earlier)
            fit(module, name, optimization, machine, folder / name, logger)
        if precisions is not None:
            precisions.freeze(processes.from_first(lambda: from_json(saved) if saved.is_file() else None))
            if is_first:
                to_json(precisions.assignment(), saved)
            if is_first and not learned.is_file():
                write_search(learned, [describe(name, precisions.search, module.trajectory if module else ())])
        if calibrate is not None:
            heard = calibration(calibrate.utterances)
            calibrate.calibrate(heard)
            if entry is not None:
                entry.audio_seconds += heard.audio_seconds
        trained_on = module.all_audio_seconds() if module else 0.0  # which all processes add up together
        if entry is not None:
            entry.updates = optimization.updates
            entry.audio_seconds += trained_on
    save_ledger()
    return precisions.assignment() if precisions else {}


def _check_start(name: str, search: PrecisionSearch, attached: Mapping[str, WeightQuantizer]) -> None:
    """Refuse to search on a model whose precisions an earlier stage has decided."""
    if not attached:
        return
    given = search.assignment() if isinstance(search, FixedSearch) else {}
    if any(given.get(site.name) != attached[site.name].bits for site in search.sites):
        raise UserError(
            f"recipe.stages.{name} starts from the previous stage, whose precisions stand: it must take "
            "search=fixed with assignment=previous, or start_from=teacher"
        )


def _check_calibrate(name: str, search: PrecisionSearch | None, calibrate: Gptq | None) -> None:
    """Refuse to fit quantized weights where there are none."""
    if calibrate is not None and search is None:
        raise UserError(f"recipe.stages.{name}.calibrate fits quantized weights: the stage must have a search")

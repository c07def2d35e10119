"""One stage of a recipe: measure sensitivities where the search asks for it, attach quantizers, update, decide."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from mpq.data.dataset import SpeechDataset
from mpq.errors import UserError
from mpq.files import write_text
from mpq.models.ctc import to_accelerator
from mpq.quant import compiled
from mpq.quant.activation_scales import Activations
from mpq.quant.calibration import Calibration, draw_batches
from mpq.quant.gptq import Gptq
from mpq.quant.quantizer import WeightQuantizer
from mpq.quant.sites import Site, attach, find_sites, fold_weight_norm, quantizers_of
from mpq.record.ledger import Ledger, Stage
from mpq.record.run_folder import BITS, SEARCH
from mpq.record.search import write_search
from mpq.search.assignment import Assignment, from_json, to_json
from mpq.search.base import PrecisionSearch
from mpq.search.fixed import FixedSearch
from mpq.search.measured import MeasuredSearch
from mpq.train import processes
from mpq.train.fit import fit
from mpq.train.loss import Loss
from mpq.train.machine import Machine, choose_threads
from mpq.train.module import Optimization, TrainingModule
from mpq.train.precisions import Precisions, describe

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


def quantized(
    name: str,
    student: nn.Module,
    sites: Sequence[Site],
    search: PrecisionSearch,
    quantizer: Mapping[str, Any],
    activations: Activations | None,
    hear: Callable[[int | None], Calibration],
    entry: Stage,
    folder: Path,
    save_ledger: Callable[[], None],
) -> Precisions:
    """Put quantizers on the `sites` of `student`, unless it has them; return the precisions of those searched.

    What a measured search finds is written to `folder`, or read where an earlier process has written it.

    Raises: UserError where the student's precisions are decided and the `search` would decide them anew.
    """
    attached, made = quantizers_of(student), {}
    _check_start(name, search, attached)
    saved = folder / BITS
    if isinstance(search, MeasuredSearch) and processes.rank() == 0 and not saved.is_file():
        heard = hear(search.utterances)
        search.measure(heard)
        made = heard.quantizers
        write_search(folder / SEARCH, [describe(name, search, ())])
        to_json(search.assignment(), saved)
        entry.audio_seconds = heard.audio_seconds
        save_ledger()
    if activations is not None and not attached:
        entry.audio_seconds += activations.attach(student, sites, hear)
    bits = search.site_candidates()
    if isinstance(search, MeasuredSearch):
        bits = processes.from_first(lambda: from_json(saved))
    return Precisions(search, attached or attach(student, sites, bits, **quantizer, made=made))


def calibration(
    student: nn.Module,
    dataset: SpeechDataset,
    audio_seconds: float,
    seed: int,
    accelerator: str,
    attention_mask: bool,
    quantizer: Mapping[str, Any],
    utterances: int | None,
) -> Calibration:
    """The student, on its device, with `utterances` of the training set to hear (None: it hears nothing)."""
    to_accelerator(student, accelerator)
    fold_weight_norm(student)
    device = next(student.parameters()).device
    batches = [] if utterances is None else draw_batches(dataset, utterances, audio_seconds, seed, device)
    settings = {key: value for key, value in quantizer.items() if key != "fixed_bits"}
    return Calibration(student.eval(), batches, attention_mask, **settings)


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

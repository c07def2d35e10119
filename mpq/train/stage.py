"""One stage of a recipe: measure sensitivities if the search needs them, attach quantizers, train, decide."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from mpq.data.noise import noise_batch
from mpq.errors import UserError
from mpq.models.speech import SpeechModel
from mpq.progress import track
from mpq.quant import compiled
from mpq.quant.calibration import Calibration, draw_batches
from mpq.quant.places import first_places
from mpq.quant.quantizer import WeightQuantizer
from mpq.quant.sites import attach, find_sites, fold_weight_norm, quantizers_of
from mpq.record.ledger import begun
from mpq.record.result import StageTime
from mpq.record.run_folder import BITS, SEARCH
from mpq.record.search import write_search
from mpq.search.assignment import Assignment, from_json, to_json
from mpq.search.base import PrecisionSearch
from mpq.search.fixed import FixedSearch
from mpq.search.measured import MeasuredSearch
from mpq.search.rate import WIDTH, RateSearch
from mpq.search.rules import CODED
from mpq.train import processes
from mpq.train.coded_budget import Fitting, coded_bytes, coded_costs, cost_in, keep_to
from mpq.train.context import RunContext, StageSettings
from mpq.train.epoch import Epochs
from mpq.train.file_size import fit_to_size, keep_within, open_steps
from mpq.train.fit import fit
from mpq.train.machine import choose_threads
from mpq.train.module import TrainingModule
from mpq.train.precisions import Precisions, describe


def run_stage(student: SpeechModel, stage: StageSettings, run: RunContext) -> Assignment:
    """Train `student` in place; return the precision of every searched site (none for full precision).

    The stage's checkpoint and its assignment, once known, go to its folder. If an earlier run left them there, that run
    is resumed, or, if it was finished, only its outcome is loaded.

    Raises: UserError if the settings can't be used.
    """
    _prepare(student, stage, run)
    with _clock(stage, run) as entry:
        if stage.optimization.updates and entry.posteriors_found is None:  # not None: the stage is resumed
            entry.posteriors_found = stage.loss.posteriors_found()
        run.save_ledger()  # so that a resumption is counted even if the next kill comes soon
        precisions = None if stage.search is None else quantized(student, stage.search, stage, run, entry)
        module = None if stage.optimization.updates == 0 else _trained(student, stage, run, precisions)
        if precisions is not None:
            _decide(precisions, module, stage, run)
            if stage.budget == CODED:
                keep_to(student.model, precisions.search)
        if stage.most_bytes is not None:
            _keep_to_size(student, stage, stage.most_bytes, run, entry)
        elif stage.calibrate is not None:
            audio = calibration(student, stage, run, stage.calibrate.utterances)
            stage.calibrate.calibrate(audio, _fitting(student, stage, precisions))
            entry.audio_seconds += audio.audio_seconds
        entry.updates = stage.optimization.updates
        entry.audio_seconds += module.all_audio_seconds() if module else 0.0
        run.count_others()
    run.save_ledger()
    return precisions.assignment() if precisions and stage.most_bytes is None else _assignment(student, stage)


def _prepare(student: SpeechModel, stage: StageSettings, run: RunContext) -> None:
    """Choose threads and kernels, and freeze what the stage does not train."""
    choose_threads(student.model, run.machine.threads)
    compiled.choose(run.machine.compile)
    if not stage.optimization.train_feature_encoder:
        student.freeze_feature_encoder()
    if stage.trained == "vectors":
        for parameter in student.model.parameters():
            if parameter.ndim > 1:  # scales, too
                parameter.requires_grad_(False)


def _clock(stage: StageSettings, run: RunContext) -> AbstractContextManager[StageTime]:
    """Return the ledger's clock for the stage, or an entry that is not recorded if the stage was finished before."""
    if run.ledger.finished(stage.name):
        return nullcontext(begun(stage.name))
    return run.ledger.stage(stage.name, processes.count())


def quantized(
    student: SpeechModel, search: PrecisionSearch, stage: StageSettings, run: RunContext, entry: StageTime
) -> Precisions:
    """Attach quantizers to the sites of `student`, unless it has them; return the precisions of the searched ones.

    The result of a measured search is written to the stage's folder, or read if an earlier process has written it.

    Raises: UserError if the student's precisions are decided and the `search` would decide them again.
    """
    sites = find_sites(student.model, stage.searched)
    attached, made = quantizers_of(student.model), {}
    if stage.most_bytes is None:
        search.bind([site for site in sites if site.searched], stage.target, run.seed, stage.budget)
        _check_start(stage.name, search, attached)
    else:  # made for a size: steps of all weights are learned at what the codes take now
        search.bind(sites, open_steps(student.model, sites), run.seed)
    saved = run.folder_of(stage) / BITS
    if isinstance(search, MeasuredSearch) and processes.rank() == 0 and not saved.is_file():
        measured = calibration(student, stage, run, search.utterances)
        search.measure(measured)
        made = measured.quantizers
        if stage.budget == CODED:
            search.renew_costs(coded_costs(student.model, search, made))
        write_search(run.folder_of(stage) / SEARCH, [describe(stage.name, search, ())])
        to_json(search.assignment(), saved)
        entry.audio_seconds = measured.audio_seconds
        run.save_ledger()
    if not attached:
        calibrated = partial(calibration, student, stage, run)
        entry.audio_seconds += stage.activations.attach(student.model, sites, calibrated)
    bits = search.site_candidates()
    if isinstance(search, MeasuredSearch):
        bits = processes.from_first(lambda: from_json(saved))
    student.to_accelerator(run.machine.accelerator)  # where scales take seconds instead of minutes
    told = track(sites, "Starting scales", "weights", shown=processes.rank() == 0)
    quantizers = attached or attach(student.model, told, bits, stage.quantizer, made)
    if isinstance(search, RateSearch):
        search.take(student.model, cost_in("zstd"))
        return Precisions(search, quantizers, search.measure)
    if stage.budget == CODED and not isinstance(search, MeasuredSearch):
        return Precisions(
            search, quantizers, lambda: search.renew_costs(coded_costs(student.model, search, quantizers))
        )
    return Precisions(search, quantizers)


def calibration(student: SpeechModel, stage: StageSettings, run: RunContext, utterances: int | None) -> Calibration:
    """Return the student, on its device, with `utterances` of the training set for forward passes (None: no audio)."""
    student.to_accelerator(run.machine.accelerator)
    fold_weight_norm(student.model)
    audio_seconds, batches = stage.optimization.audio_seconds, []
    if utterances is not None:
        batches = draw_batches(run.dataset, utterances, audio_seconds, run.seed, student.device)
    student.model.eval()
    return Calibration(student, batches, stage.quantizer)


def _keep_to_size(student: SpeechModel, stage: StageSettings, most: int, run: RunContext, entry: StageTime) -> None:
    """Quantize `student` for a file of at most `most` bytes, or, once it was trained, keep it to that.

    Without a calibration, it hears noise.
    """
    sites = find_sites(student.model, stage.searched)
    if stage.search is not None:
        keep_within(student.model, sites, most, stage.coding)
        return
    audio = calibration(student, stage, run, stage.calibrate and stage.calibrate.utterances)
    if stage.calibrate is None:
        audio.batches = [noise_batch(student.reader, run.seed).to(student.device)]
    fit_to_size(audio, sites, most, stage.coding, stage.calibrate, run.seed)
    entry.audio_seconds += audio.audio_seconds if stage.calibrate else 0.0


def _fitting(student: SpeechModel, stage: StageSettings, precisions: Precisions | None) -> Fitting | None:
    """Return what keeps GPTQ within a budget of coded bits; None where the budget is in bits."""
    if precisions is None or stage.budget != CODED:
        return None
    found = first_places(student.model)
    places = [found[site.name] for site in precisions.search.sites]
    planned = {p.name: coded_bytes(p.weight, q, bits) for p in places if (q := p.quantizer) and (bits := q.bits)}
    return Fitting(planned, cost_in("zstd"))


def _assignment(student: SpeechModel, stage: StageSettings) -> Assignment:
    """Return the bits of the searched sites of a model that was quantized without a search; none if it is not."""
    quantizers = quantizers_of(student.model)
    sites = find_sites(student.model, stage.searched) if quantizers else []
    return {site.name: bits for site in sites if site.searched and (bits := quantizers[site.name].bits) is not None}


def _check_start(name: str, search: PrecisionSearch, attached: Mapping[str, WeightQuantizer]) -> None:
    """Refuse to search on a model whose precisions an earlier stage has decided."""
    learned = isinstance(search, RateSearch)
    if not attached or (learned and all(attached[site.name].candidates == (WIDTH,) for site in search.sites)):
        return
    given = search.assignment() if isinstance(search, FixedSearch) else {}
    if any(given.get(site.name) != attached[site.name].bits for site in search.sites):
        raise UserError(
            f"recipe.stages.{name} starts from the previous stage, whose precisions are final: it must use "
            "search=fixed with assignment=previous, or start_from=teacher"
        )


def _trained(
    student: SpeechModel, stage: StageSettings, run: RunContext, precisions: Precisions | None
) -> TrainingModule:
    """Run the updates of the stage, resuming from the checkpoint of an earlier, killed process if there is one."""
    earlier = sum(other.updates for other in run.ledger.time().stages if other.name != stage.name)
    epochs = Epochs(run.dataset, stage.optimization, run.seed)

    def save_ledger_of_all() -> None:
        run.count_others()
        run.save_ledger()

    module = TrainingModule(student, stage.loss, epochs, precisions, save_ledger_of_all, earlier, stage.shared)
    fit(module, stage.name, stage.optimization, run.machine, run.folder_of(stage), run.logger)
    return module


def _decide(precisions: Precisions, module: TrainingModule | None, stage: StageSettings, run: RunContext) -> None:
    """Freeze the precisions, as an earlier, killed process decided if it got that far, and write them."""
    saved, learned = run.folder_of(stage) / BITS, run.folder_of(stage) / SEARCH
    precisions.freeze(processes.from_first(lambda: from_json(saved) if saved.is_file() else None))
    if isinstance(precisions.search, RateSearch):
        precisions.search.finish(cost_in(stage.coding))
    if processes.rank() == 0:
        to_json(precisions.assignment(), saved)
        if not learned.is_file():
            write_search(learned, [describe(stage.name, precisions.search, module.trajectory if module else ())])

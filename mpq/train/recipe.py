"""Runs the stages of a recipe, one after the other, from the teacher to the compressed model."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from mpq import conf
from mpq.checkpoint.requantize import packed_start
from mpq.checkpoint.supernet import supernet_start
from mpq.data.corpus import Corpus
from mpq.data.dataset import SpeechDataset
from mpq.data.folder import tell_left_out
from mpq.errors import UserError
from mpq.models.speech import SpeechModel
from mpq.quant.activation_scales import Activations
from mpq.quant.quantizer import QuantizerSettings
from mpq.record.ledger import Ledger
from mpq.record.run_folder import SEARCH
from mpq.record.search import StageSearch, read_search
from mpq.search.assignment import Assignment
from mpq.search.base import PrecisionSearch
from mpq.stages import START_FROM, is_supernet
from mpq.train.context import LEDGER, RunContext, StageSettings
from mpq.train.file_size import MEGABYTE
from mpq.train.loss import Loss, Posteriors, folder_of
from mpq.train.machine import machine_of
from mpq.train.optimization import Optimization
from mpq.train.rules import TEACHER, TRANSCRIPTS
from mpq.train.shared import Shared
from mpq.train.stage import run_stage
from mpq.train.teacher_labels import TeacherLabels


def run_recipe(
    cfg: DictConfig, teacher: SpeechModel, corpus: Corpus, folder: Path, logger: Any
) -> tuple[nn.Module, Assignment, Ledger]:
    """Run the recipe of a settled config; return the model, the precisions of its searched sites, and the cost.

    Each stage starts from a copy of the `teacher`, from the `previous` stage's model, from the folder of a packed model
    (`mpq.checkpoint.requantize`), or (`scratch`) from the teacher itself, which then has random weights. Without stages
    the model is the teacher.

    Raises: UserError if a stage's settings can't be used.
    """
    ledger = _ledger(folder)
    dataset = _dataset(cfg, teacher, corpus, ledger)
    run = RunContext(dataset, machine_of(cfg.trainer), cfg.seed, folder, ledger, logger)
    posteriors = _posteriors(cfg, teacher, corpus)
    student, assignment = teacher, {}
    for name, chosen in cfg.recipe.stages.items():
        student, assignment = _start(cfg, chosen, teacher, student, assignment)
        loss = _loss(cfg, None if chosen.start_from == "scratch" else teacher, posteriors)
        assignment = run_stage(student, _stage(cfg, str(name), chosen, assignment, loss), run)
    return student.model, assignment, run.ledger


def learned(cfg: DictConfig, folder: Path) -> list[StageSearch]:
    """Return what the search of each stage of a finished recipe learned; full-precision stages have none."""
    files = [folder / str(name) / SEARCH for name in cfg.recipe.stages]
    return [stage for file in files if file.is_file() for stage in read_search(file)]


def _ledger(folder: Path) -> Ledger:
    """Return the ledger that an earlier, killed process left in `folder`, or a new one."""
    ledger = Ledger()
    if (folder / LEDGER).is_file():
        ledger.restore(json.loads((folder / LEDGER).read_text(encoding="utf-8")))
    return ledger


def _dataset(cfg: DictConfig, teacher: SpeechModel, corpus: Corpus, ledger: Ledger) -> SpeechDataset:
    """Return the training data, with the labels that the settings choose.

    Utterances that are longer than the model can be trained on are left out.

    Raises: UserError if a transcript has a token that the model lacks.
    """
    longest = teacher.reader.longest_seconds
    utterances = [utterance for utterance in corpus.train if longest is None or utterance.seconds <= longest]
    if len(utterances) < len(corpus.train):
        tell_left_out([f"{u.path} is longer than {longest:g} s" for u in corpus.train if u.seconds > (longest or 0)])
    labeller = None
    if cfg.data.get("labels") == TEACHER:
        labeller = TeacherLabels(teacher, cfg.cache, corpus.hash, cfg.trainer.accelerator, ledger.paused)
    dataset = SpeechDataset(utterances, teacher.reader, cfg.data.on_bad_audio, labeller)
    if cfg.recipe.stages and labeller is None:
        dataset.check_labels(teacher.model.config.vocab_size)
    return dataset


def _posteriors(cfg: DictConfig, teacher: SpeechModel, corpus: Corpus) -> Posteriors | None:
    """Return the teacher's posteriors on disk, if the settings keep them and a stage may need them."""
    if not (cfg.distill.get("keep") and cfg.distill.kl_weight and cfg.recipe.stages):
        return None
    labels = cfg.data.get("labels", TRANSCRIPTS)
    return Posteriors(folder_of(cfg.cache, teacher, corpus, cfg.trainer.precision, labels), teacher)


def _start(
    cfg: DictConfig, stage: DictConfig, teacher: SpeechModel, previous: SpeechModel, assignment: Assignment
) -> tuple[SpeechModel, Assignment]:
    """Return the model that a stage starts from and the precisions decided before; `assignment`: of the last stage."""
    if stage.start_from == "teacher":
        return teacher.copy(), assignment
    if stage.start_from in START_FROM:
        return previous, assignment
    packed, given = Path(stage.start_from), stage.get("assignment")
    if is_supernet(packed):
        if given is None and (stage.search or {}).get("name") != "rate":
            raise UserError(f"start_from={packed} needs an assignment, as scripts/rebudget.py sets one")
        start = teacher.copy().model
        model, assignment = supernet_start(packed, given, start, cfg.model.searched, _quantizer(cfg))
        return replace(teacher, model=model), assignment
    model, assignment = packed_start(packed, given, teacher.model, cfg.model.searched, _quantizer(cfg))
    return replace(teacher, model=model), assignment


def _stage(cfg: DictConfig, name: str, stage: DictConfig, previous: Assignment, loss: Loss) -> StageSettings:
    """Return the settings of a stage, including those from the rest of the config and from the previous stage."""
    return StageSettings(
        name,
        loss,
        _optimization(cfg, stage),
        search=_search(stage.search, previous),
        target=cfg.target_bits,
        searched=cfg.model.searched,
        quantizer=_quantizer(cfg),
        activations=_activations(cfg),
        calibrate=conf.made(stage.calibrate) if stage.get("calibrate") else None,
        shared=_shared(stage),
        most_bytes=None if stage.get("megabytes") is None else int(stage.megabytes * MEGABYTE),
        coding=cfg.coding,
        budget=cfg.budget,
        trained=stage.get("trained", "all"),
    )


def _search(search: DictConfig | None, previous: Assignment) -> PrecisionSearch | None:
    """Return the search of a stage; `assignment: previous` is replaced by the previous stage's assignment."""
    if search is None:
        return None
    settings: Mapping[str, Any] = OmegaConf.to_container(search, resolve=True)  # type: ignore[assignment]
    return conf.made(settings, **({"assignment": previous} if settings.get("assignment") == "previous" else {}))


def _shared(stage: DictConfig) -> Shared | None:
    """Return the networks that share the weights of a stage's mixture, if it has any."""
    if stage.get("shared") is None:
        return None
    given: Any = OmegaConf.to_container(stage.shared)
    return Shared(**{**given, "networks": tuple(given["networks"])})


def _loss(cfg: DictConfig, teacher: SpeechModel | None, posteriors: Posteriors | None) -> Loss:
    weights = {key: value for key, value in cfg.distill.items() if key != "keep"}
    return Loss(**weights, teacher=teacher, posteriors=posteriors)


def _quantizer(cfg: DictConfig) -> QuantizerSettings:
    """Return the settings of `quantizer` for weights."""
    return QuantizerSettings(**{field.name: cfg.quantizer[field.name] for field in fields(QuantizerSettings)})


def _activations(cfg: DictConfig) -> Activations:
    """Return the settings of `quantizer` for activations."""
    q = cfg.quantizer
    given = {"kind": q.get("activations"), "percentile": q.get("activation_percentile")}
    chosen = {key: value for key, value in given.items() if value is not None}
    return Activations(**chosen, utterances=cfg.trainer.calibration_utterances)


def _optimization(cfg: DictConfig, stage: DictConfig) -> Optimization:
    """Return the trainer's settings, or the stage's own where it has them; others are for recipes to refer to.

    A stage's own `learning_rate` is that of all its parameters but the scales.
    """
    names = {field.name for field in fields(Optimization)} - {"workers"}
    given = {name: stage.get(name, cfg.trainer[name]) for name in names}
    if "learning_rate" in stage:
        given["vector_learning_rate"] = None
    return Optimization(workers=cfg.data.workers, **given)

"""Runs the stages of a recipe, one after the other, from the teacher to the compressed model."""

import copy
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra.utils
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mpq.checkpoint.requantize import packed_start
from mpq.data.corpus import Corpus
from mpq.data.dataset import SpeechDataset
from mpq.quant.activation_scales import Activations
from mpq.record.ledger import Ledger
from mpq.record.search import StageSearch, read_search
from mpq.search.assignment import Assignment
from mpq.search.base import PrecisionSearch
from mpq.settings import START_FROM
from mpq.train.loss import Loss, Posteriors, folder_of
from mpq.train.machine import machine_of
from mpq.train.module import Optimization
from mpq.train.stage import LEDGER, SEARCH, run_stage


def run_recipe(
    cfg: DictConfig, teacher: nn.Module, processor: Any, corpus: Corpus, folder: Path, logger: Any
) -> tuple[nn.Module, Assignment, Ledger]:
    """The model that the recipe of a settled config makes, the precisions of its searched sites, and what it cost.

    Each stage starts from a copy of the `teacher`, from the `previous` stage's model, from the folder of a packed model
    (`mpq.checkpoint.requantize`), or (`scratch`) from the teacher itself where that has random weights. Without a stage
    it is the teacher.

    Raises: UserError where a stage's settings can't be used.
    """
    attention_mask = bool(processor.feature_extractor.return_attention_mask)
    ledger = Ledger()
    if (folder / LEDGER).is_file():
        ledger.restore(json.loads((folder / LEDGER).read_text(encoding="utf-8")))
    dataset = SpeechDataset(corpus.train, processor, cfg.data.on_bad_audio)
    if cfg.recipe.stages:
        dataset.check_labels(teacher.config.vocab_size)  # type: ignore[union-attr,operator]  # transformers' model
    posteriors = None
    if cfg.distill.get("keep") and cfg.distill.kl_weight and cfg.recipe.stages:
        kept = folder_of(cfg.cache, teacher, processor, corpus, cfg.trainer.precision)
        posteriors = Posteriors(kept, teacher, attention_mask)
    model, assignment = teacher, {}
    for name, stage in cfg.recipe.stages.items():
        if stage.start_from == "teacher":
            model = copy.deepcopy(teacher)
        elif stage.start_from not in START_FROM:
            settings = {key: cfg.quantizer[key] for key in ("granularity", "centred", "clipping")}
            packed = Path(stage.start_from)
            model, assignment = packed_start(packed, stage.get("assignment"), teacher, cfg.model.searched, settings)
        assignment = run_stage(
            str(name),
            model,
            searched=cfg.model.searched,
            search=_search(stage.search, assignment),
            target=cfg.target_bits,
            quantizer={key: value for key, value in cfg.quantizer.items() if not key.startswith("activation")},
            activations=_activations(cfg),
            calibrate=hydra.utils.instantiate(stage.get("calibrate")),
            loss=Loss(
                **{key: value for key, value in cfg.distill.items() if key != "keep"},
                teacher=None if stage.start_from == "scratch" else teacher,
                attention_mask=attention_mask,
                posteriors=posteriors,
            ),
            optimization=_optimization(cfg, stage),
            machine=machine_of(cfg.trainer),
            dataset=dataset,
            seed=cfg.seed,
            folder=folder,
            ledger=ledger,
            logger=logger,
            attention_mask=attention_mask,
        )
    return model, assignment, ledger


def learned(cfg: DictConfig, folder: Path) -> list[StageSearch]:
    """What the search of each stage of a finished recipe learned; a stage in full precision has none."""
    files = [folder / str(name) / SEARCH for name in cfg.recipe.stages]
    return [stage for file in files if file.is_file() for stage in read_search(file)]


def _search(search: DictConfig | None, previous: Assignment) -> PrecisionSearch | None:
    """The search of a stage; one that takes `assignment: previous` is given that of the stage before."""
    if search is None:
        return None
    settings: Mapping[str, Any] = OmegaConf.to_container(search, resolve=True)  # type: ignore[assignment]
    if settings.get("assignment") == "previous":
        settings = {**settings, "assignment": previous}
    return hydra.utils.instantiate(settings, _convert_="all")


def _activations(cfg: DictConfig) -> Activations:
    """The settings of `quantizer` that are about activations."""
    q = cfg.quantizer
    given = {"kind": q.get("activations"), "percentile": q.get("activation_percentile")}
    chosen = {key: value for key, value in given.items() if value is not None}
    return Activations(**chosen, utterances=cfg.trainer.calibration_utterances)


def _optimization(cfg: DictConfig, stage: DictConfig) -> Optimization:
    """The trainer's settings with the stage's number of updates; the trainer has more, for recipes to refer to."""
    names = {field.name for field in fields(Optimization)} - {"updates", "workers"}
    return Optimization(updates=stage.updates, workers=cfg.data.workers, **{name: cfg.trainer[name] for name in names})

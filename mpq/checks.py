"""What a run's config, data and model are checked for before torch is imported, so that a mistake is told at once.

The rules themselves stand beside what they are for: `rules` in `search`, `quant` and `train`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mpq import conf, settings, stages
from mpq.data import corpus
from mpq.data.corpus import Corpus
from mpq.errors import UserError, unused
from mpq.models.hub import check_available
from mpq.quant import rules as quant_rules
from mpq.record.identity import DIGEST, OF_STAGES, flat
from mpq.record.result import Result
from mpq.record.run_folder import RunFolder
from mpq.search import rules as search_rules
from mpq.tracking.logger import check as check_logger
from mpq.train import rules as train_rules


def checked(cfg: DictConfig) -> DictConfig:
    """Return the settled config of a run.

    Raises: UserError if the config, the data or the model can't be used. Only what classes outside of `conf/` decide is
    left to `stages.check_target`, and what depends on the machine to `mpq.train.machine.check`.
    """
    cfg = settings.settle(cfg)
    check_recipe(cfg)
    check_logger(cfg.logger)
    corpus.check(**settings.data_of(cfg))
    corpus.check_evaluated(cfg.data.test_audio_seconds, cfg.data.get("utterances_per_speaker"))
    if not settings.random_weights(cfg):
        check_available(settings.model_path(cfg))
    return cfg


def check_recipe(cfg: DictConfig) -> None:
    """Raise UserError if the stages of a settled config, or the settings that they share, can't be used."""
    stages.check_stage_keys(cfg.recipe.stages)
    for name, stage in cfg.recipe.stages.items():
        _check_parts(f"recipe.stages.{name}", stage, cfg.target_bits)
        _check_size(f"recipe.stages.{name}", stage, cfg)
    searches = [str(stage.search.get("name")) for stage in cfg.recipe.stages.values() if stage.get("search")]
    search_rules.check_budget(cfg.budget, cfg.coding, searches)
    if cfg.target_megabytes is not None and not _is_sized(cfg.recipe.stages):
        raise UserError(
            f"target_megabytes={cfg.target_megabytes} is for recipe={' and recipe='.join(_sized_recipes())}; "
            f"recipe={cfg.recipe.name} takes target_bits"
        )
    stages.check_starts(cfg.recipe.stages)
    _check_training(cfg)


def _is_sized(stages: Mapping[Any, Any]) -> bool:
    """Whether a recipe of these stages quantizes for a size of the file."""
    return any("megabytes" in stage for stage in stages.values())


def _sized_recipes() -> list[str]:
    return [name for name in conf.names("recipe") if _is_sized(conf.recipe(name)["stages"])]


def _check_size(own: str, stage: DictConfig, cfg: DictConfig) -> None:
    if "megabytes" not in stage:
        return
    if stage.megabytes is None:
        raise UserError(f"recipe={cfg.recipe.name} needs target_megabytes=MB, the size of the file")
    learned = stage.search is not None  # the steps of a stage before
    updates = 0 if learned else stage.updates
    train_rules.check_megabytes(own, stage.megabytes, updates, cfg.quantizer.get("activations", "none"))
    if learned and (stage.search.get("name"), stage.start_from) != ("rate", "previous"):
        raise UserError(
            f"{own} trains at the size of an earlier stage's file: it must have search=rate and start_from=previous"
        )
    if learned and cfg.coding == "none":
        raise UserError(f"{own} learns steps at what codes take once coded, so coding=none must be coding=zstd")


def _check_parts(own: str, stage: DictConfig, target: float) -> None:
    for part in ("search", "calibrate"):
        if stage.get(part) is not None:
            stages.check_is_part(f"{own}.{part}", stage[part])
    if stage.get("search") is not None:
        search_rules.check_settings(f"{own}.search", _plain(stage.search), target)
    if stage.get("calibrate") is not None and stage.calibrate.get("name") == "gptq":
        given = _plain(stage.calibrate)
        quant_rules.check_gptq(**{key: given[key] for key in ("utterances", "damping", "block") if key in given})


def _check_training(cfg: DictConfig) -> None:
    """Check the settings of `trainer`, `quantizer` and `distill`, which all stages share."""
    train_rules.check_machine(cfg.trainer)
    train_rules.check_labels(cfg.data.get("labels", train_rules.TRANSCRIPTS))
    quantizer, distill = cfg.quantizer, cfg.distill
    quant_rules.check_weights(quantizer.granularity, quantizer.clipping, quantizer.fixed_bits)
    kind, percentile = quantizer.get("activations", "none"), quantizer.get("activation_percentile", 100)
    quant_rules.check_activations(kind, percentile, cfg.trainer.calibration_utterances)
    for name, stage in cfg.recipe.stages.items():
        if stage.get("shared") is not None:
            candidates = (stage.search or {}).get("candidates")
            train_rules.check_shared_stage(_plain(stage.shared), candidates, stage.updates, distill.ctc_weight)
        last = name == list(cfg.recipe.stages)[-1]
        train_rules.check_trained(f"recipe.stages.{name}", stage.get("trained", "all"), last)
        own = {key: stage[key] for key in ("updates", "learning_rate") if key in stage}
        given: Any = OmegaConf.merge(cfg.trainer, {"workers": cfg.data.workers}, own)
        keys = {key: f"recipe.stages.{name}.{key}" for key in own if own[key] != cfg.trainer[key]}
        train_rules.check_optimization(given, keys)
        has_teacher = stage.start_from != "scratch"
        train_rules.check_loss(distill.ctc_weight, distill.kl_weight, distill.temperature, has_teacher)


def tell_unused(cfg: DictConfig, given: Sequence[str]) -> None:
    """Warn about settings that were given and have no effect on a settled config's run, by dotted name."""
    if not cfg.recipe.stages:
        useless = [key for key in given if key.partition(".")[0] in OF_STAGES]
        unused(useless, f"recipe={cfg.recipe.name} trains and quantizes nothing")
    if "target_bits" in given and _is_sized(cfg.recipe.stages):
        unused(["target_bits"], f"recipe={cfg.recipe.name} quantizes for target_megabytes={cfg.target_megabytes}")
    for mode in ("smoke", "demo"):
        own = flat(OmegaConf.to_container(OmegaConf.load(conf.CONF / f"{mode}.yaml"))) if cfg[mode] else {}
        for key in sorted(own.keys() & set(given)):
            unused([key], f"{mode}=true sets it to {own[key]}")


def recordings(cfg: DictConfig) -> Corpus | None:
    """Read the recordings below `data.root` and note their hash in a settled config; None for the embedded corpus.

    Recordings may have changed since a run of the same settings.
    """
    if not cfg.data.root:
        return None
    found = open_data(cfg)
    cfg.data.hash = found.hash
    return found


def weights(cfg: DictConfig, known: dict[str, str] | None = None) -> None:
    """Note the digest of the model's weights in a settled config whose record has the model at another path.

    A copy of the model in another folder, or the same model by its name on the Hub, makes the same run. `known`:
    digests by path, added to, for many runs of a model.

    Raises: UserError if the model can't be loaded.
    """
    path = settings.model_path(cfg)
    recorded = RunFolder(cfg.root, cfg.exp, cfg.seed).settings().get("model.path")
    if recorded in (None, str(cfg.model.path)) or settings.random_weights(cfg):
        return
    known = {} if known is None else known
    if path not in known:
        from mpq.checkpoint.tensors import weights_digest  # here, since they import torch, and few runs need them
        from mpq.models.loading import load

        check_available(path)
        known[path] = weights_digest(load(path, language=cfg.model.get("language"))[0])
    cfg.model[DIGEST] = known[path]


def open_data(cfg: DictConfig) -> Corpus:
    """Open the data of a settled config."""
    limit = cfg.data.get("utterances_per_speaker")
    return corpus.open_corpus(**settings.data_of(cfg), cache=cfg.cache, utterances_per_speaker=limit)


def finished(cfg: DictConfig) -> Result | None:
    """Return the record of a settled config's run, whose recordings were read, if nothing of it is missing."""
    return RunFolder(cfg.root, cfg.exp, cfg.seed).finished(cfg)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg)  # type: ignore[return-value]  # a DictConfig gives a dict

"""What a run's config, data and model are checked for before torch is imported, so that a mistake is told at once."""

from omegaconf import DictConfig

from mpq import settings
from mpq.data.corpus import check as check_data
from mpq.models.hub import check_available
from mpq.record.result import Result
from mpq.record.run_folder import RunFolder
from mpq.search.allocate import check_candidates, check_target
from mpq.tracking.logger import check as check_logger


def checked(cfg: DictConfig) -> DictConfig:
    """Return the settled config of a run.

    Raises: UserError if the config, the data or the model can't be used. Only what the class of a search decides is
    left to `settings.check_target`, since these classes are modules of torch.
    """
    cfg = settings.settle(cfg)
    settings.check_stage_keys(cfg.recipe.stages)
    for stage in cfg.recipe.stages.values():
        if stage.get("search") and stage.search.get("candidates") is not None:
            check_target(cfg.target_bits, check_candidates(list(stage.search.candidates)))
    settings.check_starts(cfg.recipe.stages)
    check_logger(cfg.logger)
    check_data(**settings.data_of(cfg))
    if not settings.random_weights(cfg):
        check_available(settings.model_path(cfg))
    return cfg


def finished(cfg: DictConfig) -> Result | None:
    """Return the record of a settled config's run on the embedded corpus if it is finished and nothing is missing.

    Whether a run on a folder of recordings is finished is for `mpq.pipeline` to say, which reads the folder.
    """
    return None if cfg.data.root else RunFolder(cfg.root, cfg.exp, cfg.seed).finished(cfg)

"""The stages of a recipe: what they may be, and what a run keeps of them.

A stage has a search or none, a start, updates, and what `mpq.train.recipe` reads besides.
"""

import inspect
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from mpq import conf
from mpq.errors import UserError
from mpq.record.run_folder import SUPERNET

START_FROM = ("teacher", "previous", "scratch")
_NEEDED = ("search", "start_from", "updates")
_OTHERS = ("assignment", "calibrate", "shared", "megabytes", "trained", "learning_rate")  # see mpq.train.recipe


def check_target(cfg: DictConfig) -> None:
    """Raise UserError if `target_bits` is outside what the recipe's searches allow, or a stage can't be used."""
    from hydra.utils import get_class  # here, since what they import takes seconds

    from mpq.search.base import PrecisionSearch

    check_stages(cfg.recipe.stages)
    for name, stage in cfg.recipe.stages.items():
        if stage.search:
            search = get_class(stage.search._target_)
            if not issubclass(search, PrecisionSearch):
                own = f"recipe.stages.{name}.search._target_={stage.search._target_}"
                raise UserError(f"{own} must be a class derived from mpq.search.base.PrecisionSearch")
            search.check_budget(cfg.target_bits, stage.search)


def check_stages(stages: DictConfig) -> None:
    """Raise UserError for an unknown setting of a stage, search or calibration, or an invalid value."""
    check_stage_keys(stages)
    for name, stage in stages.items():
        own = f"recipe.stages.{name}"
        for part in ("search", "calibrate"):
            if stage.get(part) is not None:
                _check_part(f"{own}.{part}", stage[part])


def check_stage_keys(stages: DictConfig) -> None:
    """Raise UserError if a stage lacks a setting or has an unknown one."""
    for name, stage in stages.items():
        own = f"recipe.stages.{name}"
        if missing := [key for key in _NEEDED if key not in stage]:
            raise UserError(f"{own} must set {', '.join(missing)}; the stages are {', '.join(map(str, stages))}")
        _check_keys(own, stage, (*_NEEDED, *_OTHERS), "a stage")


def check_starts(stages: DictConfig) -> None:
    """Raise UserError if a stage's start does not exist: a folder without a packed model, or no previous stage."""
    for number, (name, stage) in enumerate(stages.items()):
        known = [word for word in START_FROM if number or word != "previous"]
        start = Path(str(stage.start_from))
        packed = stage.start_from is not None and ((start / "config.json").is_file() or is_supernet(start))
        if stage.start_from not in known and not packed:
            raise UserError(
                f"recipe.stages.{name}.start_from={stage.start_from} must be one of {', '.join(known)}, or the folder "
                "of a packed model (<run>/model)"
            )


def budgets_of(recipe: Any) -> Literal["shared", "every_rate"] | None:
    """What makes other budgets readable from a run of `recipe`, which keeps its float weights for that; None: nothing.

    `shared`: they were trained at every precision. `every_rate`: with learned steps at each rate of a range.
    """
    stages = list(recipe.stages.values()) if recipe and recipe.get("stages") else []
    if not stages:
        return None
    last = stages[-1]
    if last.get("shared"):
        return "shared"
    return "every_rate" if (last.get("search") or {}).get("lowest") is not None else None


def is_supernet(start: Path) -> bool:
    """Whether a stage's `start_from` is a run's supernet, from which a budget is read."""
    return start.name == SUPERNET and start.is_file()


def check_is_part(own: str, settings: Any) -> None:
    """Raise UserError unless `settings` are those of a search or a calibration: a file's, or a class's."""
    group = own.rpartition(".")[2]
    if not isinstance(settings, DictConfig) or "_target_" not in settings:
        raise UserError(
            f"{own}={settings} must name its class with _target_; to choose a file of conf/{group}, write "
            f"{group}@{own}=NAME, with one of {', '.join(conf.names(group))}"
        )


def _check_part(own: str, settings: Any) -> None:
    """Check settings by constructing their object, unless it needs the precisions of a previous stage."""
    from hydra.utils import get_class  # here, since what it imports takes seconds

    check_is_part(own, settings)
    kind = get_class(settings["_target_"])
    _check_keys(own, settings, ("name", "_target_", *inspect.signature(kind).parameters), kind.__name__)
    if settings.get("assignment") != "previous":
        conf.made(OmegaConf.to_container(settings, resolve=True))  # type: ignore[arg-type]  # a DictConfig gives a dict


def _check_keys(own: str, settings: DictConfig, known: tuple[str, ...], owner: str) -> None:
    if unknown := [str(key) for key in settings if key not in known]:
        choices = ", ".join(sorted(key for key in known if key not in ("name", "_target_")))
        raise UserError(f"there is no setting {own}.{unknown[0]}; {owner} has {choices or 'none'}")

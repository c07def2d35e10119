"""What the stages of a recipe may hold: what a stage would refuse when it begins is refused before anything is done."""

import inspect
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mpq.errors import UserError

START_FROM = ("teacher", "previous", "scratch")
_NEEDED = ("search", "start_from", "updates")
_OTHERS = ("assignment", "calibrate")  # which mpq.train.recipe reads, too


def check_stages(stages: DictConfig) -> None:
    """Raise UserError for a setting that no stage, search or calibration has, or a value that it can't use."""
    for name, stage in stages.items():
        own = f"recipe.stages.{name}"
        if missing := [key for key in _NEEDED if key not in stage]:
            raise UserError(f"{own} must set {', '.join(missing)}; the stages are {', '.join(map(str, stages))}")
        _check_keys(own, stage, (*_NEEDED, *_OTHERS), "a stage")
        for part in ("search", "calibrate"):
            if stage.get(part) is not None:
                _check_part(f"{own}.{part}", stage[part])


def check_starts(stages: DictConfig) -> None:
    """Raise UserError where a stage starts from what is not there: a folder without a packed model, no stage before."""
    for number, (name, stage) in enumerate(stages.items()):
        known = [word for word in START_FROM if number or word != "previous"]
        packed = stage.start_from is not None and (Path(str(stage.start_from)) / "config.json").is_file()
        if stage.start_from not in known and not packed:
            raise UserError(
                f"recipe.stages.{name}.start_from={stage.start_from} must be one of {', '.join(known)}, or the folder "
                "of a packed model (<run>/model)"
            )


def _check_part(own: str, settings: Any) -> None:
    """Make what the settings describe and throw it away; a search of another stage's precisions waits for these."""
    from hydra.utils import get_class, instantiate  # here, since what they import takes seconds

    if not isinstance(settings, DictConfig) or "_target_" not in settings:
        raise UserError(f"{own} must be one of conf/search, or name its class with _target_")
    made = get_class(settings["_target_"])
    _check_keys(own, settings, ("_target_", *inspect.signature(made).parameters), made.__name__)
    if settings.get("assignment") != "previous":
        instantiate(OmegaConf.to_container(settings, resolve=True), _convert_="all")


def _check_keys(own: str, settings: DictConfig, known: tuple[str, ...], owner: str) -> None:
    if unknown := [str(key) for key in settings if key not in known]:
        choices = ", ".join(sorted(key for key in known if key != "_target_"))
        raise UserError(f"there is no setting {own}.{unknown[0]}; {owner} has {choices or 'none'}")

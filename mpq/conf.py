"""Reads `conf/` as plain values, for code that needs a model's settings without composing a run's whole config."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from mpq.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"
FULL_PRECISION = "full_precision"
"""The method of the recipes that leave the model at 32 bits, with which all others are compared."""


def folder(group: str) -> Path:
    """The folder of a group."""
    return CONF / group


def read(group: str, name: str) -> dict[str, Any]:
    """Return the values of `conf/<group>/<name>.yaml` without those it includes; none without a file."""
    path = folder(group) / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def required(group: str, name: str) -> dict[str, Any]:
    """Like `read`, but raises UserError if there is no such file, listing the existing ones."""
    if name not in names(group):
        raise UserError(f"there is no {group}={name}; choose one of {', '.join(names(group))}")
    return read(group, name)


def names(group: str) -> list[str]:
    """The files of `conf/<group>/`, without ending."""
    return sorted(path.stem for path in folder(group).glob("*.yaml"))


def model(name: str) -> dict[str, Any]:
    """The settings `model.*` of a model of `conf/model/`; none where it is not one of them."""
    return read("model", name).get("model", {})


def recipe(name: str) -> dict[str, Any]:
    """The settings `recipe.*` of a recipe of `conf/recipe/`; raises UserError for an unknown one."""
    content = required("recipe", name)
    return content.get("recipe", content)  # below `recipe:` in a file that sets other groups, too


def method(recipe: Mapping[str, Any]) -> str:
    """The method to which settings `recipe.*` belong: the one they state, else the recipe's name."""
    return str(recipe.get("method") or recipe["name"])


def label(recipe: Mapping[str, Any]) -> str:
    """What tables and pictures call settings `recipe.*`: the label they state, else the recipe's name with blanks.

    A recipe whose name depends on other settings may state a label for each name.
    """
    stated = recipe.get("label")
    stated = stated.get(recipe["name"]) if isinstance(stated, Mapping) else stated
    return str(stated or recipe["name"].replace("_", " "))


def composing() -> AbstractContextManager[None]:
    """Let Hydra's `compose` take its files from `conf/` while the block runs."""
    from hydra import initialize_config_dir  # here, since reading a file doesn't need it

    return initialize_config_dir(str(CONF), version_base="1.3")


def made(settings: Mapping[str, Any], **more: Any) -> Any:
    """Make the object that `settings` of a search or a calibration describe.

    `_target_` is its class, the rest and `more` are its constructor's arguments; `name` is only for records.
    """
    from hydra.utils import instantiate  # here, since what it imports takes seconds

    return instantiate({key: value for key, value in {**settings, **more}.items() if key != "name"}, _convert_="all")


def data_of(model_name: str) -> dict[str, Any]:
    """The values of the data group that a model of `conf/model/` brings; none where it brings none."""
    group = next((entry["/data"] for entry in read("model", model_name).get("defaults", ()) if "/data" in entry), None)
    return read("data", group) if group else {}

"""Reads `conf/` as plain values, for code that needs a model's settings without composing a run's whole config."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mpq.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
_IN_THE_WHEEL = Path(__file__).with_name("conf_files")  # where pyproject.toml puts a copy of conf/
CONF = _IN_THE_WHEEL if _IN_THE_WHEEL.is_dir() else REPOSITORY / "conf"
FULL_PRECISION = "full_precision"
"""The method of the recipes that leave the model at 32 bits, with which all others are compared."""


def folder(group: str) -> Path:
    """The folder of a group."""
    return CONF / group


def read(group: str, name: str) -> dict[str, Any]:
    """Return the values of `conf/<group>/<name>.yaml` over those of its group that it includes; none without a file.

    A `group` of "" is `conf/` itself.
    """
    path = folder(group) / f"{name}.yaml"
    values = copy.deepcopy(_parsed(path, path.stat().st_mtime_ns)) if path.is_file() else {}
    for other in values.get("defaults", ()):
        if isinstance(other, str) and other != "_self_":
            values = _over(read(group, other), values)
    return values


def _over(values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return `own` values over `values`, groups of settings merged, and what both include."""
    both = {**values, **own}
    for key in values.keys() & own.keys():
        if isinstance(values[key], dict) and isinstance(own[key], dict):
            both[key] = _over(values[key], own[key])
    if "defaults" in values and "defaults" in own:
        both["defaults"] = own["defaults"] + values["defaults"]
    return both


@cache
def _parsed(path: Path, changed: int) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


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


def located(path: str) -> str:
    """Return a path, resolved against the repository if it is a folder there, whatever the current directory."""
    local = REPOSITORY / path
    return str(local) if local.is_dir() else path


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


@contextmanager
def composing() -> Iterator[None]:
    """Let Hydra's `compose` take its files from `conf/` while the block runs, in a program of Hydra too."""
    from hydra import initialize_config_dir  # here, since reading a file doesn't need it
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton

    inside = GlobalHydra.instance().is_initialized()
    state = Singleton.get_state() if inside else None  # the program's own config folder, job name and version
    GlobalHydra.instance().clear()  # else Hydra refuses a second config folder
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        if inside:
            Singleton.set_state(state)


def made(settings: Mapping[str, Any], **more: Any) -> Any:
    """Make the object that `settings` of a search or a calibration describe.

    `_target_` is its class, the rest and `more` are its constructor's arguments; `name` is only for records.
    """
    from hydra.utils import instantiate  # here, since what it imports takes seconds

    return instantiate({key: value for key, value in {**settings, **more}.items() if key != "name"}, _convert_="all")


def data_of(model_name: str) -> dict[str, Any]:
    """The values of the data group that a model of `conf/model/` brings, and its own; none where it brings none."""
    model = read("model", model_name)
    group = next((entry["/data"] for entry in model.get("defaults", ()) if "/data" in entry), None)
    return {**read("data", group), **model.get("data", {})} if group else {}

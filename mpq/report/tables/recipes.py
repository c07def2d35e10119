"""What recipes are called and which method each belongs to, as `conf/recipe/` states it, by the name in a record.

A record keeps its recipe's name alone. One that `conf/recipe/` has no more, or that states neither, is called by its
name with blanks and is a method of its own.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mpq import conf

UNIFORM, TWO_STAGE, ONE_STAGE, POST_TRAINING = "uniform", "two_stage", "one_stage", "post_training"
"""The methods that tables and pictures ask for, beside `conf.FULL_PRECISION`."""


def label(recipe: str) -> str:
    """What tables and pictures call a recipe."""
    return conf.label({**_settings(recipe), "name": recipe})


def method(recipe: str) -> str:
    """The method that a recipe belongs to."""
    return conf.method({**_settings(recipe), "name": recipe})


def is_compressed(recipe: str) -> bool:
    """Whether a recipe makes another model than the one of 32 bits."""
    return method(recipe) != conf.FULL_PRECISION


def title(method: str) -> str:
    """What a method is called."""
    return method.replace("_", "-")


def group(recipe: str) -> str:
    """What a recipe is drawn and compared as: everything without training is one, every other recipe its own."""
    found = method(recipe)
    return title(found) if found == POST_TRAINING else label(recipe)


def groups() -> list[str]:
    """The groups of all recipes: those of `conf/legend.yaml`, in its order, then the others."""
    others = (name for name in conf.names("recipe") if is_compressed(name))
    return list(dict.fromkeys(map(group, (*legend()["methods"], *others))))


def legend() -> dict[str, Any]:
    """The values of `conf/legend.yaml`."""
    return _legend(conf.CONF / "legend.yaml")


@cache
def _legend(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _settings(recipe: str) -> Mapping[str, Any]:
    """The settings `recipe.*` of the file of this name, or whose runs give the recipe this name; else none."""
    exact, patterns = _stated(conf.folder("recipe"))
    if recipe in exact:
        return exact[recipe]
    return next((settings for pattern, settings in patterns.items() if re.fullmatch(pattern, recipe)), {})


@cache
def _stated(folder: Path) -> tuple[dict[str, Mapping[str, Any]], dict[str, Mapping[str, Any]]]:
    """The settings of every recipe of `folder`, which is `conf/recipe/`: by name, and by pattern of names."""
    exact: dict[str, Mapping[str, Any]] = {}
    patterns: dict[str, Mapping[str, Any]] = {}
    for file in (path.stem for path in sorted(folder.glob("*.yaml"))):
        settings = conf.recipe(file)
        name = str(settings.get("name", file))
        fixed = re.split(r"\$\{.*?\}", name)
        if len(fixed) > 1:  # the run's settings are part of the name
            patterns[".+".join(map(re.escape, fixed))] = settings
        exact.setdefault(name, settings)
        exact[file] = settings  # whatever other files give runs this name
    return exact, patterns

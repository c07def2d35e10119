"""The label and the method of each recipe, from `conf/recipe/`, by the recipe's name in a record.

A record holds only the name of its recipe. If `conf/recipe/` no longer has that recipe, or states neither label nor
method, its label is the name with spaces, and it is a method of its own.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mpq import conf

UNIFORM, TWO_STAGE, ONE_STAGE, POST_TRAINING = "uniform", "two_stage", "one_stage", "post_training"
"""The methods that tables and pictures distinguish, besides `conf.FULL_PRECISION`."""


def label(recipe: str) -> str:
    """The name of a recipe in tables and pictures."""
    return conf.label({**_settings(recipe), "name": recipe})


def method(recipe: str) -> str:
    """The method that a recipe belongs to."""
    return conf.method({**_settings(recipe), "name": recipe})


def is_compressed(recipe: str) -> bool:
    """Whether a recipe compresses the model, that is, is not full precision."""
    return method(recipe) != conf.FULL_PRECISION


def title(method: str) -> str:
    """The name of a method in tables and pictures."""
    return method.replace("_", "-")


def group(recipe: str) -> str:
    """The group in which a recipe is drawn and compared: one for all post-training, else the recipe itself."""
    found = method(recipe)
    return title(found) if found == POST_TRAINING else label(recipe)


def groups() -> list[str]:
    """The groups of all recipes: first those of `conf/legend.yaml` in its order, then the others."""
    others = (name for name in conf.names("recipe") if is_compressed(name))
    return list(dict.fromkeys(map(group, (*legend()["methods"], *others))))


def legend() -> dict[str, Any]:
    """The values of `conf/legend.yaml`."""
    return conf.read("", "legend")


def _settings(recipe: str) -> Mapping[str, Any]:
    """The settings `recipe.*` of the file with this name, or whose runs record this name; else empty."""
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

"""The rows that a table plans, whether they were run or not.

`systems` in `conf/table/<name>.yaml` lists them once for all models: a recipe, its bits and seeds, and optional further
settings; or it names the table with the rows (`systems: compression`). A scale that is listed in `systems_at` has those
rows instead. The name of a row's run is computed in the same way as by the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mpq import conf
from mpq.errors import UserError
from mpq.report.tables.recipes import is_compressed
from mpq.settings import run_name

_DECIDED = {"recipe", "target_bits", "seed", "exp"}
_KEYS = {"recipe", "bits", "seeds", "overrides"}


@dataclass(frozen=True)
class Row:
    """One planned run: its name, its settings, and the name of the recipe in its record."""

    exp: str
    model: str
    recipe: str
    bits: float
    seed: int
    overrides: tuple[str, ...] = ()
    recorded_as: str = ""

    @property
    def words(self) -> list[str]:
        """The command line's words after `python scripts/run.py`."""
        model, recipe, *others = self.shared_words
        return [model, recipe, *self.own_words, *others]

    @property
    def shared_words(self) -> tuple[str, ...]:
        """Those that a row has in common with rows of other bits and seeds."""
        return (f"model={self.model}", f"recipe={self.recipe}", *self.overrides)

    @property
    def own_words(self) -> list[str]:
        """Those of its bits and its seed, which no override changes (`_DECIDED`)."""
        bits = [f"target_bits={self.bits:g}"] if is_compressed(self.recipe) else []
        return [*bits, f"seed={self.seed}"]


def planned(table: str, model: str, overrides: Sequence[str] = ()) -> list[Row]:
    """The rows of `table` for `model`, each run once; `overrides` (`key=value`) apply to all of them.

    Raises: UserError if the table has no rows or one that can't be read, or if `overrides` change a setting that the
    table decides.
    """
    if decided := [word for word in overrides if word.lstrip("+").split("=")[0] in _DECIDED]:
        raise UserError(f"{decided[0]} can't be set for all rows: conf/table/{table}.yaml decides it for each")
    return list(dict.fromkeys(row for entry in _systems(table, model) for row in _rows(entry, model, overrides)))


def tables() -> list[str]:
    """The tables that list systems."""
    return [name for name in conf.names("table") if "systems" in conf.read("table", name)]


def _systems(table: str, model: str) -> list[Mapping[str, Any]]:
    content = conf.read("table", table)
    if "systems" not in content:
        raise UserError(f"table={table} lists no systems to run; the tables that do are {', '.join(tables())}")
    systems = content.get("systems_at", {}).get(conf.model(model).get("scale"), content["systems"])
    return _systems(systems, model) if isinstance(systems, str) else systems


def _rows(entry: Mapping[str, Any], model: str, overrides: Sequence[str]) -> list[Row]:
    if unknown := entry.keys() - _KEYS:
        raise UserError(f"a table's system has the key {sorted(unknown)[0]}; its keys are {', '.join(sorted(_KEYS))}")
    own = (*entry.get("overrides", ()), *overrides)
    cfg = _naming(entry["recipe"], own)
    root, *small = (OmegaConf.select(cfg, key) for key in ("data.root", "smoke", "demo"))
    root = None if root is None else str(root)
    rows = []
    for bits in entry["bits"]:
        name = run_name(model, cfg.recipe.infix, bits, root, *map(bool, small), cfg.quantizer.activations)
        rows += [Row(name, model, entry["recipe"], bits, seed, own, cfg.recipe.name) for seed in entry["seeds"]]
    return rows


def _naming(recipe: str, overrides: Sequence[str]) -> Any:
    """The settings from which runs compute their names; composing a whole config would be slow."""
    settings = [word.lstrip("+") for word in overrides if not conf.folder(word.split("=")[0]).is_dir()]
    return OmegaConf.merge(_unnamed(conf.CONF, recipe), OmegaConf.from_dotlist(settings))


@cache
def _unnamed(_: Path, recipe: str) -> Any:  # takes the folder `conf/` as part of the cache's key
    return OmegaConf.create({"quantizer": conf.required("quantizer", "lsq"), "recipe": conf.recipe(recipe)})

"""The rows that a table is meant to have, whether they were run or not, and what their recipes are called.

`systems` in `conf/table/<name>.yaml` lists them once for every model: a recipe, its bits and seeds, and other settings
if any; or it names the table whose rows they are (`systems: compression`). A scale that is listed in `systems_at` has
those rows instead. A row's run name is computed as a run computes its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from mpq import conf
from mpq.conf import CONF
from mpq.errors import UserError
from mpq.settings import run_name

LABELS = {
    "full_precision": "32 bits",
    "uniform": "uniform",
    "two_stage_gumbel": "two-stage Gumbel",
    "two_stage_kl": "two-stage KL",
    "two_stage_hessian": "two-stage Hessian",
    "one_stage": "one-stage",
    "one_stage_pass2": "one-stage + pass 2",
    "one_stage_early": "one-stage, short search",
    "ptq_gptq": "GPTQ",
    "ptq_gptq_kl": "GPTQ KL",
    "ptq_gptq_hessian": "GPTQ Hessian",
    "ptq_rtn_mse": "rounded MSE",
    "ptq_rtn_minmax": "rounded min-max",
    "ptq_rtn_percentile": "rounded percentile",
    "ptq_rtn_entropy": "rounded entropy",
}
POST_TRAINING = "post-training"
METHODS = (
    *(LABELS[name] for name in LABELS if not name.startswith(("full", "ptq"))),
    POST_TRAINING,
)
"""The methods in the order of showing; a recipe that is not listed is a method of its own, and comes last."""


def label(recipe: str) -> str:
    """What a recipe is called; one that is not listed keeps its name, with blanks."""
    return LABELS.get(recipe, recipe.replace("_", " "))


def method(recipe: str) -> str:
    """The method that a recipe belongs to: everything without training is one, every other recipe its own."""
    return POST_TRAINING if recipe.startswith("ptq") else label(recipe)


_DECIDED = {"recipe", "target_bits", "seed", "exp"}
_KEYS = {"recipe", "bits", "seeds", "overrides"}


@dataclass(frozen=True)
class Row:
    """One run to be: its name, and the settings that make it."""

    exp: str
    model: str
    recipe: str
    bits: float
    seed: int
    overrides: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The command line's words after `python scripts/run.py`."""
        bits = [] if self.recipe == "full_precision" else [f"target_bits={self.bits:g}"]
        return [f"model={self.model}", f"recipe={self.recipe}", *bits, f"seed={self.seed}", *self.overrides]


def planned(table: str, model: str, overrides: Sequence[str] = ()) -> list[Row]:
    """The rows of `table` for `model`, each run once; `overrides` (`key=value`) hold for all of them.

    Raises: UserError where the table has no rows of its own or one that can't be read, or where `overrides` set what
    the table decides.
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
    names = _names(model, entry["recipe"], entry["bits"], own)
    return [
        Row(name, model, entry["recipe"], bits, seed, own)
        for bits, name in zip(entry["bits"], names, strict=True)
        for seed in entry["seeds"]
    ]


def _names(model: str, recipe: str, bits: Sequence[float], overrides: Sequence[str]) -> list[str]:
    """The names that runs compute for themselves, without composing a whole config each, which takes long."""
    settings = [word.lstrip("+") for word in overrides if not (CONF / word.split("=")[0]).is_dir()]
    given = OmegaConf.from_dotlist(settings)
    groups = {"quantizer": _load("quantizer", "lsq"), "recipe": _load("recipe", recipe)}
    cfg: Any = OmegaConf.merge(OmegaConf.create(groups), given)
    root, smoke = OmegaConf.select(cfg, "data.root"), bool(OmegaConf.select(cfg, "smoke"))
    return [run_name(model, cfg.recipe.infix, each, root, smoke, cfg.quantizer.activations) for each in bits]


@cache
def _load(group: str, name: str) -> Any:
    return OmegaConf.create(conf.required(group, name))

"""The rows that a table plans, whether they were run or not.

`systems` in `conf/table/<name>.yaml` lists them once for all models: a recipe, its bits and seeds, and optional further
settings. In place of an entry, or of the whole list, may stand the name of a table with these rows (`compression`). A
model or scale that is listed in `systems_at` has those rows instead. The name of a row's run is computed as by the run.

A system that is made for the size of its file has `megabytes` in place of `bits`, model by model
(`megabytes: {tiny_hubert: [0.36]}`): the same megabytes are half of one model and a tenth of another. A ratio would
serve all models, but a run's name and its command hold megabytes, which only a loaded model gives for a ratio. A model
that is not listed has no such row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mpq import conf
from mpq.errors import UserError
from mpq.report.tables.recipes import is_compressed
from mpq.settings import run_name

_DECIDED = {"recipe", "target_bits", "target_megabytes", "seed", "exp"}
_KEYS = {"recipe", "bits", "megabytes", "seeds", "overrides"}


@dataclass(frozen=True)
class Row:
    """One planned run: its name, its settings, and the name of the recipe in its record.

    It is made for an average of `bits`, or for a file of so many `megabytes` (then `bits` is None). `coded`: whether
    `bits` counts the bits of the codes once coded, rather than those in which they are packed.
    """

    exp: str
    model: str
    recipe: str
    bits: float | None
    seed: int
    overrides: tuple[str, ...] = ()
    recorded_as: str = ""
    megabytes: float | None = None
    coded: bool = False

    @property
    def packed_bits(self) -> float | None:
        """The bits in which the codes of its searched weights are packed on average; None: 32 bits, or not known."""
        return None if self.coded or not is_compressed(self.recipe) else self.bits

    @property
    def target(self) -> str:
        """What it is made for, as text; empty for 32 bits."""
        return target_text(self.bits if is_compressed(self.recipe) else None, self.megabytes, self.coded)

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
        """Those of its bits or its size and its seed, which no override changes (`_DECIDED`)."""
        seed = f"seed={self.seed}"
        if self.megabytes is not None:
            return [f"target_megabytes={self.megabytes:g}", seed]
        return [f"target_bits={self.bits:g}", seed] if is_compressed(self.recipe) else [seed]


def target_text(bits: float | None, megabytes: float | None = None, coded: bool = False) -> str:
    """What a system is made for: a size, or else an average of bits per weight; empty if neither was asked for."""
    if megabytes is not None:
        return f"{megabytes:g} MB"
    return "" if bits is None else f"{bits:g} {'coded ' if coded else ''}bit{'s' if bits != 1 else ''}"


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


def _systems(table: str, model: str) -> Iterator[Mapping[str, Any]]:
    content = conf.read("table", table)
    if "systems" not in content:
        raise UserError(f"table={table} lists no systems to run; the tables that do are {', '.join(tables())}")
    own = content.get("systems_at", {})
    systems = own.get(model, own.get(conf.model(model).get("scale"), content["systems"]))
    for entry in [systems] if isinstance(systems, str) else systems:
        yield from _systems(entry, model) if isinstance(entry, str) else [entry]


def _rows(entry: Mapping[str, Any], model: str, overrides: Sequence[str]) -> list[Row]:
    _check(entry)
    own = (*entry.get("overrides", ()), *overrides)
    cfg = _naming(entry["recipe"], own)
    root, smoke, demo = (OmegaConf.select(cfg, key) for key in ("data.root", "smoke", "demo"))
    root = None if root is None else str(root)
    budget, activations = OmegaConf.select(cfg, "budget", default="bits"), cfg.quantizer.activations
    coded = budget == "coded" or _learns_rates(cfg.recipe)
    rows = []
    for bits, size in _targets(entry, model):
        name = run_name(model, cfg.recipe.infix, bits or 0, root, bool(smoke), bool(demo), activations, size, budget)
        row = Row(name, model, entry["recipe"], bits, 0, own, cfg.recipe.name, size, coded)
        rows += [replace(row, seed=seed) for seed in entry["seeds"]]
    return rows


def _check(entry: Mapping[str, Any]) -> None:
    """Raise UserError unless the entry of a table has known keys, and either bits or the sizes of models."""
    if unknown := entry.keys() - _KEYS:
        raise UserError(f"a table's system has the key {sorted(unknown)[0]}; its keys are {', '.join(sorted(_KEYS))}")
    if ("bits" in entry) == ("megabytes" in entry):
        raise UserError(f"a table's system must have either bits or megabytes: {dict(entry)}")
    if not isinstance(entry.get("megabytes", {}), Mapping):
        raise UserError(
            f"megabytes={entry['megabytes']} of a table's system must name models: {{MODEL: [MEGABYTES, ...]}}"
        )


def _targets(entry: Mapping[str, Any], model: str) -> list[tuple[float | None, float | None]]:
    """Bits and megabytes of each system of the entry; one of the two is None."""
    if "bits" in entry:
        return [(bits, None) for bits in entry["bits"]]
    return [(None, size) for size in entry["megabytes"].get(model, ())]


def _learns_rates(recipe: Mapping[str, Any]) -> bool:
    """Whether the search of a recipe is `rate`, whose target is the size of the codes once coded."""
    taken = [entry for entry in recipe.get("defaults", ()) if isinstance(entry, Mapping)]
    return any(name == "rate" for entry in taken for name in entry.values())


def _naming(recipe: str, overrides: Sequence[str]) -> Any:
    """The settings from which runs compute their names; composing a whole config would be slow."""
    settings = [word.lstrip("+") for word in overrides if not conf.folder(word.split("=")[0]).is_dir()]
    return OmegaConf.merge(_unnamed(conf.CONF, recipe), OmegaConf.from_dotlist(settings))


@cache
def _unnamed(_: Path, recipe: str) -> Any:  # takes the folder `conf/` as part of the cache's key
    return OmegaConf.create({"quantizer": conf.required("quantizer", "lsq"), "recipe": conf.recipe(recipe)})

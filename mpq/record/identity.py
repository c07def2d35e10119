"""What makes two runs the same run: what was done, not which code did it.

The results of a finished run come from its record, so a record must stay valid while the code around it changes:

- A search or a calibration is identified by its short `name`; the class that `_target_` names may move.
- A setting that a record lacks was added later. It has its declared default: the value in the files that make up the
  default config (`conf/trainer/tiny.yaml`, `conf/distill/ctc_kl.yaml`, ...) or in the search's own file. So a new
  setting's default must be what runs did before the setting existed.
- A removed setting (`_RETIRED`) counts only if its value differed from what runs do now.
- The content of recordings counts by its hash (`HASH`), where both runs state one: a config that was read without its
  data states none, nor does the embedded corpus, which its settings describe.
- A model is its weights: where a run's record states the digest that a config has (`DIGEST`), its path does not count.
- Locations, settings of the machine and the coding of the file (`_PLACES`) do not count, nor does what a recipe without
  stages never reads. A coded and a packed file hold the same weights, and `scripts/pack.py` makes one of the other.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mpq import conf

HASH = "data.hash"
"""The setting that `mpq.checks` adds: the hash of the recordings below `data.root`."""
DIGEST = "digest"
"""The setting of `model` that `mpq.checks` adds where a record has another path: the digest of the model's weights."""
_PLACES = {"root", "cache", "coding", "overwrite", "logger", "exp", "data.workers"}
_PLACES |= {"model.scale", "recipe.method", "recipe.label"}  # they follow from the names of model and recipe
_PLACES |= {"trainer.accelerator", "trainer.threads", "trainer.gradient_checkpointing", "trainer.compile"}
OF_STAGES = {"target_bits", "target_megabytes", "budget", "quantizer", "distill", "trainer"}
OF_STAGES |= {"data.labels", "model.searched"}
"""The settings that a recipe without stages never reads."""
_OF_STATIC_ACTIVATIONS = {"quantizer.activation_percentile"}
_DECLARED = {"data": "synthetic", "trainer": "tiny", "quantizer": "lsq", "distill": "ctc_kl"}
_PARTS = ("search", "calibrate")  # the parts of a stage that have a class and a file in conf/search, conf/calibrate
_RETIRED: dict[str, str] = {}  # a part's removed setting ("gumbel.x") -> its implied value in current runs


def recorded(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that `config.yaml` keeps: without `_PLACES`, and with short names for classes."""
    kept: Any = OmegaConf.to_container(cfg)
    kept = {key: value for key, value in kept.items() if key not in _PLACES}
    kept.get("model", {}).pop(DIGEST, None)
    for _, group, part in _parts(kept):
        part["name"] = _short_name(group, part)
        part.pop("_target_", None)
    return kept


def differences(before: Any, after: dict[str, Any]) -> list[str]:
    """Return `key: old -> new` for each relevant setting that differs between two recorded configs."""
    old, new = _counting(before if isinstance(before, dict) else {}), _counting(after)
    for counting in (old, new) if None in (old.get(HASH), new.get(HASH)) else ():
        counting.pop(HASH, None)
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys]


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Return every setting of a nested config by its dotted key, as text."""
    if isinstance(value, dict) and (value or not prefix):
        items: dict[str, str] = {}
        for key in value:
            items |= flat(value[key], f"{prefix}.{key}" if prefix else str(key))
        return items
    return {prefix: str(value)}


def _counting(config: dict[str, Any]) -> dict[str, str]:
    """Return the settings that affect the result, by dotted key, with declared defaults for missing ones."""
    counting = {f"{group}.{key}": value for group, name in _DECLARED.items() for key, value in _declared(group, name)}
    absent = {
        "demo": "False",
        "model.language": "None",
        "model.fallback": "False",
        "target_megabytes": "None",
        "budget": "bits",
    }  # from older records
    counting |= absent | flat(config)
    parts = list(_parts(config))
    for place, group, part in parts:
        counting = {key: value for key, value in counting.items() if not key.startswith(f"{place}.")}
        counting |= {f"{place}.{key}": value for key, value in _of_part(group, part).items()}
    unused = _PLACES if (config.get("recipe") or {}).get("stages") else _PLACES | OF_STAGES
    if counting.get("quantizer.activations") != "static":
        unused = unused | _OF_STATIC_ACTIVATIONS
    return {key: value for key, value in counting.items() if not {key, key.split(".")[0]} & unused}


def _parts(config: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the dotted key, group and settings of each stage's search and calibration."""
    for name, stage in ((config.get("recipe") or {}).get("stages") or {}).items():
        for group in _PARTS:
            if isinstance(stage, dict) and isinstance(stage.get(group), dict):
                yield f"recipe.stages.{name}.{group}", group, stage[group]


def _of_part(group: str, part: Mapping[str, Any]) -> dict[str, str]:
    """Return a part's short name and the settings that affect the result, by dotted key."""
    name = _short_name(group, part)
    given = {key: value for key, value in flat(part).items() if key not in ("name", "_target_")}
    settings = {**dict(_declared(group, name)), **given}
    return {"name": name} | {key: value for key, value in settings.items() if _RETIRED.get(f"{name}.{key}") != value}


def _short_name(group: str, part: Mapping[str, Any]) -> str:
    """Return a part's short name: the name of the file in `conf/` with its class.

    Older records have the class path of their time (`mpq.search.gumbel.GumbelSearch`), always in a module of that name.
    """
    target = part.get("_target_")
    if target is None:
        return str(part.get("name"))
    files = {conf.read(group, name).get("_target_"): name for name in conf.names(group)}
    words = str(target).split(".")
    return files.get(target, words[-2] if words[0] == "mpq" and len(words) > 1 else str(target))


def _declared(group: str, name: str) -> list[tuple[str, str]]:
    """Return the settings of `conf/<group>/<name>.yaml` by dotted key, except computed ones; none without the file."""
    path = conf.CONF / group / f"{name}.yaml"
    return list(_read(path, path.stat().st_mtime_ns)) if path.is_file() else []


@cache
def _read(path: Path, changed: int) -> tuple[tuple[str, str], ...]:
    values: Any = OmegaConf.to_container(OmegaConf.load(path))
    plain = {key: value for key, value in values.items() if key not in ("defaults", "name", "_target_")}
    return tuple((key, value) for key, value in flat(plain).items() if plain and "${" not in value)

"""From the composed Hydra config to settled values: names, paths, `demo=true`, `smoke=true`.

Everything that can be rejected by looking at the config alone is rejected here, before anything is read or written.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mpq import conf
from mpq.checkpoint.format import check_coding
from mpq.data.corpus import corpus_name
from mpq.errors import UserError
from mpq.names import check_file_name, check_texts

OWN = "own"  # the scale of a model that is not in conf/model/, or that differs from the one shipped under its name
_PLAIN_GROUPS = ("data", "quantizer", "distill", "trainer")  # that allow only the settings of their files


def run_name(
    model: str,
    infix: str,
    bits: float,
    data_root: str | None = None,
    smoke: bool = False,
    demo: bool = False,
    activations: str = "none",
    megabytes: float | None = None,
    budget: str = "bits",
) -> str:
    """A run's name, computed from what it is: `<model>_<infix>_<bits>bit`, or `_<megabytes>mb` where the size is given.

    `infix` is the recipe's: empty for one-stage; one that begins with `fp32` is of a recipe at full precision, whose
    name has no bits. A `budget` in coded bits, quantized `activations` (static, dynamic), data other than the model's
    own, demo and smoke runs add a suffix, so that different runs never share a name.

    Raises: UserError if the name can't be a folder's.
    """
    check_file_name("model.name", model, "set model.name=NAME")
    words = [model]
    if infix:
        words.append(infix)
    if not infix.startswith("fp32"):
        words.append((f"{bits:g}bit" if megabytes is None else f"{megabytes:g}mb").replace(".", "p"))
        words += [] if budget == "bits" else [budget]
        words += [] if activations == "none" else [f"a8_{activations}"]
    if data_root and Path(data_root) != _own_root(model):
        words.append(corpus_name(data_root))
    name = "_".join(words) + _suffix(smoke, demo)
    check_file_name("the run's name", name, "set a shorter model.name, or give the data a folder with a shorter name")
    return name


def _suffix(smoke: bool, demo: bool) -> str:
    return "_smoke" if smoke else "_demo" if demo else ""


def _own_root(model: str) -> Path | None:
    """The folder that the model's own data group names, if it names one."""
    root = conf.data_of(model).get("root")
    return Path(root) if root else None


def register_resolvers() -> None:
    """Let `conf/config.yaml` compute the run's name."""
    OmegaConf.register_new_resolver("run_name", _resolve_name, replace=True)


def _resolve_name(
    model: str,
    infix: str | None,
    bits: float,
    data_root: str | None,
    smoke: bool,
    demo: bool,
    activations: str,
    megabytes: float | None,
    budget: str,
) -> str:
    if isinstance(bits, bool) or not isinstance(bits, (int, float)):
        raise UserError(f"target_bits={bits} must be a number of bits, such as 3.5")
    if megabytes is not None and (isinstance(megabytes, bool) or not isinstance(megabytes, (int, float))):
        raise UserError(f"target_megabytes={megabytes} must be a number of megabytes, such as 12")
    # Numbers are refused in `settle`, where all settings are known; until then they must not stop the composition.
    root = None if data_root is None else str(data_root)
    return run_name(str(model), infix or "", bits, root, smoke, demo, activations, megabytes, str(budget))


def settle(cfg: DictConfig) -> DictConfig:
    """Return a copy of `cfg` with `smoke=true` or `demo=true` applied and every interpolation resolved.

    Raises: UserError if a setting is unknown, the seed can't be used, or the demo is asked for with other data.
    """
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    known = {str(key) for key in OmegaConf.load(conf.CONF / "config.yaml")}
    known |= {path.name for path in conf.CONF.iterdir()}
    if unknown := [str(key) for key in cfg if key not in known]:  # Hydra takes any word with a plus
        raise UserError(f"there is no setting {unknown[0]}; the settings are {', '.join(sorted(map(str, cfg)))}")
    check_texts(cfg)
    for key in ("demo", "smoke", "overwrite"):
        if not isinstance(cfg[key], bool):
            raise UserError(f"{key}={cfg[key]} must be true or false")
    for group in _PLAIN_GROUPS:
        _check_group(group, cfg[group])
    if cfg.demo and cfg.data.root:
        raise UserError(f"demo=true is for the embedded corpus: leave it out, or data.root={cfg.data.root}")
    if cfg.demo:
        cfg = OmegaConf.merge(cfg, OmegaConf.load(conf.CONF / "demo.yaml"))  # type: ignore[assignment]
    if cfg.smoke:
        cfg = OmegaConf.merge(cfg, OmegaConf.load(conf.CONF / "smoke.yaml"))  # type: ignore[assignment]
    OmegaConf.resolve(cfg)
    check_file_name("the data's name", data_name(cfg), "give the folder data.root another name, or name it by a link")
    if "label" in cfg.recipe:
        cfg.recipe.label = conf.label(cfg.recipe)  # of several, this run's
    known = conf.model(str(cfg.model.name))
    if not known or (known["scale"] == "tiny" and cfg.model.path != known["path"]):  # those that are shipped
        cfg.model.scale = OWN
    check_coding(cfg.coding)
    if not isinstance(cfg.seed, int) or cfg.seed < 0:
        raise UserError(f"seed={cfg.seed} must be a whole number, 0 or more")
    return cfg


def changes_of(words: Sequence[str]) -> dict[str, Any]:
    """Return the settings that words `key=value` of `scripts/run.py` change, by dotted name.

    Raises: UserError for a name that no setting begins with, or a word that chooses a file of `conf/` or adds a key;
    Hydra's error for a word that its grammar does not have.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser  # here, since it takes a while
    from hydra.core.override_parser.types import OverrideType

    known = {*OmegaConf.load(conf.CONF / "config.yaml"), *(path.name for path in conf.CONF.iterdir() if path.is_dir())}
    known -= {"defaults", "hydra", "exp"}
    found = {}
    for one in OverridesParser.create().parse_overrides(list(words)):
        key, value = str(one.key_or_group), one.value()
        if key.partition(".")[0] not in known or one.type is not OverrideType.CHANGE:
            raise UserError(
                f"there is no argument {one.input_line!r}; --help lists the arguments, and the settings of "
                f"scripts/run.py are {', '.join(sorted(map(str, known)))}, such as overwrite=true"
            )
        if conf.folder(key).is_dir():
            raise UserError(f"{one.input_line} must be a single setting, such as {key}.KEY=VALUE")
        found[key] = value
    return found


def _check_group(group: str, given: DictConfig) -> None:
    """Refuse a setting that no file of the group has, and any value but true or false for a boolean."""
    known = {key: value for name in conf.names(group) for key, value in conf.read(group, name).items()}
    if unknown := [str(key) for key in given if key not in known]:
        raise UserError(
            f"there is no setting {group}.{unknown[0]}; {group} has {', '.join(sorted({*known} - {'defaults'}))}"
        )
    for key, value in given.items():
        if isinstance(known[str(key)], bool) and not isinstance(value, bool):
            raise UserError(f"{group}.{key}={value} must be true or false")


def model_path(cfg: DictConfig) -> str:
    """Return `model.path` as `mpq.conf.located` does.

    The config keeps the short path, so that a record neither reveals this checkout's location nor depends on it.
    """
    return conf.located(str(cfg.model.path))


def full_precision(cfg: DictConfig) -> DictConfig:
    """The settled config of the 32-bit baseline that `cfg` is compared with: same model and data, seed 0."""
    baseline: Any = cfg.copy()
    baseline.recipe = OmegaConf.create(conf.recipe("full_precision"))
    baseline.exp = run_name(cfg.model.name, baseline.recipe.infix, 32, cfg.data.root, cfg.smoke, cfg.demo)
    baseline.seed, baseline.target_megabytes = 0, None
    baseline.overwrite = False  # of the run itself, not of what it is compared with
    return baseline


def random_weights(cfg: DictConfig) -> bool:
    """Whether the model starts from random weights of `model.architecture` instead of a checkpoint."""
    return cfg.smoke or any(stage.start_from == "scratch" for stage in cfg.recipe.stages.values())


def needs_baseline(cfg: DictConfig) -> bool:
    """Return whether the run is compared with the full-precision model; every system except that one is."""
    return cfg.recipe.name != conf.FULL_PRECISION


def data_name(cfg: DictConfig) -> str:
    """Return the name of the data in records; the fewer utterances of demo and smoke runs count as separate corpora."""
    return corpus_name(cfg.data.root) + _suffix(cfg.smoke, cfg.demo)


def data_of(cfg: DictConfig) -> dict[str, Any]:
    """What `mpq.data.corpus` needs of the settings to open the data, by argument name."""
    return {key: cfg.data[key] for key in ("root", "corpus", "train", "test", "on_bad_audio")}


def hub_name(cfg: DictConfig) -> str | None:
    """The Hub name of the model that is compressed, without revision; None where it is a folder or trained here."""
    path = str(cfg.model.path)
    return None if random_weights(cfg) or Path(path).exists() else path.partition("@")[0]

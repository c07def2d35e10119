"""The folder of a run, its file names, and the tree of such folders below a root.

`<root>/<exp>/seed<seed>/` holds the tracked record (config.yaml, result.json, bits.json, search.json,
hypotheses.jsonl), the model in `model/`, and in `work/` what an unfinished run needs to resume.
"""

import shutil
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mpq.errors import UserError
from mpq.files import claim, remove_partial, write_text
from mpq.record.hypotheses import has_hypotheses
from mpq.record.result import Result, from_json

# What may differ between a finished run and one that asks for its result: where things lie, and how the machine works.
_PLACES = {"root", "cache", "overwrite", "logger", "exp", "data.workers"}
_PLACES |= {"model.scale"}  # follows from the model's name
_PLACES |= {"recipe.method", "recipe.label"}  # how tables and pictures show it
_PLACES |= {"trainer.accelerator", "trainer.threads", "trainer.gradient_checkpointing", "trainer.compile"}
# Without a stage nothing is trained, and these have no part in the result.
_OF_STAGES = {"target_bits", "quantizer", "distill", "trainer"}
# Float activations are the default, which the records made before there was a choice do not name.
_OF_ACTIVATIONS = {"quantizer.activations", "quantizer.activation_percentile"}
# What records made before there was a choice do not name, and what it was then.
_ALWAYS = {"trainer.pad_seconds": "0.0", "distill.keep": "False"}

Needed = Literal["model", "hypotheses", "record"]


class RunFolder:
    """One run's folder, made when something is first written to it."""

    def __init__(self, root: str | Path, exp: str, seed: int) -> None:
        self._root = root
        self.path = Path(root) / exp / f"seed{seed}"
        self.model = self.path / "model"
        self.work = self.path / "work"
        self.result = self.path / "result.json"
        self._config = self.path / "config.yaml"
        self.search = self.path / "search.json"
        self.hypotheses = self.path / "hypotheses.jsonl"

    def claim(self, wait: bool) -> AbstractContextManager[None]:
        """Keep other processes off this run for a block; it is for whoever writes here.

        Raises: TakenError where another process works on it, unless asked to `wait` for its end.
        """
        return claim(self._root, f"{self.path.parent.name}/{self.path.name}", wait)

    def finished(self, cfg: DictConfig, needed: Needed = "model") -> Result | None:
        """The record of an earlier run of this config where what is `needed` of it is still here, else None.

        Raises: UserError where the folder holds a run of another config and `overwrite` is false.
        """
        if cfg.overwrite or not self._config.is_file():
            return None
        if differing := self._differences(cfg):
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise UserError(
                f"{self.path} holds a run with other settings ({'; '.join(differing[:3])}{more}); "
                "overwrite=true replaces it, root=FOLDER keeps both"
            )
        there = {"model": self.model.is_dir(), "hypotheses": has_hypotheses(self.hypotheses), "record": True}
        if not self.result.is_file() or not there[needed]:
            return None
        if needed == "model" and self.work.is_dir():
            self._tidy()
        return from_json(self.result.read_text(encoding="utf-8"), self.result)

    def begin(self, cfg: DictConfig) -> None:
        """Write the config and clear what an overwritten run left; what an unfinished one left is kept."""
        unfinished = self.work.is_dir() and not self.result.is_file() and self._config.is_file()
        resumes = unfinished and not self._differences(cfg)  # the same overwriting command again, after a kill
        if not resumes:  # before the record goes: half of the work that is left would be taken for all of it
            shutil.rmtree(self.work, ignore_errors=True)
        self.result.unlink(missing_ok=True)  # from here on the old record would describe another model
        if cfg.overwrite and not resumes:
            shutil.rmtree(self.model, ignore_errors=True)
        remove_partial(self.path)
        remove_partial(self.work)
        self.work.mkdir(parents=True, exist_ok=True)
        write_text(self._config, OmegaConf.to_yaml(OmegaConf.create(_recorded(cfg))))

    def end(self, result: Result) -> None:
        """Write the record, the last file of a run, and drop the training checkpoints."""
        write_text(self.result, result.to_json())
        shutil.rmtree(self.work, ignore_errors=True)

    def _tidy(self) -> None:
        """Drop the checkpoints of a process that was killed when the record was written, unless one works here."""
        with suppress(UserError, OSError), self.claim(wait=False):
            if self.result.is_file():
                shutil.rmtree(self.work, ignore_errors=True)

    def _differences(self, cfg: DictConfig) -> list[str]:
        """`key: old -> new` for every setting that counts and differs from those of the run in this folder."""
        try:
            old = OmegaConf.to_container(OmegaConf.load(self._config))
        except (OSError, ValueError, YAMLError, OmegaConfBaseException):
            return [f"{self._config} is damaged"]
        before, after = _that_count(old), _that_count(_recorded(cfg))
        return [
            f"{key}: {before.get(key)} -> {after.get(key)}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key)
        ]


def _recorded(cfg: DictConfig) -> dict[str, Any]:
    """The settings that `config.yaml` keeps."""
    kept: Any = OmegaConf.to_container(cfg)
    return {key: value for key, value in kept.items() if key not in _PLACES}


def _that_count(config: Any) -> dict[str, str]:
    """The settings with a part in the result, by dotted key."""
    counting = _ALWAYS | flat(config)
    stages = any(key.startswith("recipe.stages.") for key in counting)
    unused = _PLACES if stages else _PLACES | _OF_STAGES
    if counting.get("quantizer.activations", "none") == "none":
        unused = unused | _OF_ACTIVATIONS
    return {key: value for key, value in counting.items() if not {key, key.split(".")[0]} & unused}


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Every setting of a nested config by its dotted key, as text."""
    if isinstance(value, dict) and (value or not prefix):
        items: dict[str, str] = {}
        for key in value:
            items |= flat(value[key], f"{prefix}.{key}" if prefix else str(key))
        return items
    return {prefix: str(value)}


def run_path(root: Path | str, exp: str, seed: int) -> Path:
    """Return the folder of a run below `root`: `<root>/<exp>/seed<seed>`."""
    return Path(root) / exp / f"seed{seed}"


def write_record(result: Result, root: Path | str) -> Path:
    """Write `result` to `<root>/<exp>/seed<k>/result.json` in one step and return that path."""
    path = run_path(root, result.exp, result.seed) / "result.json"
    write_text(path, result.to_json())
    return path


def load_records(root: Path | str) -> list[Result]:
    """Read every `<exp>/seed<k>/result.json` at any depth below `root`, in the order of their paths.

    Raises UserError for a missing root, an unreadable record, or one whose folder names another experiment or seed:
    a record that can't be shown is never left out in silence.
    """
    check_root(root)
    return [read_record(path) for path in sorted(Path(root).rglob("result.json"))]


def check_root(root: Path | str) -> None:
    """Raise UserError where there is no folder `root` of records."""
    if not Path(root).is_dir():
        raise UserError(f"there is no folder {root}; make a first record there with: python scripts/run.py root={root}")


def read_record(path: Path | str) -> Result:
    """Read one `result.json`; raises UserError as `from_json` does, and where its folder names another run."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    result = from_json(text, path)
    named = f"{result.exp}/seed{result.seed}"
    if "/".join(path.absolute().parts[-3:-1]) != named:
        raise UserError(f"{path} is the record of {named}: move it to a folder of that name, or remove it")
    return result


_SECTIONS = ("model", "data", "trainer")


def read_config(run: Path) -> Any:
    """The DictConfig of the run in the folder `run`, `<root>/<exp>/seed<k>`.

    Raises: UserError where there is none, or it is damaged or no run's.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    file = run / "config.yaml"
    if not file.is_file():
        raise UserError(f"{run} is not a run's folder: config.yaml is missing")
    try:
        found = OmegaConf.load(file)
    except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{file} is damaged: {' '.join(str(error).split())}") from None
    if not isinstance(found, DictConfig) or any(not isinstance(found.get(key), DictConfig) for key in _SECTIONS):
        raise UserError(f"{file} is damaged: it must have the sections {', '.join(_SECTIONS)}")
    return found

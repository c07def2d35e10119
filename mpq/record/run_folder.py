"""The folder of a run, its file names, and the tree of such folders below a root.

`<root>/<exp>/seed<seed>/` holds the tracked record (config.yaml, result.json, bits.json, search.json,
hypotheses.jsonl), the model in `model/`, the weights of a supernet if the recipe keeps them, and in `work/` what an
unfinished run needs to resume. These names are defined only here.
"""

import logging
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mpq.commands import script, setting
from mpq.errors import UserError
from mpq.files import claim, remove_partial, write_text
from mpq.record.hypotheses import has_hypotheses
from mpq.record.identity import DIGEST, HASH, differences, flat, recorded
from mpq.record.result import Baseline, Result, from_json

_log = logging.getLogger(__name__)
Needed = Literal["model", "hypotheses", "record"]
_RESULT = "result.json"
BITS, SEARCH = "bits.json", "search.json"
"""Names in a run's folder, and in the folder of a stage in its `work/`."""
SUPERNET = "supernet.safetensors"
"""The name in a run's folder."""
PAGE = "report.html"
"""The name in a run's folder, and in a root."""


class RunFolder:
    """One run's folder and the files in it; it is created when something is first written to it."""

    def __init__(self, root: str | Path, exp: str, seed: int) -> None:
        self._set(Path(root) / exp / f"seed{seed}")

    @classmethod
    def at(cls, path: str | Path) -> "RunFolder":
        """Return the run whose folder is `path`, `<root>/<exp>/seed<k>`, whether it exists or not."""
        folder = cls.__new__(cls)
        folder._set(Path(path))
        return folder

    @classmethod
    def of(cls, root: str | Path, run: Result | Baseline) -> "RunFolder":
        """Return the folder of a recorded run below `root`."""
        return cls(root, run.exp, run.seed)

    def _set(self, path: Path) -> None:
        self.path = path
        self.root = path.parent.parent
        self.model = path / "model"
        self.supernet = path / SUPERNET
        self.work = path / "work"
        self.result = path / _RESULT
        self._config = path / "config.yaml"
        self.bits = path / BITS
        self.search = path / SEARCH
        self.hypotheses = path / "hypotheses.jsonl"
        self.page = path / PAGE
        self.log = path / "failed.log"

    def read(self) -> Result:
        """Return the record; raises UserError as `from_json` does, if it is missing, or if it is another run's."""
        try:
            text = self.result.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.result} can't be read: {error}") from error
        result = from_json(text, self.result)
        named = f"{result.exp}/seed{result.seed}"
        if "/".join(self.path.absolute().parts[-2:]) != named:
            raise UserError(f"{self.result} is the record of {named}: move it to a folder of that name, or remove it")
        return result

    def write(self, result: Result) -> Path:
        """Write the record in one step and return its path."""
        write_text(self.result, result.to_json())
        return self.result

    def read_config(self) -> DictConfig:
        """Return the run's config.

        Raises: UserError if it is missing, damaged, or not the config of a run.
        """
        if not self._config.is_file():
            raise UserError(f"{self.path} is not a run's folder: {self._config.name} is missing")
        try:
            found = OmegaConf.load(self._config)
        except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
            raise UserError(f"{self._config} is damaged: {' '.join(str(error).split())}") from None
        if not isinstance(found, DictConfig) or any(not isinstance(found.get(key), DictConfig) for key in _SECTIONS):
            raise UserError(f"{self._config} is damaged: it must have the sections {', '.join(_SECTIONS)}")
        return found

    def settings(self) -> dict[str, str]:
        """Return every setting of the config by its dotted key; none if there is no config."""
        return flat(OmegaConf.to_container(OmegaConf.load(self._config))) if self._config.is_file() else {}

    def claim(self, wait: bool) -> AbstractContextManager[None]:
        """Keep other processes from working on this run during a block; hold it while writing here.

        Raises: TakenError if another process is working on it, unless told to `wait` for its end.
        """
        return claim(self.root, f"{self.path.parent.name}/{self.path.name}", wait)

    def finished(self, cfg: DictConfig, needed: Needed = "model") -> Result | None:
        """Return the record of an earlier run of this config if what is `needed` of it still exists, else None.

        Raises: UserError if the folder has a run of another config or on other recordings and `overwrite` is false.
        """
        if cfg.overwrite or not self._config.is_file():
            return None
        if differing := self._differences(cfg):
            raise UserError(
                f"{self.path} holds a run {_with_what(differing, cfg.data.root)}; "
                "overwrite=true replaces it, root=FOLDER keeps both"
            )
        there = {"model": self.model.is_dir(), "hypotheses": has_hypotheses(self.hypotheses), "record": True}
        if not self.result.is_file() or not there[needed]:
            return None
        if needed == "model" and self.work.is_dir():
            self._tidy()
        return from_json(self.result.read_text(encoding="utf-8"), self.result)

    def begin(self, cfg: DictConfig) -> None:
        """Write the config and remove what an overwritten run left; what an unfinished one left is kept."""
        unfinished = self.work.is_dir() and not self.result.is_file() and self._config.is_file()
        resumes = unfinished and not self._differences(cfg)  # the same overwriting command again, after a kill
        if not resumes:  # before the record is deleted: after a kill, leftover work would be resumed
            shutil.rmtree(self.work, ignore_errors=True)
        self.result.unlink(missing_ok=True)  # from here on the old record would describe another model
        if cfg.overwrite and not resumes:
            shutil.rmtree(self.model, ignore_errors=True)
            self.supernet.unlink(missing_ok=True)
        remove_partial(self.path)
        remove_partial(self.work)
        self.work.mkdir(parents=True, exist_ok=True)
        write_text(self._config, OmegaConf.to_yaml(OmegaConf.create(recorded(cfg))))

    def end(self, result: Result) -> None:
        """Write the record, the last file of a run, and drop the training checkpoints."""
        self.write(result)
        shutil.rmtree(self.work, ignore_errors=True)

    def _tidy(self) -> None:
        """Delete the checkpoints left by a process killed right after writing the record, unless one is active here."""
        with suppress(UserError, OSError), self.claim(wait=False):
            if self.result.is_file():
                shutil.rmtree(self.work, ignore_errors=True)

    def _differences(self, cfg: DictConfig) -> list[str]:
        """Return `key: old -> new` for every relevant setting that differs from the run in this folder."""
        try:
            old: Any = OmegaConf.to_container(OmegaConf.load(self._config))
        except (OSError, ValueError, YAMLError, OmegaConfBaseException):
            return [f"{self._config} is damaged"]
        new = recorded(cfg)
        if new.get("data", {}).get("hash") and isinstance(old, dict) and self.result.is_file():
            old.setdefault("data", {}).setdefault("hash", self.read().provenance.data.hash)  # of an older run
        digest = cfg.get("model", {}).get(DIGEST)
        if digest and isinstance(old, dict) and self.result.is_file() and self.read().provenance.teacher == digest:
            old["model"]["path"] = new["model"]["path"]  # the same weights in another place
        return differences(old, new)


def _with_what(differing: list[str], recordings: str | None) -> str:
    """Say in which way a folder's run is another one: by its recordings, or by at most three of its settings."""
    changed = [one for one in differing if one.startswith(f"{HASH}: ")]
    if changed and not any(one.startswith("data.") for one in differing if one not in changed):  # else it follows
        before, _, after = changed[0].removeprefix(f"{HASH}: ").partition(" -> ")
        return f"on other recordings: {recordings} has changed since (hash {before[:8]} -> {after[:8]})"
    differing = [one for one in differing if one not in changed] or differing
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return f"with other settings ({'; '.join(differing[:3])}{more})"


_SECTIONS = ("model", "data", "trainer")  # that every run's config has


def run_folders(root: Path | str) -> list[RunFolder]:
    """Return the folders `<root>/<exp>/seed<k>`, where runs write their records, sorted by path."""
    return [RunFolder.at(path) for path in sorted(Path(root).glob("*/seed*"))]


def load_records(root: Path | str) -> list[Result]:
    """Return every record `<exp>/seed<k>/result.json` at any depth below `root`, sorted by path.

    One that can't be read, or whose folder names another experiment or seed, is left out with a warning that names it.

    Raises UserError for a missing root.
    """
    check_root(root)
    return readable(RunFolder.at(path.parent) for path in sorted(Path(root).rglob(_RESULT)))


def readable(folders: Iterable[RunFolder]) -> list[Result]:
    """Return the records in `folders`; a bad one is left out with a warning that names it."""
    found: list[Result] = []
    for folder in folders:
        try:
            found += [folder.read()] if folder.result.is_file() else []
        except UserError as error:
            _log.warning("left out: %s", error)
    return found


def check_root(root: Path | str) -> None:
    """Raise UserError if the folder `root` does not exist."""
    if not Path(root).is_dir():
        raise UserError(f"there is no folder {root}; make a first record there with: {first_run(root)}")


def first_run(root: Path | str) -> str:
    """Return the command that makes a record below `root`."""
    return script("run", setting("root", root))


def references_file(root: Path | str, data_name: str) -> Path:
    """Return the file of references for the data of that name, which all runs below `root` share.

    Raises UserError if the name can't be a file name.
    """
    if not data_name or "/" in data_name or data_name.startswith("."):
        raise UserError(
            f"data name {data_name!r} must be a plain file name without '/' or leading '.': rename the folder data.root"
        )
    return Path(root) / "references" / f"{data_name}.jsonl"

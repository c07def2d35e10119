"""The folder of a run: what is there, what is finished, and what another config left.

`<root>/<exp>/seed<seed>/` holds the tracked record (config.yaml, result.json, bits.json, hypotheses.jsonl), the model
in `model/`, and in `work/` what an unfinished run needs to go on.
"""

import shutil
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mpq.errors import UserError
from mpq.record.atomic import write_text
from mpq.record.result import Result, from_json

# What may differ between a finished run and one that asks for its result: where things lie, and the machine.
_PLACES = ("root", "cache", "overwrite", "logger", "exp")


class RunFolder:
    """One run's folder, made when something is first written to it."""

    def __init__(self, root: str | Path, exp: str, seed: int) -> None:
        self.path = Path(root) / exp / f"seed{seed}"
        self.model = self.path / "model"
        self.work = self.path / "work"
        self.result = self.path / "result.json"
        self.hypotheses = self.path / "hypotheses.jsonl"

    def finished(self, cfg: DictConfig) -> Result | None:
        """The record of an earlier run of this config whose model is still here, else None.

        Raises: UserError where the folder holds a run of another config and `overwrite` is false.
        """
        saved = self.path / "config.yaml"
        if cfg.overwrite or not saved.is_file():
            return None
        differing = _differences(OmegaConf.load(saved), cfg)  # type: ignore[arg-type]
        if differing:
            raise UserError(
                f"{self.path} holds a run with other settings ({'; '.join(differing[:3])}); "
                "overwrite=true replaces it, root=FOLDER keeps both"
            )
        if not self.result.is_file() or not self.model.is_dir():
            return None
        return from_json(self.result.read_text(encoding="utf-8"), self.result)

    def begin(self, cfg: DictConfig) -> None:
        """Clear what an overwritten run left, and write the config."""
        saved = self.path / "config.yaml"
        if cfg.overwrite and not self._same(cfg):
            for folder in (self.model, self.work):
                shutil.rmtree(folder, ignore_errors=True)
        self.result.unlink(missing_ok=True)  # from here on the old record would describe another model
        write_text(saved, OmegaConf.to_yaml(_comparable(cfg)))
        self.work.mkdir(parents=True, exist_ok=True)

    def end(self, result: Result) -> None:
        """Write the record, the last file of a run, and drop the training checkpoints."""
        write_text(self.result, result.to_json())
        shutil.rmtree(self.work, ignore_errors=True)

    def _same(self, cfg: DictConfig) -> bool:
        """Whether this is the same overwriting command again, after a kill."""
        saved = self.path / "config.yaml"
        unfinished = self.work.is_dir() and not self.result.is_file()
        return unfinished and saved.is_file() and not _differences(OmegaConf.load(saved), cfg)  # type: ignore[arg-type]


def _comparable(cfg: DictConfig) -> DictConfig:
    kept = {key: value for key, value in OmegaConf.to_container(cfg).items() if key not in _PLACES}  # type: ignore[union-attr]
    return OmegaConf.create(kept)


def _differences(old: DictConfig, new: DictConfig) -> list[str]:
    """`key: old -> new` for every value that differs."""
    before, after = _flat(_comparable(old)), _flat(_comparable(new))
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, DictConfig) or (isinstance(value, dict) and value):
        items: dict[str, object] = {}
        for key in value:
            items |= _flat(value[key], f"{prefix}.{key}" if prefix else str(key))
        return items
    return {prefix: str(value)}

"""Runs the rows of a table that have no record yet, through Hydra's own launchers.

A table's rows are not a product of choices, which is what Hydra's sweepers generate; a launcher accepts any list of
jobs, so it is called directly. The configured launcher (`hydra/launcher=submitit_slurm`, `ray`, `joblib`) runs them,
possibly on machines that import nothing of the sweep but this module.
"""

import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from mpq import checks, conf, settings
from mpq.files import TakenError, write_text
from mpq.guard import explain
from mpq.progress import track
from mpq.record.run_folder import RunFolder, run_folders
from mpq.report.tables.planned import Row

settings.register_resolvers()  # here, because a launcher's worker process imports this module and nothing before it


@dataclass(frozen=True)
class Failure:
    """A row that ended without a record: the reason, and the log file, if there is one."""

    row: Row
    reason: str
    log: Path | None


def sweep(rows: Sequence[Row], words: Sequence[str]) -> tuple[list[Row], list[Row], list[Failure]]:
    """Run each row unless it has its record; `words` are Hydra's words for all rows, `hydra/launcher=` among them.

    Returns: the rows finished before, those finished now, and those that failed, which don't stop the others.
    Raises: UserError or Hydra's errors if a word can't be used, or if a row's folder holds a run with other settings or
    on other recordings.
    """
    with conf.composing():
        configs = _settled(rows, words)
        before = [row for row in rows if _is_finished(configs[row])]
        todo = [row for row in rows if row not in before]
        stopped = _launch(todo, words) if todo else None
    after = [row for row in todo if _has_record(configs[row])]
    failed = [_failure(row, configs[row], stopped) for row in todo if row not in after]
    return before, after, failed


def unfinished(rows: Sequence[Row], words: Sequence[str]) -> list[Row]:
    """The rows that a sweep would run."""
    with conf.composing():
        return [row for row, cfg in _settled(rows, words).items() if not _is_finished(cfg)]


def is_hydras(word: str) -> bool:
    """Whether a word of the command line is for Hydra itself, as `hydra/launcher=joblib`, and no setting of a run."""
    return word.lstrip("+").startswith("hydra")


def run_row(cfg: DictConfig) -> None:
    """Run one row; an error is logged in its folder and reported at the end of the sweep, since other rows continue."""
    from mpq.pipeline import run  # here, since launching jobs on other machines doesn't need torch

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    folder = RunFolder(cfg.root, cfg.exp, cfg.seed)
    print(f"{cfg.exp}, seed {cfg.seed}", flush=True)
    try:
        run(cfg)
        folder.log.unlink(missing_ok=True)
        print(f"record {folder.result}", flush=True)
    except TakenError as taken:  # its folder belongs to the other process, so write no log there
        print(f"left out: {taken}", flush=True)
    except Exception as error:
        reason = explain(error) or f"{type(error).__name__}: {error}"
        print(f"error: {reason}", flush=True)
        write_text(folder.log, f"{reason}\n\n{traceback.format_exc()}")


class ListFailures(Callback):
    """Names what failed at the end of `python scripts/run.py -m ...` (`hydra.callbacks` in conf/config.yaml)."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the time: an older log is another sweep's."""
        self._start = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print each failed run with its log, and end with exit status 1 if there is one."""
        logs = [folder.log for folder in run_folders(config.root)]
        if failed := [log for log in logs if log.is_file() and log.stat().st_mtime >= self._start]:
            for log in failed:
                print(
                    f"failed: {log.parent}: {log.read_text(encoding='utf-8').splitlines()[0]} ({log})", file=sys.stderr
                )
            sys.exit(1)


def _launch(rows: Sequence[Row], words: Sequence[str]) -> str | None:
    """Hand the rows to the launcher and wait; return why it gave up, if it did."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    launchers = [word for word in words if is_hydras(word)]
    cfg = hydra.compose_config("config", launchers, run_mode=RunMode.MULTIRUN)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(hydra.config_loader, Callbacks()), task_function=run_row, config=cfg
    )
    others = [word for word in words if word not in launchers]
    try:
        launcher.launch([[*row.words, *others] for row in rows], initial_job_idx=0)
    except Exception as error:  # a job that the cluster killed; what it left undone is seen from the records
        return f"{type(error).__name__}: {error}"
    return None


def _settled(rows: Sequence[Row], words: Sequence[str]) -> dict[Row, DictConfig]:
    """The settled config of each row; composing takes longest, so rows that differ in bits and seed share one.

    Rows that have a record also get the hash of their recordings as they are now, where these are here, and the digest
    of the model where the record has it at another path.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    composed: dict[tuple[str, ...], Any] = {}
    settled = {}
    for row in track(rows, "Comparing records with settings", "rows"):
        shared, own = row.shared_words, row.own_words
        if shared not in composed:
            cfg: Any = hydra.compose_config("config", [*shared, *words], run_mode=RunMode.RUN)
            composed[shared] = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        cfg = OmegaConf.merge(composed[shared], OmegaConf.from_dotlist(own))
        settled[row] = settings.settle(cfg)
    hashes: dict[str, str] = {}
    digests: dict[str, str] = {}
    for cfg in settled.values():
        checks.weights(cfg, digests)
        if cfg.data.root and Path(cfg.data.root).is_dir() and RunFolder(cfg.root, cfg.exp, cfg.seed).result.is_file():
            data = str(settings.data_of(cfg))
            if data not in hashes:
                checks.recordings(cfg)
                hashes[data] = cfg.data.hash
            cfg.data.hash = hashes[data]
    return settled


def _is_finished(cfg: DictConfig) -> bool:
    """Whether the row need not run."""
    return RunFolder(cfg.root, cfg.exp, cfg.seed).finished(cfg, needed="record") is not None


def _has_record(cfg: DictConfig) -> bool:
    """Whether the row, which has run, left its record."""
    cfg.overwrite = False  # it is done
    return _is_finished(cfg)


def _failure(row: Row, cfg: DictConfig, stopped: str | None) -> Failure:
    log = RunFolder(cfg.root, cfg.exp, cfg.seed).log
    if log.is_file():
        return Failure(row, log.read_text(encoding="utf-8").splitlines()[0], log)
    return Failure(row, stopped or "its job ended without a record, or another process is still working on it", None)

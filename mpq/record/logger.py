"""Weights & Biases through Lightning's WandbLogger, which must never stop a run.

Offline unless a login exists: then nothing leaves the machine and no account is needed. `wandb sync` uploads an
offline run later. Online, with a server that can't be reached, a run waits a few seconds and then goes offline.
"""

import logging
import netrc
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from mpq.errors import UserError
from mpq.record.atomic import write_text

_MODES = ("auto", "offline", "online", "off")
_START_SECONDS = 15.0  # wandb's own limit is 90
_FINISH_SECONDS = 60.0  # for what is not uploaded yet; wandb's own is none, and a vanished server would hold the run

_log = logging.getLogger(__name__)


def check(settings: Mapping[str, Any]) -> None:
    """Raise UserError for an unknown `mode`, and for `online` without a login."""
    if settings["mode"] not in _MODES:
        raise UserError(f"logger.mode={settings['mode']} must be one of {', '.join(_MODES)}")
    if settings["mode"] == "online" and not _has_login():
        raise UserError("logger.mode=online needs a login: run `wandb login`, or take logger.mode=offline")


@contextmanager
def run_logger(
    settings: Mapping[str, Any], exp: str, seed: int, tags: list[str], config: dict[str, Any], folder: Path, work: Path
) -> Iterator[Any]:
    """Yield a started WandbLogger, or False (Lightning's word for none) for `mode="off"`; finish its run at the end.

    `settings`: `project`, and `mode`: auto (online where a login exists), offline, online or off. The files go to
    `folder`. The run's id is kept in `work`, which lasts until a run has its result: a resumed run goes on in the same
    W&B run, and one that is made again gets its own.

    Raises: UserError as `check` does.
    """
    check(settings)
    wanted = os.environ.get("WANDB_MODE")  # what wandb's own users set
    if settings["mode"] == "off" or wanted == "disabled":
        yield False
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    offline = wanted in ("offline", "dryrun") or settings["mode"] == "offline" or not _has_login()
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {"project": settings["project"], "name": f"{exp}-seed{seed}", "group": exp, "id": _run_id(work)}
    logger = _start({**arguments, "tags": tags, "config": config}, folder, offline)
    try:
        yield logger
    except BaseException:
        _finish(logger, exit_code=1)
        raise
    _finish(logger, exit_code=0)


def _has_login() -> bool:
    """Whether `wandb login` was run or WANDB_API_KEY is set: the two places that wandb documents."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _run_id(work: Path) -> str:
    path = work / "wandb_id"
    if not path.is_file():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8").strip()


def _start(arguments: dict[str, Any], folder: Path, offline: bool) -> Any:
    """A logger whose run has begun, offline where the server can't be reached."""
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    settings = wandb.Settings(init_timeout=_START_SECONDS, finish_timeout=_FINISH_SECONDS, silent=True)
    # `mode` instead of WandbLogger's `offline`, which would set WANDB_MODE for all later runs of this process.
    mode = "offline" if offline else "online"
    logger = WandbLogger(save_dir=folder, mode=mode, settings=settings, **arguments)
    try:
        _ = logger.experiment  # starts the run here, where a failure can be caught
    except Exception as error:  # wandb raises many kinds; none of them is worth a run
        if offline:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        _log.warning("W&B can't be reached (%s): this run is logged offline; `wandb sync` uploads it later", reason)
        return _start(arguments, folder, offline=True)
    return logger


def _finish(logger: Any, exit_code: int) -> None:
    """End the run, so that the next one of this process gets its own."""
    import wandb

    if wandb.run is not None:  # only the first process of several has one
        wandb.finish(exit_code=exit_code)

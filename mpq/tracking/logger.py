"""Weights & Biases through Lightning's WandbLogger, which must never stop a run.

Offline unless a login exists: then nothing leaves the machine and no account is needed. `wandb sync` uploads an
offline run later. Online, with a server that can't be reached, a run waits a few seconds and then goes offline.
"""

import functools
import logging
import netrc
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from mpq.errors import UserError, first_line
from mpq.files import write_text

_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")  # the two names of W&B's own server
_MODES = ("auto", "offline", "online", "off")
_START_SECONDS = 8.0  # wandb's own limit is 90
_FINISH_SECONDS = 60.0  # for what is not uploaded yet; wandb's own is none, and a vanished server would hold the run

UPDATE = "update"
"""What curves are drawn over: the updates of the whole run, while Lightning's own count begins anew at each stage."""
# No pattern may match what another one does: of two, wandb takes either.
_CURVES = ("train/*", "bits/average", "bits/budget")
_UNSEEN = ("trainer/global_step", "epoch", "bits/site/*", "probability/*")  # hundreds of curves; tables show them

_log = logging.getLogger(__name__)


def check(settings: Mapping[str, Any]) -> None:
    """Raise UserError for an unknown `mode`, and for `online` without a login."""
    if settings["mode"] not in _MODES:
        raise UserError(f"logger.mode={settings['mode']} must be one of {', '.join(_MODES)}")
    if settings["mode"] == "online" and not has_login():
        raise UserError("logger.mode=online needs a login: run `wandb login`, or take logger.mode=offline")


@contextmanager
def run_logger(
    settings: Mapping[str, Any],
    exp: str,
    seed: int,
    job_type: str,
    tags: list[str],
    config: dict[str, Any],
    folder: Path,
    work: Path,
) -> Iterator[Any]:
    """Yield a started WandbLogger, or False (Lightning's word for none) for `mode="off"`; finish its run at the end.

    `settings`: `project`, and `mode`: auto (online where a login exists), offline, online or off. Runs that differ in
    the seed alone are a group, runs of one recipe have one `job_type`. The files go to `folder`. The run's id is kept
    in `work`, which lasts until a run has its result: a resumed run goes on in the same W&B run, and one that is made
    again gets its own.

    Raises: UserError as `check` does.
    """
    check(settings)
    wanted = os.environ.get("WANDB_MODE")  # what wandb's own users set
    if settings["mode"] == "off" or wanted == "disabled":
        yield False
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    offline = wanted in ("offline", "dryrun") or settings["mode"] == "offline" or not has_login()
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {
        "project": settings["project"],
        "name": f"{exp}-seed{seed}",
        "group": exp,
        "job_type": job_type,
        "tags": tags,
        "config": config,
    }
    try:
        logger = _start(arguments, folder, work / "wandb_id", offline)
    except Exception as error:  # a home or a staging folder that can't be written; wandb raises many kinds
        _log.warning(
            "W&B can't log this run (%s); it goes on without, and its record has the same figures", first_line(error)
        )
        yield False
        return
    logger.log_metrics = _tolerant(logger.log_metrics)
    failed = 1
    try:
        yield logger
        failed = 0
    finally:  # else the next run of this process would be logged to this one
        _finish(logger, failed)


def _finish(logger: Any, failed: int) -> None:
    """End the run; a server that has vanished costs a minute and a warning, and not the run's result."""
    try:
        logger.experiment.finish(failed)
    except Exception as error:  # as in `_start`
        _log.warning(
            "W&B lacks a part of the run (%s); `wandb sync` uploads it from the run's folder", first_line(error)
        )


def _tolerant(log: Callable[..., None]) -> Callable[..., None]:
    """`log`, but its first failure is a warning and ends the logging: metrics are not worth a run."""
    failed = False

    def tolerant(*arguments: Any, **settings: Any) -> None:
        nonlocal failed
        try:
            if not failed:
                log(*arguments, **settings)
        except Exception as error:
            failed = True
            _log.warning("W&B takes no more metrics of this run (%s); the run goes on", first_line(error))

    return tolerant


def has_login() -> bool:
    """Whether `wandb login` was run or WANDB_API_KEY is set: the two places that wandb documents."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "")).netloc
    try:
        logins = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(logins.authenticators(name) for name in ([host] if host else _HOSTS))


def _start(about: dict[str, Any], folder: Path, id_file: Path, offline: bool) -> Any:
    """A logger whose run has begun, offline where the server can't be reached."""
    import wandb
    from lightning.fabric.utilities.rank_zero import rank_zero_only
    from lightning.pytorch.loggers import WandbLogger

    if getattr(rank_zero_only, "rank", 0) != 0:
        return WandbLogger(save_dir=folder)  # of several processes only the first has a run; this one logs nothing
    if not id_file.is_file():
        write_text(id_file, secrets.token_hex(4))
    settings = wandb.Settings(init_timeout=_START_SECONDS, finish_timeout=_FINISH_SECONDS, silent=True)
    start = functools.partial(wandb.init, dir=folder, settings=settings, **about)
    try:
        # Started here rather than by WandbLogger, which would set WANDB_MODE for all later runs of this process.
        name = id_file.read_text(encoding="utf-8")
        run = start(mode="offline", id=name) if offline else start(mode="online", id=name, resume="allow")
    except Exception as error:  # wandb raises many kinds; none of them is worth a run
        if offline:
            raise
        _log.warning(
            "W&B can't be reached (%s): this run is logged offline; `wandb sync` uploads it later", first_line(error)
        )
        write_text(id_file, secrets.token_hex(4))  # wandb's service goes on holding the id of the failed start
        run = start(mode="offline", id=id_file.read_text(encoding="utf-8"))
    run.define_metric(UPDATE)
    for name in _CURVES:
        run.define_metric(name, step_metric=UPDATE, step_sync=True)
    for name in _UNSEEN:
        run.define_metric(name, step_metric=UPDATE, step_sync=True, hidden=True, summary="none")
    return WandbLogger(save_dir=folder, experiment=run)

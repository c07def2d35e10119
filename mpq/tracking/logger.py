"""Weights & Biases through Lightning's WandbLogger, which must never stop a run.

Without a login, runs are logged offline: nothing leaves the machine, no account is needed, and `wandb sync` uploads a
run later. With a login, if the server can't be reached, a run waits a few seconds and then continues offline.
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
_LONGEST, _LONGEST_TAG = 128, 64  # characters that W&B accepts of a name and of a tag
_NOT_IN_PROJECT = "/\\#?%:"
_MODES = ("auto", "offline", "online", "off")
_START_SECONDS = 8.0  # wandb's own limit is 90
_FINISH_SECONDS = 60.0  # for the remaining upload; wandb has no limit, so that a lost server would block the run

UPDATE = "update"
"""The x-axis of curves: the updates of the whole run, because Lightning's own count restarts at each stage."""
# Patterns must not overlap: wandb applies either one of two that match.
_CURVES = ("train/*", "bits/average", "bits/budget")
_UNSEEN = ("trainer/global_step", "epoch", "bits/site/*", "probability/*")  # hundreds of curves; tables show them

_log = logging.getLogger(__name__)


def check(settings: Mapping[str, Any]) -> None:
    """Raise UserError for an unknown `mode`, a `project` that W&B doesn't accept, and for `online` without a login."""
    if settings["mode"] not in _MODES:
        raise UserError(f"logger.mode={settings['mode']} must be one of {', '.join(_MODES)}")
    project = str(settings["project"])
    if settings["mode"] != "off" and (not 0 < len(project) <= _LONGEST or set(project) & set(_NOT_IN_PROJECT)):
        raise UserError(
            f"logger.project={project} must have 1 to {_LONGEST} characters, none of them {' '.join(_NOT_IN_PROJECT)}"
        )
    if settings["mode"] == "online" and not has_login():
        raise UserError("logger.mode=online needs a login: run `wandb login`, or set logger.mode=offline")


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
    """Yield a started WandbLogger, or for `mode="off"` False (no logger, in Lightning); finish its run at the end.

    `settings`: `project`, and `mode`: auto (online where a login exists), offline, online or off. Runs that differ
    only in the seed form a group; runs of one recipe share a `job_type`. The files go to `folder`. The run's id is kept
    in `work`, which exists until the run has its result: a resumed run continues the same W&B run, a repeated run gets
    a new one.

    Raises: UserError as `check` does.
    """
    check(settings)
    wanted = os.environ.get("WANDB_MODE")  # wandb's own switch
    if settings["mode"] == "off" or wanted == "disabled":
        yield False
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    offline = wanted in ("offline", "dryrun") or settings["mode"] == "offline" or not has_login()
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {
        "project": str(settings["project"]),
        "name": f"{exp[: _LONGEST - 32]}-seed{seed}",
        "group": exp[:_LONGEST],
        "job_type": job_type[:_LONGEST],
        "tags": [tag[:_LONGEST_TAG] for tag in tags],
        "config": config,
    }
    try:
        logger = _start(arguments, folder, work / "wandb_id", offline)
    except Exception as error:  # such as an unwritable home or staging folder; wandb raises many types
        _log.warning(
            "W&B can't log this run (%s); it continues without, and its record has the same numbers", first_line(error)
        )
        yield False
        return
    logger.log_metrics = _tolerant(logger.log_metrics)
    failed = 1
    try:
        yield logger
        failed = 0
    finally:  # otherwise the next run of this process would be logged to this one
        _finish(logger, failed)


def _finish(logger: Any, failed: int) -> None:
    """Finish the run; a lost server costs a minute and a warning, but not the run's result."""
    try:
        logger.experiment.finish(failed)
    except Exception as error:  # as in `_start`
        _log.warning("W&B lacks part of the run (%s); `wandb sync` uploads it from the run's folder", first_line(error))


def _tolerant(log: Callable[..., None]) -> Callable[..., None]:
    """Wrap `log` so that its first failure is a warning and stops the logging instead of the run."""
    failed = False

    def tolerant(*arguments: Any, **settings: Any) -> None:
        nonlocal failed
        try:
            if not failed:
                log(*arguments, **settings)
        except Exception as error:
            failed = True
            _log.warning("W&B accepts no more metrics of this run (%s); the run continues", first_line(error))

    return tolerant


def has_login() -> bool:
    """Whether `wandb login` was run or WANDB_API_KEY is set, the two ways that wandb documents."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "")).netloc
    try:
        logins = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(logins.authenticators(name) for name in ([host] if host else _HOSTS))


def _start(about: dict[str, Any], folder: Path, id_file: Path, offline: bool) -> Any:
    """A logger with a started run, offline if the server can't be reached."""
    import wandb
    from lightning.fabric.utilities.rank_zero import rank_zero_only
    from lightning.pytorch.loggers import WandbLogger

    if getattr(rank_zero_only, "rank", 0) != 0:
        return WandbLogger(save_dir=folder)  # only the first of several processes has a run; this one logs nothing
    if not id_file.is_file():
        write_text(id_file, secrets.token_hex(4))
    settings = wandb.Settings(init_timeout=_START_SECONDS, finish_timeout=_FINISH_SECONDS, silent=True)
    start = functools.partial(wandb.init, dir=folder, settings=settings, **about)
    try:
        # Started here rather than by WandbLogger, which would set WANDB_MODE for all later runs of this process.
        name = id_file.read_text(encoding="utf-8")
        run = start(mode="offline", id=name) if offline else start(mode="online", id=name, resume="allow")
    except Exception as error:  # wandb raises many types; none may stop a run
        if offline:
            raise
        _log.warning(
            "W&B can't be reached (%s): this run is logged offline; `wandb sync` uploads it later", first_line(error)
        )
        write_text(id_file, secrets.token_hex(4))  # wandb's service keeps holding the id of the failed start
        run = start(mode="offline", id=id_file.read_text(encoding="utf-8"))
    run.define_metric(UPDATE)
    for name in _CURVES:
        run.define_metric(name, step_metric=UPDATE, step_sync=True)
    for name in _UNSEEN:
        run.define_metric(name, step_metric=UPDATE, step_sync=True, hidden=True, summary="none")
    return WandbLogger(save_dir=folder, experiment=run)

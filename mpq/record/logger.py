"""Weights & Biases through Lightning's WandbLogger, which must never stop a run.

Offline unless a login exists: then nothing leaves the machine and no account is needed. `wandb sync` uploads an
offline run later. Online, with a server that can't be reached, a run waits a few seconds and then goes offline.
"""

import netrc
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from mpq.errors import UserError

_MODES = ("auto", "offline", "online", "off")
_SECONDS = 15.0  # wandb's own limit is 90


def make_logger(
    settings: Mapping[str, Any], exp: str, seed: int, tags: list[str], config: dict[str, Any], folder: Path
) -> Any:
    """A started WandbLogger, or False (Lightning's word for none) for `mode="off"`.

    `settings`: `project`, and `mode`: auto (online where a login exists), offline, online or off. The files go to
    `folder`.

    Raises: UserError for another mode, and for `online` without a login.
    """
    mode, project = settings["mode"], settings["project"]
    if mode not in _MODES:
        raise UserError(f"logger.mode={mode} must be one of {', '.join(_MODES)}")
    if mode == "off":
        return False
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    login = _has_login()
    if mode == "online" and not login:
        raise UserError("logger.mode=online needs a login: run `wandb login`, or take logger.mode=offline")
    wanted = os.environ.get("WANDB_MODE")
    offline = wanted in ("offline", "dryrun") or not login or mode == "offline"
    arguments = {"project": project, "name": f"{exp}-seed{seed}", "group": exp, "tags": tags, "config": config}
    if wanted == "disabled":
        return False
    folder.mkdir(parents=True, exist_ok=True)
    if not offline:
        try:
            return _start(arguments, folder, offline=False)
        except (wandb.Error, TimeoutError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            warnings.warn(
                f"W&B is not reachable ({reason}); this run is logged offline, `wandb sync` uploads it", stacklevel=2
            )
    return _start(arguments, folder, offline=True)


def _has_login() -> bool:
    """Whether `wandb login` was run or WANDB_API_KEY is set: the two places that wandb documents."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _start(arguments: dict[str, Any], folder: Path, offline: bool) -> Any:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(
        save_dir=folder, offline=offline, settings=wandb.Settings(init_timeout=_SECONDS, silent=True), **arguments
    )
    _ = logger.experiment  # starts the run here, where a failure can be caught
    return logger

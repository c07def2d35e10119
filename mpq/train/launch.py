"""Starts a run's other processes on this machine, the followers, and reports how one failed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mpq.errors import UserError
from mpq.files import write_text

_ORDERLY = (0, 128 + 15)  # ended, or stopped by SIGTERM
_GRACE_SECONDS = 15.0  # for the first process to fail by itself after a follower has


def start(cfg: DictConfig, work: Path, processes: int) -> list[subprocess.Popen[bytes]]:
    """Start all `processes` of the settled config except this one; the config is written to `work`.

    Raises: UserError if they would be on several machines.
    """
    if cfg.trainer.nodes > 1:
        raise UserError(f"trainer.nodes={cfg.trainer.nodes} needs srun or torchrun to start a process for each device")
    write_text(work / "followers.yaml", OmegaConf.to_yaml(cfg))
    os.environ.update(meeting(processes))
    command = [sys.executable, "-m", "mpq.follower", str(work / "followers.yaml")]
    return [subprocess.Popen(command, env={**os.environ, "LOCAL_RANK": str(number)}) for number in range(1, processes)]


def meeting(processes: int) -> dict[str, str]:
    """Return the environment variables from which Lightning knows that all processes exist and where to connect."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    port = str(LightningEnvironment().main_port)  # a free one
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(processes),
    }


def watch(followers: Sequence[subprocess.Popen[bytes]], left: threading.Event) -> None:
    """End this process soon after a follower has failed, unless it ends itself: it might wait for it forever."""
    while not left.wait(0.2):
        if why := failure(followers):
            if not left.wait(_GRACE_SECONDS):
                print(f"error: {why}", file=sys.stderr, flush=True)
                os._exit(1)
            return


def failure(followers: Sequence[subprocess.Popen[bytes]], wait: float = 0.0) -> str | None:
    """Return the message about the first follower that failed, or None; `wait` seconds for one that is about to end."""
    end = time.monotonic() + wait
    while followers:
        failed = [status for status in (f.poll() for f in followers) if status not in (None, *_ORDERLY)]
        if failed and failed[0] > 0:
            return "another process of this run has failed; its error is above"
        if failed:
            name = signal.Signals(-failed[0]).name
            return f"another process of this run was ended by {name}; the same command resumes from the last checkpoint"
        if time.monotonic() >= end:
            break
        time.sleep(0.05)
    return None

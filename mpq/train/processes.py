"""The processes of a run on several devices: the first leads, the others only train along.

The first claims the run, measures, evaluates and writes; the others (followers) load the same teacher and data, join
every update and end. The first starts its followers itself, with the settled config as a file, so that it doesn't
matter how it was started (a script, a sweep, a notebook); torchrun and SLURM start all processes at once.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf

from mpq.errors import UserError
from mpq.record.atomic import write_text

T = TypeVar("T")
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")  # torchrun's, Lightning's and SLURM's; all 0 in the first
_ORDERLY = (0, 128 + 15)  # ended, or stopped by SIGTERM
_GRACE_SECONDS = 15.0  # for the first process to fail by itself when a follower has
_NEWS_SECONDS = 5.0  # for a follower to end whose connection has


def is_follower(trainer: Mapping[str, Any]) -> bool:
    """Whether this process only trains along; `trainer` has the settings `devices` and `nodes`."""
    alone = str(trainer["devices"]) == "1" and trainer["nodes"] == 1
    return not alone and any(int(os.environ.get(name, 0)) for name in _RANKS)


def rank() -> int:
    """The number of this process among those that train together, 0 for the first."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def from_first(read: Callable[[], T]) -> T:
    """What `read` gives in the first process, in every process; it also makes them wait for each other."""
    if count() == 1:
        return read()
    box: list[Any] = [read() if rank() == 0 else None]
    dist.broadcast_object_list(box)
    return box[0]


def everyones(value: T) -> list[T]:
    """The `value` of every process, the first one's first; all of them must ask."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def together(cfg: DictConfig, work: Path) -> Iterator[None]:
    """Connect this process with the others of `cfg.trainer` for a block; the first one starts them, by way of `work`.

    Raises: UserError where Lightning refuses the settings, or a follower has failed.
    """
    fabric = _fabric(cfg.trainer) if any(stage.updates for stage in cfg.recipe.stages.values()) else None
    if fabric is None or fabric.world_size == 1:
        yield
        return
    by_cluster = fabric.strategy.cluster_environment.creates_processes_externally
    followers = [] if by_cluster else _start(cfg, work, fabric.world_size)
    left = threading.Event()
    threading.Thread(target=_watch, args=[followers, left], daemon=True).start()
    try:
        fabric.launch()
        yield
        dist.destroy_process_group()
        for follower in followers:
            follower.wait()
    except RuntimeError:
        if why := _failure(followers, wait=_NEWS_SECONDS):
            raise UserError(why) from None
        raise
    finally:
        left.set()
        for follower in followers:
            follower.kill()
        if dist.is_initialized():
            dist.destroy_process_group()
        if followers:
            for name in _meeting(fabric.world_size):
                os.environ.pop(name, None)  # Lightning has removed some itself


def _fabric(trainer: Mapping[str, Any]) -> Any:
    """Lightning's access to the devices, or None where one is all that is asked for."""
    if str(trainer["devices"]) == "1" and trainer["nodes"] == 1:
        return None
    import lightning
    from lightning.fabric.strategies.ddp import DDPStrategy
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    for name in ("fabric.utilities.rank_zero", "fabric.utilities.distributed", "pytorch.utilities.rank_zero"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    # The first process measures and writes while the others wait: longer than PyTorch's half hour.
    strategy = DDPStrategy(timeout=timedelta(days=1))
    try:
        return lightning.Fabric(
            accelerator=trainer["accelerator"],
            strategy=strategy,
            devices=trainer["devices"],
            num_nodes=trainer["nodes"],
        )
    except (ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer settings that Lightning refuses: {' '.join(str(error).split())}") from None


def _start(cfg: DictConfig, work: Path, processes: int) -> list[subprocess.Popen[bytes]]:
    if cfg.trainer.nodes > 1:
        raise UserError(f"trainer.nodes={cfg.trainer.nodes} needs srun or torchrun to start a process for each device")
    write_text(work / "followers.yaml", OmegaConf.to_yaml(cfg))
    os.environ.update(_meeting(processes))
    command = [sys.executable, "-m", "mpq.train.follower", str(work / "followers.yaml")]
    return [subprocess.Popen(command, env={**os.environ, "LOCAL_RANK": str(number)}) for number in range(1, processes)]


def _meeting(processes: int) -> dict[str, str]:
    """The environment by which Lightning knows that all processes are there and where to meet."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    port = str(LightningEnvironment().main_port)  # a free one
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(processes),
    }


def _watch(followers: Sequence[subprocess.Popen[bytes]], left: threading.Event) -> None:
    """End this process soon after a follower has failed, unless it ends itself: it may wait for that one for ever."""
    while not left.wait(0.2):
        if why := _failure(followers):
            if not left.wait(_GRACE_SECONDS):
                print(f"error: {why}", file=sys.stderr, flush=True)
                os._exit(1)
            return


def _failure(followers: Sequence[subprocess.Popen[bytes]], wait: float = 0.0) -> str | None:
    """What to tell the user of the first follower that failed, or None; `wait` seconds for one that is about to end."""
    end = time.monotonic() + wait
    while followers:
        failed = [status for status in (f.poll() for f in followers) if status not in (None, *_ORDERLY)]
        if failed and failed[0] > 0:
            return "another process of this run has failed and told why above"
        if failed:
            name = signal.Signals(-failed[0]).name
            return f"another process of this run was ended by {name}; the same command goes on from the last checkpoint"
        if time.monotonic() >= end:
            break
        time.sleep(0.05)
    return None

"""The processes of a run on several devices: the first leads, the others (followers) only take part in training.

The first claims the run, measures, evaluates and writes; the followers load the same teacher and data, take part in
every update and exit. The first starts its followers itself, with the settled config as a file, so that it doesn't
matter how it was started (a script, a sweep, a notebook); torchrun and SLURM start all processes at once.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
from omegaconf import DictConfig

from mpq.errors import UserError
from mpq.train import launch

T = TypeVar("T")
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")  # torchrun's, Lightning's and SLURM's; all 0 in the first
_NEWS_SECONDS = 5.0  # for a follower to exit after its connection has ended


def is_follower(trainer: Mapping[str, Any]) -> bool:
    """Return whether this process is a follower; `trainer` has the settings `devices` and `nodes`."""
    alone = str(trainer["devices"]) == "1" and trainer["nodes"] == 1
    return not alone and any(int(os.environ.get(name, 0)) for name in _RANKS)


def rank() -> int:
    """Return the number of this process among those that train together, 0 for the first."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def count() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def from_first(read: Callable[[], T]) -> T:
    """Return, in every process, the first process's result of `read`; the processes wait for each other."""
    if count() == 1:
        return read()
    box: list[Any] = [read() if rank() == 0 else None]
    dist.broadcast_object_list(box)
    return box[0]


def everyones(value: T) -> list[T]:
    """Return the `value` of every process in order; all processes must call this."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def together(cfg: DictConfig, work: Path) -> Iterator[None]:
    """Connect this process with the others of `cfg.trainer` for a block; the first starts them with a file in `work`.

    Raises: UserError if Lightning rejects the settings, or a follower has failed.
    """
    fabric = _fabric(cfg.trainer) if any(stage.updates for stage in cfg.recipe.stages.values()) else None
    if fabric is None or fabric.world_size == 1:
        yield
        return
    by_cluster = fabric.strategy.cluster_environment.creates_processes_externally
    followers = [] if by_cluster else launch.start(cfg, work, fabric.world_size)
    left = threading.Event()
    threading.Thread(target=launch.watch, args=[followers, left], daemon=True).start()
    try:
        fabric.launch()
        yield
        dist.destroy_process_group()
        for follower in followers:
            follower.wait()
    except RuntimeError:
        if why := launch.failure(followers, wait=_NEWS_SECONDS):
            raise UserError(why) from None
        raise
    finally:
        left.set()
        for follower in followers:
            follower.kill()
        if dist.is_initialized():
            dist.destroy_process_group()
        if followers:
            for name in launch.meeting(fabric.world_size):
                os.environ.pop(name, None)  # Lightning has removed some itself


def _fabric(trainer: Mapping[str, Any]) -> Any:
    """Return Lightning's access to the devices, or None if only one is requested."""
    if str(trainer["devices"]) == "1" and trainer["nodes"] == 1:
        return None
    import lightning
    from lightning.fabric.strategies.ddp import DDPStrategy

    for name in ("fabric.utilities.rank_zero", "fabric.utilities.distributed", "pytorch.utilities.rank_zero"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    # The others wait while the first process measures and writes, longer than PyTorch's default of half an hour.
    strategy = DDPStrategy(timeout=timedelta(days=1))
    with refused():
        return lightning.Fabric(
            accelerator=trainer["accelerator"],
            strategy=strategy,
            devices=trainer["devices"],
            num_nodes=trainer["nodes"],
        )


@contextmanager
def refused() -> Iterator[None]:
    """Turn Lightning's errors about settings, raised in the block, into a UserError."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"Lightning rejects the trainer settings: {' '.join(str(error).split())}") from None

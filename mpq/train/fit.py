"""Runs one stage's updates with Lightning, resuming where an earlier, killed run stopped."""

import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mpq.errors import UserError
from mpq.train.callbacks import UpdatesBar
from mpq.train.checkpoint_io import SafetensorsCheckpointIO
from mpq.train.module import TrainingModule
from mpq.train.optimization import Optimization

_SMALL_MODEL = 5_000_000  # parameters; below this one thread trained 2 to 5 times faster than two
_LAST, _SUFFIX = "last", ".safetensors"


@dataclass(frozen=True)
class Machine:
    """What a stage runs on, in Lightning's words; `threads` 0 chooses."""

    accelerator: str = "auto"
    devices: int | str = 1
    nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int = 0


def choose_threads(model: torch.nn.Module, threads: int = 0) -> None:
    """Set PyTorch's number of threads: `threads`, or for 0 one for small models and all cores for others."""
    small = sum(parameter.numel() for parameter in model.parameters()) < _SMALL_MODEL
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or (1 if small else cores))


def fit(
    module: TrainingModule, title: str, optimization: Optimization, machine: Machine, folder: Path, logger: Any
) -> lightning.Trainer:
    """Train `module` for the updates of `optimization`, with a checkpoint in `folder` at every `interval`.

    Where `folder` holds a checkpoint of an earlier run, training goes on from it.

    Raises: UserError where Lightning can't take the settings of the machine, the loss stops being a number, or the
    checkpoint is damaged; KeyboardInterrupt at Ctrl-C.
    """
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        trainer = _trainer(optimization, machine, folder, logger, UpdatesBar(title, optimization.updates))
    except (ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer settings that Lightning refuses: {' '.join(str(error).split())}") from None
    last = folder / f"{_LAST}{_SUFFIX}"
    try:
        trainer.fit(module, ckpt_path=str(last) if last.is_file() else None)
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)  # Lightning's own exit status would be 0, as if the run had ended well
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # which Lightning turns into exit status 1
            raise KeyboardInterrupt from None
        raise
    return trainer


def _trainer(o: Optimization, machine: Machine, folder: Path, logger: Any, bar: UpdatesBar) -> lightning.Trainer:
    checkpoint = ModelCheckpoint(folder, _LAST, every_n_epochs=1, save_on_train_epoch_end=True)
    checkpoint.FILE_EXTENSION = _SUFFIX  # type: ignore[assignment]  # Lightning's own way, its hint names one suffix
    return lightning.Trainer(
        max_steps=o.updates,
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy=machine.strategy,
        precision=machine.precision,  # type: ignore[arg-type]  # Lightning itself lists the choices in its error
        accumulate_grad_batches=o.accumulate,
        gradient_clip_val=o.clip or None,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        callbacks=[checkpoint, bar],
        plugins=[SafetensorsCheckpointIO()],
        logger=logger,
        log_every_n_steps=min(10, o.interval),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )

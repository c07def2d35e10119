"""Runs one stage's updates with Lightning, resuming where an earlier, killed run stopped."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mpq.errors import UserError
from mpq.train.callbacks import UpdatesBar
from mpq.train.checkpoint_io import SafetensorsCheckpointIO
from mpq.train.module import Optimization, TrainingModule

_SMALL_MODEL = 5_000_000  # parameters; below this one thread trained 2 to 5 times faster than two


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
    torch.set_num_threads(threads or (1 if small else len(os.sched_getaffinity(0))))


def fit(
    module: TrainingModule, title: str, optimization: Optimization, machine: Machine, folder: Path, logger: Any
) -> lightning.Trainer:
    """Train `module` for the updates of `optimization`, with a checkpoint in `folder` at every `interval`.

    Where `folder` holds a checkpoint of an earlier run, training goes on from it.

    Raises: UserError where the loss stops being a number.
    """
    o = optimization
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    checkpoint = ModelCheckpoint(dirpath=folder, filename="last", every_n_epochs=1, save_on_train_epoch_end=True)
    checkpoint.FILE_EXTENSION = ".safetensors"
    trainer = lightning.Trainer(
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
        callbacks=[checkpoint, UpdatesBar(title, o.updates)],
        plugins=[SafetensorsCheckpointIO()],
        logger=logger,
        log_every_n_steps=min(10, o.interval),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    last = folder / "last.safetensors"
    trainer.fit(module, ckpt_path=str(last) if last.is_file() else None)
    loss = trainer.callback_metrics.get("train/loss")
    if loss is not None and not torch.isfinite(loss):
        raise UserError(f"the loss of stage {title} became {float(loss)}: lower trainer.learning_rate")
    return trainer

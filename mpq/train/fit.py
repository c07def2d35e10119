"""Runs one stage's updates with Lightning, resuming where an earlier, killed run stopped."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mpq.errors import UserError
from mpq.train import processes
from mpq.train.callbacks import StopAtSignal, UpdatesBar
from mpq.train.checkpoint_io import SafetensorsCheckpointIO
from mpq.train.convolutions import strided_in_float32
from mpq.train.machine import Machine, placement, refused
from mpq.train.module import TrainingModule
from mpq.train.optimization import Optimization

_LAST, _SUFFIX = "last", ".safetensors"
_log = logging.getLogger(__name__)


def fit(
    module: TrainingModule, title: str, optimization: Optimization, machine: Machine, folder: Path, logger: Any
) -> lightning.Trainer:
    """Train `module` for the updates of `optimization`, with a checkpoint in `folder` at every `interval`.

    Where `folder` holds a checkpoint of an earlier run, training goes on from it.

    Raises: UserError where Lightning can't take the settings of the machine, the loss stops being a number, a process
    that decodes audio dies, or the checkpoint is damaged; KeyboardInterrupt at Ctrl-C; SystemExit, after a checkpoint,
    at SIGTERM and SIGUSR1.
    """
    stop = StopAtSignal()
    callbacks = [_checkpoint(folder), UpdatesBar(title, optimization.updates), stop]
    with refused():
        trainer = _trainer(optimization, machine, folder, logger, callbacks)
    last = folder / f"{_LAST}{_SUFFIX}"
    on_cpu = trainer.strategy.root_device.type == "cpu"
    float32 = strided_in_float32(module.model, on_cpu and machine.precision == "bf16-mixed")
    try:
        with _recomputing(module.model, machine.gradient_checkpointing), float32:
            trainer.fit(module, ckpt_path=str(last) if processes.from_first(last.is_file) else None)
    except SIGTERMException:  # it came before the first update, to Lightning
        sys.exit(128 + signal.SIGTERM)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # which Lightning turns into exit status 1
            raise KeyboardInterrupt from None
        raise
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):  # which PyTorch raises wherever the process is at that moment
            raise
        raise UserError(
            "a process that decodes audio has died, as when memory ends: the same command goes on from the last "
            f"checkpoint, data.workers=0 does without such processes ({' '.join(str(error).split())})"
        ) from None
    if stop.stopped_by is not None:
        if processes.rank() == 0:
            name, update = stop.stopped_by.name, trainer.global_step
            _log.warning("stopped by %s after update %d: the same command goes on from there", name, update)
        sys.exit(128 + stop.stopped_by)
    return trainer


@contextmanager
def _recomputing(model: Any, wanted: bool) -> Iterator[None]:
    """Have transformers compute activations twice instead of keeping them, while the block runs."""
    if not wanted:
        yield
        return
    if not model.supports_gradient_checkpointing:
        raise UserError(f"trainer.gradient_checkpointing=true: {type(model).__name__} can't do that")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()


def _checkpoint(folder: Path) -> ModelCheckpoint:
    checkpoint = ModelCheckpoint(folder, _LAST, every_n_epochs=1, save_on_train_epoch_end=True)
    checkpoint.FILE_EXTENSION = _SUFFIX  # type: ignore[assignment]  # Lightning's own way, its hint names one suffix
    return checkpoint


def _trainer(
    o: Optimization, machine: Machine, folder: Path, logger: Any, callbacks: list[Callback]
) -> lightning.Trainer:
    return lightning.Trainer(
        max_steps=o.updates,
        **placement(machine, SafetensorsCheckpointIO()),
        accumulate_grad_batches=o.accumulate,
        gradient_clip_val=o.clip or None,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        callbacks=callbacks,
        logger=logger,
        log_every_n_steps=min(10, o.interval),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )

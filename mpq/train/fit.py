"""Runs the updates of one stage with Lightning, and resumes where an earlier, killed run stopped."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from mpq.errors import UserError
from mpq.progress import Work, work
from mpq.train import processes
from mpq.train.checkpoint_io import SafetensorsCheckpointIO
from mpq.train.machine import Machine, placement
from mpq.train.module import TrainingModule
from mpq.train.optimization import Optimization

_LAST, _SUFFIX = "last", ".safetensors"
_log = logging.getLogger(__name__)


def fit(
    module: TrainingModule, title: str, optimization: Optimization, machine: Machine, folder: Path, logger: Any
) -> lightning.Trainer:
    """Train `module` for the updates of `optimization`, with a checkpoint in `folder` at every `interval`.

    If `folder` has a checkpoint of an earlier run, training resumes from it.

    Raises: UserError if Lightning rejects the machine's settings, the loss or a weight becomes NaN or infinite, a
    process that decodes audio dies, or the checkpoint is damaged; KeyboardInterrupt at Ctrl-C; SystemExit, after a
    checkpoint, at SIGTERM and SIGUSR1.
    """
    stop = StopAtSignal()
    callbacks = [_checkpoint(folder), UpdatesShown(title, optimization.updates), stop]
    with processes.refused():
        trainer = _trainer(optimization, machine, folder, logger, callbacks)
    last = folder / f"{_LAST}{_SUFFIX}"
    on_cpu = trainer.strategy.root_device.type == "cpu"
    float32 = strided_in_float32(module.model, on_cpu and machine.precision == "bf16-mixed")
    try:
        with _recomputing(module.model, machine.gradient_checkpointing), float32:
            trainer.fit(module, ckpt_path=str(last) if processes.from_first(last.is_file) else None)
    except SIGTERMException:  # Lightning received the signal, before the first update
        sys.exit(128 + signal.SIGTERM)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # which Lightning turns into exit status 1
            raise KeyboardInterrupt from None
        raise
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):  # which PyTorch raises wherever this process happens to be
            raise
        raise UserError(
            "a process that decodes audio has died, for example for lack of memory: the same command resumes from the "
            f"last checkpoint, data.workers=0 avoids such processes ({' '.join(str(error).split())})"
        ) from None
    if stop.stopped_by is not None:
        if processes.rank() == 0:
            name, update = stop.stopped_by.name, trainer.global_step
            _log.warning("stopped by %s after update %d: the same command resumes from there", name, update)
        sys.exit(128 + stop.stopped_by)
    return trainer


@contextmanager
def _recomputing(model: Any, wanted: bool) -> Iterator[None]:
    """Have transformers recompute activations in the backward pass, instead of storing them, while the block runs."""
    if not wanted:
        yield
        return
    if not model.supports_gradient_checkpointing:
        raise UserError(f"trainer.gradient_checkpointing must be false: {type(model).__name__} does not support it")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()


def _checkpoint(folder: Path) -> ModelCheckpoint:
    checkpoint = ModelCheckpoint(folder, _LAST, every_n_epochs=1, save_on_train_epoch_end=True)
    checkpoint.FILE_EXTENSION = _SUFFIX  # type: ignore[assignment]  # documented by Lightning, but typed as one literal
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
        log_every_n_steps=min(10, o.interval, o.updates),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


class UpdatesShown(Callback):
    """Shows the updates of a stage as they are made, with the running loss."""

    def __init__(self, title: str, updates: int) -> None:
        self._title = title
        self._updates = updates
        self._shown = ExitStack()
        self._work: Work | None = None
        self._loss: float | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin to show them on the first process, where an earlier run stopped."""
        shown = work(self._title, self._updates, "updates", trainer.global_step, trainer.is_global_zero)
        self._work = self._shown.enter_context(shown)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the update; read the loss only occasionally, since that waits for the GPU."""
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every == 0 and "train/loss" in (metrics := trainer.callback_metrics):
            loss = float(metrics["train/loss"])
            self._loss = loss if self._loss is None else 0.8 * self._loss + 0.2 * loss
        if self._work:
            self._work.report(step, "" if self._loss is None else f"loss {self._loss:.3f}")

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Restore the terminal's cursor."""
        self._shown.close()

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Leave the last state."""
        self._shown.close()


class StopAtSignal(Callback):
    """Ends a stage with a checkpoint after the update in which SIGTERM arrives, or SIGUSR1, SLURM's usual warning.

    It replaces Lightning's own handlers, which end an unfinished epoch without a checkpoint, may save in the middle of
    an update, and can leave some of several processes waiting. Here all processes agree after each update.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self.stopped_by: signal.Signals | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Install the handlers; Lightning restores the previous ones when the stage ends."""
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGUSR1"):  # Windows has no SIGUSR1
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), self._receive)

    def _receive(self, number: int, _: Any) -> None:
        self._received = signal.Signals(number)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after a complete update if any process received a signal."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        stop = self._received is not None
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self.stopped_by = self._received or signal.SIGTERM
            trainer.should_stop = True


@contextmanager
def strided_in_float32(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Have the strided convolutions that `model` trains compute in float32 while the block runs, if `wanted`.

    On processors with AMX, oneDNN 3.12 (PyTorch 2.13) reads uninitialised memory when it computes the gradient of such
    a weight in bfloat16 (`brgconv_bwd_w`; observed with kernels of twice the stride and leftover samples at the end).
    That memory mostly holds finite numbers, so no NaN appears; one run got a NaN within 150 updates.
    """
    found = [m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d)) and max(m.stride) > 1]
    patched = [module for module in found if wanted and module.weight.requires_grad]
    for module in patched:
        module.forward = _in_float32(module.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in patched:
            del module.forward  # the instance attribute; the class's method stays


def _in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def exact(inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(inputs.float())

    return exact

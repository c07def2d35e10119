"""What is shown while a stage trains, and what stops it early."""

import signal
import threading
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class UpdatesBar(Callback):
    """A progress bar over the updates of a stage, with the running loss."""

    def __init__(self, title: str, updates: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task(title, total=updates, loss=float("nan"))
        self._loss: float | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the bar on the first process, where an earlier run stopped."""
        if trainer.is_global_zero:
            self._progress.update(self._task, completed=trainer.global_step)
            self._progress.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on; the loss only every so often, since reading it waits for the GPU."""
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every == 0 and "train/loss" in (metrics := trainer.callback_metrics):
            loss = float(metrics["train/loss"])
            self._loss = loss if self._loss is None else 0.8 * self._loss + 0.2 * loss
            self._progress.update(self._task, loss=self._loss)
        self._progress.update(self._task, completed=step)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal its cursor back."""
        self._progress.stop()

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Leave the bar as it ended."""
        self._progress.stop()


class StopAtSignal(Callback):
    """Ends a stage with a checkpoint after the update in which SIGTERM came, or SIGUSR1, SLURM's usual warning.

    In the place of Lightning's own handlers: those end an epoch that is not over without a checkpoint, may save in the
    middle of an update, and of several processes can leave some waiting. Here all agree after each update.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self.stopped_by: signal.Signals | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen; Lightning gives the signals back to whoever had them when the stage ends."""
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGUSR1"):  # Windows has no SIGUSR1
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), self._receive)

    def _receive(self, number: int, _: Any) -> None:
        self._received = signal.Signals(number)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after a whole update, where any process was told to."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        told = self._received is not None
        if trainer.world_size > 1:
            told = trainer.strategy.reduce_boolean_decision(told, all=False)
        if told:
            self.stopped_by = self._received or signal.SIGTERM
            trainer.should_stop = True

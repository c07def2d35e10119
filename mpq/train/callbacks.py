"""What is shown and logged while a stage trains."""

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

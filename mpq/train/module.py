"""One training stage as a LightningModule: the model, what is learned, and at which rate."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from transformers.modeling_layers import GradientCheckpointingLayer

from mpq.data.dataset import Batch
from mpq.errors import UserError
from mpq.models.speech import SpeechModel
from mpq.record.search import Snapshot
from mpq.search.penalty import PenaltySearch
from mpq.search.rate import RateSearch
from mpq.tracking.logger import UPDATE
from mpq.train import processes
from mpq.train.checkpoint_io import end_epoch
from mpq.train.epoch import Epochs
from mpq.train.loss import Loss, Share, no_loss, share_of
from mpq.train.precisions import Precisions, snapshot
from mpq.train.shared import Shared, SharedUpdate

_log = logging.getLogger(__name__)


class TrainingModule(lightning.LightningModule):
    """Trains the student's model, its quantizers and the logits of the search together, on the batches of `epochs`.

    Everything random in update k is seeded by (seed, k): dropout, masking, Gumbel noise, the choice of utterances. So a
    resumed run continues exactly where it stopped, with no random state to save; and splitting an update's batches over
    one process (`accumulate`) or several makes no difference except in rounding.
    """

    def __init__(
        self,
        student: SpeechModel,
        loss: Loss,
        epochs: Epochs,
        precisions: Precisions | None = None,
        before_checkpoint: Callable[[], None] = lambda: None,
        updates_before: int = 0,
        shared: Shared | None = None,
    ) -> None:
        """Set the stage up; `updates_before`: number of updates in the run's earlier stages, for the logs.

        `shared`: networks that are trained beside the mixture, as long as the precisions are undecided.
        """
        super().__init__()
        self.model = student.model  # a submodule: trained and saved
        self.search = precisions.search if precisions else None  # a submodule, too, for its logits
        self.audio_seconds = 0.0  # processed so far by this process, without padding
        self.trajectory: list[Snapshot] = []  # one per epoch
        self._losses: list[Tensor | float] = []  # of this epoch; numbers from a checkpoint
        self._precisions = precisions
        self._before_checkpoint = before_checkpoint
        self._updates_before = updates_before
        self._student = student
        self._loss = loss
        self._shared = SharedUpdate(shared, precisions, student, loss) if shared and precisions else None
        self._epochs = epochs
        self._optimization = epochs.optimization
        self._reported: set[str] = set()
        self._processes = processes.count()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return this process's batches of the current epoch."""
        return self._epochs.loader(self.trainer.global_step, pin=self.device.type == "cuda")

    def on_train_epoch_start(self) -> None:
        """Set training mode only if dropout is on, whereas Lightning always sets it."""
        self.model.train(self._optimization.dropout)
        for layer in self.model.modules():  # transformers recomputes activations in training mode only
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training |= layer.gradient_checkpointing

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed this update, set the precisions or their mixture, and clear the gradients of the update before."""
        if batch_idx % self._optimization.accumulate == 0:
            self.zero_grad()
        self._epochs.seed(self.global_step, batch_idx)
        if self._precisions is not None:
            self._precisions.start_step(self.global_step, self._optimization.updates)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Do nothing: Lightning calls this after `training_step`, which may have added gradients already."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return the loss of one batch; None, which skips the update, if every file in it was left out."""
        self._report(batch.skipped)
        share = share_of(batch, self._student, self._epochs.batches_per_update, self._sum)
        if not batch.ids and self._processes == 1:
            return None
        loss, parts = self._losses_of(batch, share) if batch.ids else (no_loss(self), {})
        if isinstance(self.search, PenaltySearch):
            penalty = self.search.penalty()  # of every batch: an update's gradient is the mean over its batches
            loss, parts = loss + penalty, {**parts, "penalty": penalty.detach()}
        self.audio_seconds += batch.seconds
        self._losses.append(loss.detach())
        self.log_dict({"train/loss": loss.detach(), **{f"train/{name}": part for name, part in parts.items()}})
        self.log(UPDATE, float(self._updates_before + self.global_step + 1))
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % every == 0:  # only when Lightning logs, since reading a number waits for the GPU
            everywhere = self._sum(loss.detach())  # so that all processes stop
            if not torch.isfinite(everywhere):
                raise self._diverged(f"loss is {float(everywhere)} in update {self.global_step + 1}")
            if self._precisions is not None:
                self.log_dict(self._precisions.metrics())
        return loss

    def _losses_of(self, batch: Batch, share: Share | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of the mixture or of the decided precisions, and parts to log.

        The gradients of networks that share its weights are added on the way, before the last pass of the update: where
        several processes train, only the gradients after that pass are exchanged.
        """
        if self._shared is None or self._precisions is None or self._precisions.decided:
            return self._loss(self._student, batch, share)
        targets, told = self._shared.add(batch, share, self.global_step, self._backward)
        outputs = self._student.logits(batch.inputs, batch.lengths, batch.labels)
        loss, parts = self._loss.of(self._student, batch, outputs, targets, share)
        return loss, {**parts, **told}

    def _backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, as Lightning does with what `training_step` returns."""
        with torch.autocast(self.device.type, enabled=False):
            self.trainer.strategy.backward(loss / self._optimization.accumulate, None)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Let learned steps follow their budget; Lightning clips the gradients after this."""
        if isinstance(self.search, RateSearch):
            self.search.along_budget()

    def on_train_epoch_end(self) -> None:
        """Keep a snapshot of the search, unless a signal cut the epoch short."""
        if not self._epochs.is_over(self.global_step):
            return
        loss = fmean(float(loss) for loss in self._losses) if self._losses else None
        is_open = self._precisions is not None and not self._precisions.decided
        self.trajectory.append(snapshot(self.global_step, loss, self.search if is_open else None))
        self._losses.clear()

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule over the stage's updates."""
        searched = self.search.parameter_groups() if self.search is not None else []
        optimizer = self._optimization.optimizer(self.model, searched)
        schedule = self._optimization.schedule(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the amount of audio processed, for the ledger, and the trajectory.

        Raises: UserError if a weight became NaN or infinite, so that the last good checkpoint is kept.
        """
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters()):
            raise self._diverged(f"weights became NaN or infinite by update {self.global_step}")
        self._before_checkpoint()
        checkpoint["audio_seconds"] = self.all_audio_seconds()
        checkpoint["losses"] = [float(loss) for loss in self._losses]
        checkpoint["trajectory"] = [asdict(entry) for entry in self.trajectory]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the amount of audio and the trajectory, and start with the next epoch."""
        self.audio_seconds = checkpoint["audio_seconds"] if processes.rank() == 0 else 0.0
        self._losses = list(checkpoint.get("losses", ()))
        self.trajectory = [Snapshot(**entry) for entry in checkpoint["trajectory"]]
        end_epoch(checkpoint)

    def all_audio_seconds(self) -> float:
        """Return the audio seconds of all processes so far, without padding; all processes must call this."""
        if self._processes == 1:
            return self.audio_seconds
        device = self.trainer.strategy.root_device  # after training, Lightning has moved the model to the CPU
        own = torch.tensor(self.audio_seconds, device=device, dtype=torch.float64)
        return float(self._sum(own))

    def _sum(self, numbers: Tensor) -> Tensor:
        """Return the sum of `numbers` over all processes; all of them must call this."""
        return self.trainer.strategy.reduce(numbers.clone(), reduce_op="sum")  # a clone, as it is changed in place

    def _report(self, skipped: list[str]) -> None:
        """Warn once about each file that was left out."""
        for message in skipped:
            if message not in self._reported:
                self._reported.add(message)
                _log.warning("left out: %s", message)

    def _diverged(self, what: str) -> UserError:
        return UserError(
            f"the {what} of {self._optimization.updates}: run it again with overwrite=true and a lower "
            "trainer.learning_rate (the last good checkpoint is kept)"
        )

"""The batches of an epoch in this process, and the seed of each.

An epoch here is the `interval` of updates between two checkpoints, so that training can stop after each of them.
"""

import numpy as np
import torch
from torch.utils.data import DataLoader

from mpq.data.batching import BatchPlan
from mpq.data.dataset import Batch, SpeechDataset, loader
from mpq.train import processes
from mpq.train.optimization import Optimization


class Epochs:
    """The batches of a stage, dealt to the processes that train together, one update after the other."""

    def __init__(self, dataset: SpeechDataset, optimization: Optimization, seed: int) -> None:
        self.batches_per_update = optimization.accumulate * processes.count()
        self._dataset = dataset
        self.optimization = optimization
        self._seed = seed
        self._first_batch = 0  # of this epoch, counted in this process's share of a whole epoch
        seconds = [utterance.seconds for utterance in dataset.utterances]
        self._plan = BatchPlan(seconds, optimization.audio_seconds, seed)

    def loader(self, update: int, pin: bool) -> DataLoader[Batch]:
        """Return this process's batches from `update` to the epoch's end.

        `update` is a multiple of the interval, unless a signal stopped the run before.
        """
        interval, accumulate = self.optimization.interval, self.optimization.accumulate
        last = min(update - update % interval + interval, self.optimization.updates)
        self._first_batch = update % interval * accumulate
        batches = list(self._plan.batches(update * self.batches_per_update, last * self.batches_per_update))
        return loader(
            self._dataset,
            batches[processes.rank() :: processes.count()],
            self.optimization.workers,
            pin=pin,
            accumulate=accumulate,
            multiple=self._dataset.multiple_of(self.optimization.pad_seconds),
        )

    def is_over(self, update: int) -> bool:
        """Return whether an epoch ends before `update`."""
        return update % self.optimization.interval == 0 or update >= self.optimization.updates

    def seed(self, update: int, batch: int) -> None:
        """Seed all random operations for batch number `batch` of the loader, which belongs to `update`."""
        batch_of_all = (self._first_batch + batch) * processes.count() + processes.rank()
        seed = (self._seed * 1_000_003 + update * 1_009 + batch_of_all) % 2**32
        torch.manual_seed(seed)
        np.random.seed(seed)  # transformers draws its time and feature masks from NumPy

"""Which utterances go into which batch.

Utterances of like length share a batch, and a batch is bounded by its padded audio-seconds, so that memory and time a
batch hardly vary. The batch of update number k follows from the seed and k alone: a resumed run, or another process,
needs no saved position.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from mpq.errors import UserError

_JITTER = 0.15  # lengths are compared after a random factor of up to this, so that batches differ between epochs


def by_length(seconds: Sequence[float], limit: float) -> list[list[int]]:
    """Batches over all utterances, longest first, none above `limit` padded audio-seconds (an utterance longer than
    `limit` goes alone). For evaluation: always the same.

    Raises: UserError where `limit` is not positive.
    """
    order = np.argsort(-np.asarray(seconds), kind="stable")
    return _fill(order, seconds, limit)


def _fill(order: np.ndarray, seconds: Sequence[float], limit: float) -> list[list[int]]:
    if not limit > 0:
        raise UserError(f"trainer.audio_seconds={limit} must be positive: it is the audio of one batch")
    batches: list[list[int]] = []
    longest = 0.0
    for index in map(int, order):
        longest = max(longest, seconds[index])
        if batches and longest * (len(batches[-1]) + 1) <= limit:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = seconds[index]
    return batches


class BatchPlan:
    """The batches of a training run, in epochs that see every utterance once.

    `seconds`: duration of each utterance, at least one. `limit`: padded audio-seconds a batch. `seed`: 0 or more.

    Raises: UserError where `limit` is not positive, as soon as batches are asked for.
    """

    def __init__(self, seconds: Sequence[float], limit: float, seed: int) -> None:
        if not seconds:
            raise ValueError("no utterance, no batch")
        self._seconds = list(seconds)
        self._limit = limit
        self._seed = seed
        self._starts = [0]  # the number of the first batch of each epoch, as far as epochs were made

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng((self._seed, epoch))
        jittered = np.asarray(self._seconds) * rng.uniform(1 - _JITTER, 1 + _JITTER, len(self._seconds))
        batches = _fill(np.argsort(-jittered, kind="stable"), self._seconds, self._limit)
        return [batches[k] for k in rng.permutation(len(batches))]

    def batches(self, first: int, last: int) -> Iterator[list[int]]:
        """The batches number `first` (from 0) to `last` - 1."""
        epoch = bisect_right(self._starts, first) - 1
        while (start := self._starts[epoch]) < last:
            batches = self._make_epoch(epoch)
            epoch += 1
            if epoch == len(self._starts):
                self._starts.append(start + len(batches))
            yield from batches[max(first - start, 0) : last - start]

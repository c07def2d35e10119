"""Assigns utterances to batches.

Utterances of similar length share a batch, and a batch is bounded by its padded audio-seconds, so that memory and time
per batch hardly vary. Batch number k depends only on the seed and k: a resumed run, or another process, needs no saved
position.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from mpq.errors import UserError

_JITTER = 0.15  # lengths are compared after a random factor of up to this, so that batches differ between epochs


def by_length(seconds: Sequence[float], limit: float) -> list[list[int]]:
    """Return batches of all utterances, longest first, each of at most `limit` padded audio-seconds.

    An utterance longer than `limit` gets its own batch. For evaluation: the same input gives the same batches.

    Raises: UserError if `limit` is not positive.
    """
    order = np.argsort(-np.asarray(seconds), kind="stable")
    return _fill(order, seconds, limit)


def _fill(order: np.ndarray, seconds: Sequence[float], limit: float) -> list[list[int]]:
    if not limit > 0:
        raise UserError(f"trainer.audio_seconds={limit} must be positive: it is the audio per batch")
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
    """The batches of a training run, in epochs that contain every utterance once.

    `seconds`: duration of each utterance, at least one. `limit`: padded audio-seconds per batch. `seed`: 0 or more.

    Raises: UserError if `limit` is not positive, when batches are requested.
    """

    def __init__(self, seconds: Sequence[float], limit: float, seed: int) -> None:
        if not seconds:
            raise ValueError("no utterance, no batch")
        self._seconds = list(seconds)
        self._limit = limit
        self._seed = seed
        self._starts = [0]  # the number of the first batch of each epoch made so far

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng((self._seed, epoch))
        jittered = np.asarray(self._seconds) * rng.uniform(1 - _JITTER, 1 + _JITTER, len(self._seconds))
        batches = _fill(np.argsort(-jittered, kind="stable"), self._seconds, self._limit)
        return [batches[k] for k in rng.permutation(len(batches))]

    def batches(self, first: int, last: int) -> Iterator[list[int]]:
        """Yield the batches numbered `first` (from 0) to `last` - 1."""
        epoch = bisect_right(self._starts, first) - 1
        while (start := self._starts[epoch]) < last:
            batches = self._make_epoch(epoch)
            epoch += 1
            if epoch == len(self._starts):
                self._starts.append(start + len(batches))
            yield from batches[max(first - start, 0) : last - start]

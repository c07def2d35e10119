"""The random state of every batch: its own, and the same in a run that was stopped in the middle of an epoch."""

import numpy as np
import pytest
import torch
from tiny_stage import load, optimization

from mpq.train.epoch import Epochs


@pytest.fixture(scope="module")
def dataset(model_folder, speech_folder):
    return load(model_folder, speech_folder)[1]


def draws(dataset, seed, start=0, accumulate=2):
    """What PyTorch and NumPy draw at each batch of eight updates in epochs of three, from update `start` on."""
    epochs = Epochs(dataset, optimization(updates=8, interval=3, accumulate=accumulate), seed)
    drawn, update = {}, start
    while update < 8:
        batches = len(list(epochs.loader(update, pin=False)))
        for batch in range(batches):
            epochs.seed(update + batch // accumulate, batch)
            drawn[update + batch // accumulate, batch % accumulate] = (float(torch.rand(())), float(np.random.rand()))
        update += batches // accumulate
    return drawn


def test_no_two_batches_of_a_run_and_no_two_runs_draw_the_same(dataset):
    seed = int(np.random.default_rng().integers(2**20))
    first, other = draws(dataset, seed), draws(dataset, seed + 1)
    assert len(first) == 16
    for library in (0, 1):
        values = [pair[library] for run in (first, other) for pair in run.values()]
        assert len(set(values)) == 32, seed


@pytest.mark.parametrize("start", [1, 2, 5])
def test_a_run_stopped_within_an_epoch_draws_on_as_if_it_had_not(dataset, start):
    whole = draws(dataset, seed=3)
    assert draws(dataset, seed=3, start=start) == {key: value for key, value in whole.items() if key[0] >= start}

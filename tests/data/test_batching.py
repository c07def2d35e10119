from itertools import islice

import numpy as np
import pytest

from mpq.data.batching import BatchPlan, by_length
from mpq.errors import UserError


@pytest.fixture
def seconds(rng):
    return list(rng.uniform(0.5, 20, rng.integers(5, 80)))


@pytest.fixture
def limit(rng):
    return rng.uniform(5, 60)


def within(batch, seconds, limit):
    return len(batch) == 1 or max(seconds[k] for k in batch) * len(batch) <= limit


def epochs(plan, utterances, count):
    """The batches of each of the first `count` epochs."""
    batches = plan.batches(0, 10**6)
    for _ in range(count):
        epoch = []
        while sum(map(len, epoch)) < utterances:
            epoch.append(next(batches))
        yield epoch


def test_evaluation_hears_everything_once_longest_first(seconds, limit):
    batches = by_length(seconds, limit)
    order = [k for batch in batches for k in batch]
    assert sorted(order) == list(range(len(seconds)))
    assert [seconds[k] for k in order] == sorted(seconds, reverse=True)
    assert all(within(batch, seconds, limit) for batch in batches)


def test_batches_are_full(rng):
    assert by_length([1.0] * 10, 4.0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert by_length([9.0, 1.0, 1.0, 1.0], 2.0) == [[0], [1, 2], [3]]


def test_an_epoch_hears_everything_once(rng, seconds, limit):
    plan = BatchPlan(seconds, limit, int(rng.integers(2**60)))
    for batches in epochs(plan, len(seconds), 3):
        assert all(within(batch, seconds, limit) for batch in batches)
        assert sorted(k for batch in batches for k in batch) == list(range(len(seconds)))


def test_epochs_share_hardly_a_batch(rng):
    seconds = list(rng.uniform(1, 5, 200))  # so many that none of 1,000 draws had three batches in a hundred in common
    plan = BatchPlan(seconds, 20.0, int(rng.integers(2**60)))
    one, two, three = ({frozenset(batch) for batch in epoch} for epoch in epochs(plan, 200, 3))
    assert max(len(one & two), len(one & three), len(two & three)) < len(one) / 5


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_any_part_equals_that_of_the_whole(rng, seconds, limit, seed):
    whole = list(BatchPlan(seconds, limit, seed).batches(0, 200))
    assert len(whole) == 200
    plan = BatchPlan(seconds, limit, seed)
    for _ in range(20):
        first, last = sorted(rng.integers(0, 201, 2))
        assert list(plan.batches(first, last)) == whole[first:last]  # whatever was asked for before
    first = int(rng.integers(0, 200))
    assert list(BatchPlan(seconds, limit, seed).batches(first, 200)) == whole[first:]  # as a resumed run asks


def test_seeds_differ(seconds):
    plans = [tuple(map(tuple, islice(BatchPlan(seconds, 8.0, seed).batches(0, 50), 50))) for seed in range(5)]
    assert len(set(plans)) == 5


def test_the_order_of_batches_is_pinned():
    """Another order would train other models from the same seed; a resumed run would hear other batches."""
    plan = BatchPlan([1.0, 2.0, 3.0, 4.0, 5.0, 2.5, 1.5], 6.0, seed=0)
    assert list(plan.batches(0, 6)) == [[4], [5, 2], [1, 6, 0], [3], [1, 6, 0], [4]]


@pytest.mark.parametrize("limit", [0.0, -3.0, float("nan")])
def test_a_limit_must_be_positive(limit):
    with pytest.raises(UserError, match=r"audio_seconds=.* must be positive"):
        by_length([1.0], limit)
    with pytest.raises(UserError, match=r"audio_seconds=.* must be positive"):
        list(BatchPlan([1.0], limit, 0).batches(0, 1))


def test_no_utterance_is_no_endless_loop():
    with pytest.raises(ValueError, match="no utterance"):
        BatchPlan([], 10.0, 0)


def test_padding_is_small():
    seconds = np.random.default_rng(0).uniform(2, 16, 2_000)
    batches = by_length(list(seconds), 120.0)
    padded = sum(max(seconds[b]) * len(b) for b in batches)
    assert seconds.sum() / padded > 0.97

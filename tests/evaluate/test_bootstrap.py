"""The bootstrap interval against drawing utterances one by one, and against the delta method's normal interval."""

import numpy as np
import pytest
from scipy import stats

from mpq.errors import UserError
from mpq.evaluate.bootstrap import difference_interval


def random_counts(rng, utterances):
    words = rng.integers(1, 30, utterances)
    return rng.binomial(words, 0.12) - rng.binomial(words, 0.10), words


def delta_interval(difference, words):
    """Return the normal interval of a ratio of means, in percentage points."""
    ratio = difference.sum() / words.sum()
    error = np.sqrt(np.var(difference - ratio * words) / len(words)) / words.mean()
    return 100 * np.array(stats.norm.interval(0.95, ratio, error))


def test_normal_interval_of_utterances():
    difference, words = random_counts(np.random.default_rng(0), 4000)
    expected = delta_interval(difference, words)
    np.testing.assert_allclose(difference_interval(difference, words), expected, atol=0.04 * np.ptp(expected))


def test_normal_interval_of_speakers():
    """Errors that hang together within a speaker widen the interval by what the speakers' totals say."""
    rng = np.random.default_rng(1)
    difference, words = random_counts(rng, 4000)
    speaker = rng.integers(400, size=4000)
    difference = difference + rng.integers(-2, 3, 400)[speaker]
    totals = [
        np.array([column[speaker == name].sum() for name in np.unique(speaker)]) for column in (difference, words)
    ]
    expected = delta_interval(*totals)
    ours = difference_interval(difference, words, [f"speaker{name}" for name in speaker])
    np.testing.assert_allclose(ours, expected, atol=0.05 * np.ptp(expected))
    assert np.ptp(ours) > 1.5 * np.ptp(difference_interval(difference, words))


def test_drawing_kinds_is_drawing_utterances():
    """A tiny set, far from normal: the quantiles agree with those of plainly drawn utterances."""
    rng = np.random.default_rng(2)
    difference, words = np.array([5, 0, 0, 0, -1, 0, 1, 0]), np.array([10, 3, 3, 3, 20, 7, 1, 7])
    rows = rng.integers(8, size=(200_000, 8))
    rates = 100 * difference[rows].sum(axis=1) / words[rows].sum(axis=1)
    ours = difference_interval(difference, words, resamples=200_000)
    levels = [np.mean(rates < ours[0] + 0.01), np.mean(rates < ours[1] + 0.01)]
    np.testing.assert_allclose(levels, [0.025, 0.975], atol=0.005)


def test_seed_and_order():
    rng = np.random.default_rng(3)
    difference, words = random_counts(rng, 300)
    mixed = rng.permutation(300)
    ours = difference_interval(difference, words, seed=1)
    assert ours == difference_interval(difference, words, seed=1)
    assert ours == difference_interval(difference[mixed], words[mixed], seed=1)
    assert ours != difference_interval(difference, words, seed=2)


def test_the_units_decide():
    difference, words = np.array([1, 0, 2]), np.array([10, 10, 10])
    assert difference_interval(difference, words, ["a", "a", "a"]) == pytest.approx((10, 10))  # one speaker: no spread
    low, high = difference_interval(difference, words)
    assert low < 10 < high
    assert difference_interval(difference * 0, words) == (0, 0)


def test_empty_references():
    low, high = difference_interval(np.array([2, 0]), np.array([0, 10]))
    assert low == 0 and 20 <= high < np.inf
    with pytest.raises(UserError, match="all references are empty"):
        difference_interval(np.array([1]), np.array([0]))

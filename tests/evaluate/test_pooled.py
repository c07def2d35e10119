"""The pooled interval against closed forms, a brute-force bootstrap, and its own coverage for few speakers."""

import numpy as np
import pytest
from scipy import stats

from mpq.errors import UserError
from mpq.evaluate.pooled import MIN_SPEAKERS, NO_WORSE, UNDECIDED, WORSE, Pooled, pooled


@pytest.fixture
def rng():
    return np.random.default_rng()


def test_one_word_a_speaker_and_one_seed_is_the_t_test_of_a_mean(rng):
    errors = rng.normal(0.1, 0.5, 30)
    found = pooled(errors, np.ones(30), np.arange(30).astype(str))
    expected = stats.ttest_1samp(errors, 0.0).confidence_interval(0.95)
    assert found.interval == pytest.approx((100 * expected.low, 100 * expected.high))
    assert found.freedom == 29 and found.seeds == 1 and found.units == 30


def test_equal_speakers_and_several_seeds_are_the_analysis_of_variance_of_two_crossed_factors(rng):
    seeds, speakers = 4, 15
    cells = rng.normal(0, 1, (seeds, speakers)) + rng.normal(0, 2, speakers) + rng.normal(0, 3, (seeds, 1))
    found = pooled(cells, np.ones(speakers), np.arange(speakers).astype(str))
    centre = cells.mean()
    rows, columns = cells.mean(axis=1), cells.mean(axis=0)
    of_seeds = speakers * ((rows - centre) ** 2).sum() / (seeds - 1)
    of_speakers = seeds * ((columns - centre) ** 2).sum() / (speakers - 1)
    rest = ((cells - rows[:, None] - columns + centre) ** 2).sum() / ((seeds - 1) * (speakers - 1))
    variance = (of_speakers + max(of_seeds - rest, 0.0)) / (seeds * speakers)
    # The mean squares of a balanced design, up to (speakers - 1) / speakers in what both factors count.
    assert found.error == pytest.approx(100 * np.sqrt(variance), rel=0.02)
    assert found.estimate == pytest.approx(100 * centre)


def test_utterances_of_a_speaker_count_as_one(rng):
    errors, words = rng.integers(-2, 3, 60), rng.integers(1, 12, 60)
    speakers = np.repeat([f"s{k}" for k in range(12)], 5)
    merged = pooled(errors.reshape(12, 5).sum(1), words.reshape(12, 5).sum(1), np.arange(12).astype(str))
    order = rng.permutation(60)
    found = pooled(errors[order], words[order], speakers[order])
    assert found.interval == pytest.approx(merged.interval) and found.freedom == merged.freedom


def test_many_speakers_give_the_bootstraps_interval(rng):
    words = rng.integers(5, 60, 400)
    errors = rng.binomial(words, 0.1) - rng.binomial(words, 0.09)
    draws = rng.integers(0, 400, (4000, 400))
    rates = 100 * errors[draws].sum(1) / words[draws].sum(1)
    low, high = pooled(errors, words, np.arange(400).astype(str)).interval
    assert (low, high) == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])), abs=0.12 * (high - low))


def simulated(rng, speakers, seeds, seed_deviation):
    """Errors of a system less those of its baseline; speakers differ, skewed, in how much worse they become."""
    utterances = rng.poisson(20, speakers) + 1
    block = np.repeat(np.arange(speakers), utterances)
    words = rng.integers(4, 14, len(block))
    own = rng.gamma(2, 0.006 / np.sqrt(2), speakers) - 0.006 * np.sqrt(2)
    cells = own + rng.normal(0, seed_deviation, (seeds, 1)) + rng.normal(0, 0.002, (seeds, speakers))
    rates = np.clip(0.033 + cells, 0, 1)[:, block]
    return rng.binomial(words, rates) - rng.binomial(words, np.full(len(block), 0.03)), words, block.astype(str)


@pytest.mark.parametrize("speakers", [8, 12, 24, 40])
@pytest.mark.parametrize(("seeds", "deviation"), [(1, 0.0), (2, 0.0), (2, 0.002), (3, 0.0), (3, 0.002)])
def test_the_interval_covers_the_truth_as_often_as_it_says(speakers, seeds, deviation):
    rng = np.random.default_rng(
        [speakers, seeds, int(1000 * deviation)]
    )  # fixed: chance alone moves 600 draws by a point
    hits = 0
    for _ in range(600):
        low, high = pooled(*simulated(rng, speakers, seeds, deviation)).interval
        hits += low <= 0.3 <= high
    assert 0.93 <= hits / 600 <= 0.99


def test_degrees_of_freedom_are_never_fewer_than_those_of_the_seeds_and_covering_needs_no_fewer():
    """Satterthwaite's formula alone would have fewer in some draws, and intervals of tens of points."""
    rng = np.random.default_rng(2)
    drawn = [pooled(*simulated(rng, 8, seeds, 0.001)) for seeds in (2, 3) for _ in range(1500)]
    assert all(found.seeds - 1 <= found.freedom <= found.units - 1 for found in drawn)
    at_least = [found.interval for found in drawn if found.freedom == found.seeds - 1]
    assert len(at_least) > 50
    assert sum(low <= 0.3 <= high for low, high in at_least) >= 0.95 * len(at_least)


@pytest.mark.parametrize("seeds", [2, 3])
def test_seeds_that_differ_by_more_than_speakers_are_covered_less_often(seeds):
    rng = np.random.default_rng(seeds)
    found = [pooled(*simulated(rng, 24, seeds, 0.02)).interval for _ in range(1000)]
    assert 0.86 <= np.mean([low <= 0.3 <= high for low, high in found]) <= 0.93


def test_a_percentile_bootstrap_of_few_speakers_covers_less():
    """Why it is not used: the same speakers, drawn with replacement."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        errors, words, block = simulated(rng, 12, 1, 0.0)
        sums = np.stack([np.bincount(block.astype(int), weights=column) for column in (errors[0], words)])
        draws = rng.multinomial(12, np.full(12, 1 / 12), 1000) @ sums.T
        low, high = np.quantile(100 * draws[:, 0] / draws[:, 1], [0.025, 0.975])
        hits += low <= 0.3 <= high
    assert hits / 400 < 0.93


def test_few_speakers_have_no_interval_and_nor_has_what_never_differs(rng):
    errors = rng.integers(0, 3, 20)
    for speakers, reason in ((1, "one speaker"), (MIN_SPEAKERS - 1, "fewer than 5 speakers")):
        found = pooled(errors, np.full(20, 9), [str(k % speakers) for k in range(20)])
        assert (found.interval, found.detectable, found.missing) == (None, None, reason)
        assert found.verdict(100.0) == UNDECIDED
    assert pooled(errors, np.full(20, 9), np.arange(20) % MIN_SPEAKERS).missing == ""
    same = pooled(np.full(20, 1), np.full(20, 9), np.arange(20).astype(str))
    assert same.interval is None and same.missing == "the same errors everywhere"
    few = [pooled(errors[:n], np.full(n, 9), np.arange(n).astype(str), by_speaker=False) for n in (1, 3)]
    assert few[0].missing == "one utterance" and few[1].missing == ("" if np.ptp(errors[:3]) else same.missing)


@pytest.mark.parametrize("speakers", [2, 3, 4, 5, 6])
def test_the_width_of_an_interval_over_fewer_speakers_than_the_least_is_luck(speakers):
    """Why `MIN_SPEAKERS` is what it is: the nine tenths' width over the one tenth's is above three below it only."""
    rng = np.random.default_rng(speakers)
    errors = [pooled(*simulated(rng, speakers, 1, 0.0)).error for _ in range(1000)]
    low, high = np.quantile(errors, [0.1, 0.9])
    assert (high / low > 3) == (speakers < MIN_SPEAKERS)


def test_a_verdict_is_where_the_interval_lies():
    def of(low, high):
        half = (high - low) / 2
        return Pooled((low + high) / 2, half / stats.t.ppf(0.975, 20), 20.0, 21, 1)

    assert of(-0.1, 0.2).verdict(0.3) == NO_WORSE
    assert of(0.05, 0.2).verdict(0.3) == NO_WORSE  # certainly worse than zero, and certainly by less than the margin
    assert of(0.05, 0.4).verdict(0.3) == WORSE
    assert of(-0.1, 0.4).verdict(0.3) == UNDECIDED


def test_the_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(1)
    found = Pooled(0.0, 1.0, 30.0, 31, 1)
    estimates = found.detectable + rng.normal(0, 1, 20_000)
    errors = np.sqrt(rng.chisquare(30, 20_000) / 30)
    rejected = estimates / errors > stats.t.ppf(0.975, 30)
    assert rejected.mean() == pytest.approx(0.8, abs=0.02)


def test_no_word_is_refused():
    with pytest.raises(UserError, match="at least one word"):
        pooled(np.zeros(2), np.zeros(2), ["a", "b"])

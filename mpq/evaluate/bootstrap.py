"""A paired bootstrap interval for the difference of two word error rates.

Units (utterances, or all utterances of a speaker, whose errors are correlated) are drawn with replacement, the same
draw for both systems. Units with the same counts are interchangeable, so it is enough to draw how often each kind of
unit occurs: a multinomial over a few hundred kinds is exactly the bootstrap over 100,000 utterances, and its time
hardly depends on their number.
"""

from collections.abc import Sequence

import numpy as np

from mpq.errors import UserError

_CHUNK = 5_000_000  # draws held in memory at once


def difference_interval(
    difference: np.ndarray,
    words: np.ndarray,
    speakers: Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> tuple[float, float]:
    """Return the percentile interval (low, high) of a word error rate difference, in percentage points.

    Source: Bisani and Ney, ICASSP 2004 (bootstrap over utterances); blocks of one speaker's utterances as in Liu et
    al., 2020, arXiv 1912.09508. The same seed gives the same interval, whatever the order of the utterances.

    difference: int `[utterances]`, errors of the system minus errors of the baseline.
    words: int `[utterances]`, reference words.
    speakers: the speaker of each utterance; None draws utterances.

    Raises:
        UserError: the references contain no words.
    """
    if not words.sum():
        raise UserError("an error rate needs at least one word in the references, but all references are empty")
    units = np.stack([difference, words], axis=1).astype(np.int64)
    if speakers is not None:
        names, block = np.unique(np.asarray(speakers), return_inverse=True)
        units = np.stack([np.bincount(block, weights=column, minlength=len(names)) for column in units.T], axis=1)
    kinds, counts = np.unique(units, axis=0, return_counts=True)
    draws = _draws(kinds, counts, resamples, np.random.default_rng(seed))
    # In a tiny set a draw may contain only empty references: it has no rate and is skipped.
    rates = 100.0 * draws[:, 0] / np.where(draws[:, 1] > 0, draws[:, 1], np.nan)
    tail = (1.0 - confidence) / 2.0
    low, high = np.nanquantile(rates, [tail, 1.0 - tail])
    return float(low), float(high)


def _draws(kinds: np.ndarray, counts: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Return the totals of each resample, `[resamples, 2]`, given the `kinds` `[kinds, 2]` and their `counts`."""
    total = int(counts.sum())
    step = max(1, _CHUNK // len(kinds))
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate([generator.multinomial(total, counts / total, size=size) @ kinds for size in sizes])

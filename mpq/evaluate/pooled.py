"""A rate, or the difference of two, pooled over all seeds and sets of a system, with an interval for few speakers.

Errors are correlated within a speaker, and all seeds transcribe the same speech. So speakers and seeds are two crossed
samples. The pooled rate is a ratio of sums, linearised: each speaker and each seed has an influence on it. The variance
is the speakers' plus the seeds' minus that of the cells, which both include (two crossed random factors, as in Owen,
"The pigeonhole bootstrap", 2007); the interval uses Student's t with Satterthwaite's degrees of freedom, kept between
the seeds' and the speakers', since the part that is subtracted can take the formula anywhere. A nominal 95 % percentile
bootstrap over 12 speakers covers about 90 %; this covers 94 to 97 % with 8 to 40 speakers, and 86 to 93 % where seeds
differ by more than speakers do (simulated in tests/evaluate/test_pooled.py).

*Few speakers.* Below `MIN_SPEAKERS` an interval over speakers still covers the truth, but its width is a matter of
luck: of two data sets of the same kind, one gets three to thirteen times the width of the other (simulated, too). Such
sets are counted by utterance, and their interval holds for these speakers only. One speaker has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import stdtrit

from mpq.errors import UserError

NO_WORSE, WORSE, UNDECIDED = "no worse", "worse", "undecided"
CONFIDENCE, POWER = 0.95, 0.8
MIN_SPEAKERS = 5


@dataclass(frozen=True)
class Pooled:
    """A rate or a difference of rates in percentage points, its standard error, and the degrees of freedom.

    `units` is the number of speakers, or of utterances (`by_speaker` False). `interval` and `detectable` are None where
    `missing` has the reason.
    """

    estimate: float
    error: float
    freedom: float
    units: int
    seeds: int
    by_speaker: bool = True

    @property
    def missing(self) -> str:
        """Why there is no interval; empty if there is one."""
        if self.by_speaker and self.units < MIN_SPEAKERS:
            return "one speaker" if self.units == 1 else f"fewer than {MIN_SPEAKERS} speakers"
        if self.units < 2:
            return "one utterance"
        return "" if self.error > 0 else "the same errors everywhere"

    @property
    def interval(self) -> tuple[float, float] | None:
        """The two-sided 95 % interval."""
        if self.missing:
            return None
        half = self._quantile(0.5 + CONFIDENCE / 2) * self.error
        return self.estimate - half, self.estimate + half

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that a two-sided test at 5 % would detect with 80 % power."""
        if self.missing:
            return None
        return (self._quantile(0.5 + CONFIDENCE / 2) + self._quantile(POWER)) * self.error

    def verdict(self, margin: float) -> str:
        """Return whether a difference is no worse than `margin` (points), else worse than zero, else undecided.

        Non-inferiority comes first: a significant increase that is also significantly below the margin is "no worse".
        """
        if self.interval is None:
            return UNDECIDED
        low, high = self.interval
        return NO_WORSE if high < margin else WORSE if low > 0 else UNDECIDED

    def _quantile(self, share: float) -> float:
        return float(stdtrit(self.freedom, share))


def pooled(
    errors: np.ndarray, words: np.ndarray, speakers: Sequence[str] | np.ndarray, by_speaker: bool = True
) -> Pooled:
    """Pool utterances over speakers and seeds.

    errors: `[seeds, utterances]`, errors of a system, or its errors minus those of the system it is compared with.
    words: `[utterances]`, reference words. speakers: `[utterances]`, or the utterances' own names without `by_speaker`.

    Raises:
        UserError: the references contain no words.
    """
    errors = np.atleast_2d(np.asarray(errors, dtype=np.float64))
    total = float(np.sum(words))
    if not total:
        raise UserError("an error rate needs at least one word in the references, but all references are empty")
    names, block = np.unique(np.asarray(speakers), return_inverse=True)
    cells = np.stack([np.bincount(block, weights=row, minlength=len(names)) for row in errors])  # [seeds, speakers]
    said = np.bincount(block, weights=words, minlength=len(names))
    seeds, count = cells.shape
    rate = float(cells.sum()) / (seeds * total)
    influence = 100.0 * (cells - rate * said) / total  # of each cell on its seed's rate, in points
    by_seed = influence.sum(axis=1)
    # What remains of each cell without its speaker's and its seed's part.
    inside = influence - influence.mean(axis=0) - by_seed[:, None] * said / total
    if count < 2:
        return Pooled(100.0 * rate, 0.0, 0.0, count, seeds, by_speaker)
    of_speakers = _variance(influence.mean(axis=0))
    of_seeds = _variance(by_seed / seeds)
    of_cells = float((inside**2).sum()) * count / (count - 1) / (seeds * (seeds - 1)) if seeds > 1 else 0.0
    if of_seeds <= of_cells:
        return Pooled(100.0 * rate, sqrt(of_speakers), count - 1.0, count, seeds, by_speaker)
    variance = of_speakers + of_seeds - of_cells
    spread = of_speakers**2 / (count - 1) + of_seeds**2 / (seeds - 1) + of_cells**2 / ((count - 1) * (seeds - 1))
    freedom = min(max(variance**2 / spread, seeds - 1.0), count - 1.0)
    return Pooled(100.0 * rate, sqrt(variance), freedom, count, seeds, by_speaker)


def _variance(influences: np.ndarray) -> float:
    """Return the variance of the sum of clusters' `influences` `[clusters]`, which themselves sum to zero."""
    count = len(influences)
    return float((influences**2).sum()) * count / (count - 1) if count > 1 else 0.0

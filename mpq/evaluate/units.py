"""The units that intervals are drawn over, their errors kept in records: speakers, or utterances where they are few.

Kept in the record, they let tables pool a system's runs without transcripts, of which few are tracked.
"""

from collections.abc import Mapping

import numpy as np

from mpq.evaluate.pooled import MIN_SPEAKERS, Pooled, pooled
from mpq.record.result import Units


def units_of(speakers: Mapping[str, str], errors: np.ndarray, words: np.ndarray) -> Units:
    """Add up errors and words `[utterances]` by unit; `speakers` maps the utterances, in that order, to speakers."""
    count = len(set(speakers.values()))
    by_speaker = count == 1 or count >= MIN_SPEAKERS
    sums: dict[str, tuple[int, int]] = {}
    for (utterance, speaker), more, said in zip(speakers.items(), errors.tolist(), words.tolist(), strict=True):
        unit = speaker if by_speaker else utterance
        before = sums.get(unit, (0, 0))
        sums[unit] = (before[0] + more, before[1] + said)
    return Units("speaker" if by_speaker else "utterance", sums)


def rate(units: Units) -> Pooled:
    """The rate of one set and run, with the interval over its units; raises UserError without any word."""
    return _pooled(units, [errors for errors, _ in units.counts.values()])


def change(units: Units, more: Mapping[str, int]) -> Pooled:
    """The change of a rate against a baseline that made `more` fewer errors at each unit; raises as `rate` does."""
    return _pooled(units, [more[name] for name in units.counts])


def less(units: Units, baseline: Units) -> dict[str, int]:
    """The errors of each unit minus the baseline's; raises KeyError if the units differ."""
    return {name: errors - baseline.counts[name][0] for name, (errors, _) in units.counts.items()}


def _pooled(units: Units, errors: list[int]) -> Pooled:
    words = np.array([said for _, said in units.counts.values()])
    return pooled(np.array(errors), words, list(units.counts), units.kind == "speaker")

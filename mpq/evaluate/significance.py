"""Whether a system is worse than its baseline, and by how much it could be.

A test alone would call any system "lossless" on a small enough set, so a comparison has both the verdict (MAPSSWE) and
the interval, whose upper end is the largest increase that the data still allow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpq.evaluate.bootstrap import difference_interval
from mpq.evaluate.mapsswe import mapsswe
from mpq.evaluate.wer import character_errors_per_utterance, check_ids, word_errors_per_utterance
from mpq.record.result import CharacterChange


@dataclass(frozen=True)
class Comparison:
    """A system against a baseline on one evaluation set; above 0 means that the system is worse.

    difference: word error rate of the system minus that of the baseline, in percentage points.
    interval: (low, high) of the difference, paired bootstrap, 95 %, in percentage points.
    z, p: of MAPSSWE, p two-tailed; its number of segments is `segments`.
    characters: difference and interval of the character error rate.
    """

    difference: float
    interval: tuple[float, float]
    z: float
    p: float
    segments: int
    characters: CharacterChange


def compare(
    references: Mapping[str, str],
    baseline: Mapping[str, str],
    system: Mapping[str, str],
    speakers: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare a system with a baseline on the same utterances; the arguments map utterance ids to text.

    Z is that of `sc_stats` with the system given first, the baseline second. The difference and its interval count the
    fewest possible errors (as jiwer does), Z counts those of sclite's alignment.

    speakers: utterance id to speaker; if given, the bootstrap draws speakers instead of utterances.

    Raises:
        UserError: the ids differ, or the references contain no words.
    """
    check_ids(references, baseline, "baseline's hypotheses")
    check_ids(references, system, "system's hypotheses")
    if speakers is not None:
        check_ids(references, speakers, "speakers")
    blocks = None if speakers is None else [speakers[name] for name in references]
    errors, words = word_errors_per_utterance(references, system)
    more = errors - word_errors_per_utterance(references, baseline)[0]
    interval = difference_interval(more, words, blocks, seed)  # first: it refuses a set without words
    errors, characters = character_errors_per_utterance(references, system)
    more_characters = errors - character_errors_per_utterance(references, baseline)[0]
    character_difference = 100.0 * float(more_characters.sum()) / float(characters.sum())
    test = mapsswe(references, system, baseline)
    return Comparison(
        difference=100.0 * float(more.sum()) / float(words.sum()),
        interval=interval,
        z=test.z,
        p=test.p,
        segments=test.segments,
        characters=CharacterChange(
            character_difference, difference_interval(more_characters, characters, blocks, seed)
        ),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of all the comparisons of a table, in the order given.

    Source: Holm, Scandinavian Journal of Statistics 1979. A difference stays significant if its adjusted p is below
    alpha.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def in_words(p: float) -> str:
    """Return `p = 0.012`, or `p < 0.001` where three digits would show zero."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"

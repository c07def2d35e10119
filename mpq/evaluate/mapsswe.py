"""The matched-pairs sentence-segment word error test (MAPSSWE), the field's standard significance test.

Errors come in bursts, so words are not independent trials; but a burst ends where both systems are right for a while.
MAPSSWE (Gillick and Cox, ICASSP 1989) therefore splits the test set at such places and tests the mean difference in
errors per segment. Papers report NIST's `sc_stats`; its rules are followed exactly, so that anyone can check a Z with
that tool.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mpq.evaluate.alignment import align
from mpq.evaluate.wer import check_ids


@dataclass(frozen=True)
class Mapsswe:
    """The outcome: errors per segment of the first system minus those of the second.

    p is two-tailed; sc_stats calls a difference significant where |z| > 1.960, which is p < 0.05 to four digits.
    If every segment has the same difference (including one segment, or none), z is 0 and p is 1, as in sc_stats.
    """

    segments: int
    mean: float
    variance: float
    z: float
    p: float


def mapsswe(references: Mapping[str, str], first: Mapping[str, str], second: Mapping[str, str]) -> Mapsswe:
    """Test whether two systems differ; all arguments map utterance ids to text.

    Source: `sc_stats -t mapsswe` of SCTK 2.4.10 on alignments by `sclite -s`, with the first system given first.

    Raises:
        UserError: the ids of the three differ.
    """
    errors = segment_errors(references, first, second)
    return z_test(errors[0] - errors[1])


def segment_errors(references: Mapping[str, str], first: Mapping[str, str], second: Mapping[str, str]) -> np.ndarray:
    """Return the errors of both systems per segment, int `[2, segments]`, without the segments that have no errors.

    A segment ends with the second of two neighbouring reference words (sc_stats' default) that both systems have right
    with nothing inserted between them, or with the utterance.

    Raises:
        UserError: the ids of the three differ.
    """
    check_ids(references, first, "first hypotheses")
    check_ids(references, second, "second hypotheses")
    words = [references[name].split() for name in references]
    one = align(words, [first[name].split() for name in references])
    two = align(words, [second[name].split() for name in references])

    good = one.correct & two.correct
    neighbours = good[1:] & good[:-1] & (one.insertions[1:] + two.insertions[1:] == 0)
    segment = np.concatenate([[0], np.cumsum(neighbours | one.last[:-1])])

    counts = [system.insertions + ~(system.correct | system.last) for system in (one, two)]
    errors = np.array([np.bincount(segment, weights=count) for count in counts], dtype=np.int64)
    return errors[:, errors.any(axis=0)]


def z_test(difference: np.ndarray) -> Mapsswe:
    """Test whether the mean of `difference` is 0: int `[segments]`, errors of the first system minus the second's."""
    count = len(difference)
    mean = float(difference.mean()) if count else 0.0
    if count < 2 or np.all(difference == difference[0]):
        return Mapsswe(count, mean, 0.0, 0.0, 1.0)
    variance = float(difference.var(ddof=1))
    z = mean / math.sqrt(variance / count)
    return Mapsswe(count, mean, variance, z, max(math.erfc(abs(z) / math.sqrt(2.0)), sys.float_info.min))

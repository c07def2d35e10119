"""Whether a system is worse than its baseline, and by how much it could be.

A test alone would call any system "lossless" on a small enough set, so a comparison has both a test (MAPSSWE) and the
interval, whose upper end is the largest increase that the data still allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mpq.evaluate.mapsswe import mapsswe
from mpq.evaluate.units import change, less, units_of
from mpq.evaluate.wer import character_errors_per_utterance, check_ids, word_errors_per_utterance
from mpq.record.result import CharacterChange


@dataclass(frozen=True)
class Comparison:
    """A system against a baseline on one evaluation set; above 0 means that the system is worse.

    difference: word error rate of the system minus that of the baseline, in percentage points.
    interval: (low, high) of the difference, 95 %, in percentage points (`mpq.evaluate.pooled`), or None.
    z, p: of MAPSSWE, p two-tailed; its number of segments is `segments`.
    characters: difference and interval of the character error rate. change: errors of each unit minus the baseline's.
    """

    difference: float
    interval: tuple[float, float] | None
    z: float
    p: float
    segments: int
    characters: CharacterChange
    change: dict[str, int]


def compare(
    references: Mapping[str, str],
    baseline: Mapping[str, str],
    system: Mapping[str, str],
    speakers: Mapping[str, str],
) -> Comparison:
    """Compare a system with a baseline on the same utterances; the arguments map utterance ids to text, or to speakers.

    Z is that of `sc_stats` with the system given first, the baseline second. The difference and its interval count the
    fewest possible errors (as jiwer does), Z counts those of sclite's alignment.

    Raises:
        UserError: the ids differ, or the references contain no words.
    """
    check_ids(references, baseline, "baseline's hypotheses")
    check_ids(references, system, "system's hypotheses")
    check_ids(references, speakers, "speakers")
    speakers = {name: speakers[name] for name in references}
    found = []
    for count in (word_errors_per_utterance, character_errors_per_utterance):
        errors, words = count(references, system)
        units = units_of(speakers, errors, words)
        more = less(units, units_of(speakers, *count(references, baseline)))
        found.append((change(units, more), more))
    (of_words, more), (of_characters, _) = found
    test = mapsswe(references, system, baseline)
    return Comparison(
        difference=of_words.estimate,
        interval=of_words.interval,
        z=test.z,
        p=test.p,
        segments=test.segments,
        characters=CharacterChange(of_characters.estimate, of_characters.interval),
        change=more,
    )


def in_words(p: float) -> str:
    """Return `p = 0.012`, or `p < 0.001` where three digits would show zero."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def in_brackets(interval: tuple[float, float] | None) -> str:
    """Return `95 % interval [-0.10, +0.32]`, or that there is none."""
    return f"95 % interval [{interval[0]:+z.2f}, {interval[1]:+z.2f}]" if interval else "no 95 % interval"

"""The error rates in a record: of words and of characters, and what became of them against the baseline."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CharacterErrors:
    """Character errors of one evaluation set: `cer` in percent = 100 errors / characters, the blanks among them.

    `interval`: the bootstrap 95 % interval of `cer` over utterances, percent.
    """

    cer: float
    errors: int
    characters: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class WordErrors:
    """Word errors of one evaluation set: `wer` in percent = 100 errors / words.

    `characters`: the character errors of the same texts; `interval`: the bootstrap 95 % interval of `wer` over
    utterances, percent (both None: recorded before they were counted).
    """

    wer: float
    errors: int
    words: int
    utterances: int
    characters: CharacterErrors | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Baseline:
    """The run that a run was compared with."""

    exp: str
    seed: int


@dataclass(frozen=True)
class CharacterChange:
    """One set against the baseline: `difference` = CER - baseline CER and its 95 % `interval`, percentage points."""

    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Significance:
    """One set against the baseline: `difference` = WER - baseline WER and its 95 % `interval`, percentage points.

    `z` and two-tailed `p` are MAPSSWE's (NIST); z has the sign of the difference, positive is worse than the baseline.
    `characters`: the same of the character error rate (None: recorded before characters were counted).
    """

    baseline: Baseline
    difference: float
    interval: tuple[float, float]
    z: float
    p: float
    characters: CharacterChange | None = None

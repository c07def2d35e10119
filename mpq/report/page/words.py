"""Sample transcripts with their differences from the reference marked, word by word."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mpq.record.hypotheses import Texts

SAMPLES = 4
"""Number of utterances shown per set."""


@dataclass(frozen=True)
class Words:
    """Neighbouring words of one kind: `same`, `missing` (only in the reference) or `added` (only in the hypothesis)."""

    kind: str
    text: str


@dataclass(frozen=True)
class Utterance:
    """One utterance: its id, its reference, and the marked hypothesis of each system, by name."""

    id: str
    reference: str
    written: Mapping[str, tuple[Words, ...]]


@dataclass(frozen=True)
class SetSamples:
    """Samples of one set: `chosen` says how the `utterances` were selected."""

    name: str
    chosen: str
    utterances: tuple[Utterance, ...]


def samples(references: Texts, systems: Mapping[str, Texts], count: int = SAMPLES) -> list[SetSamples]:
    """The first `count` utterances of each set whose hypotheses differ between systems, in the order of the file.

    Taking the first ones avoids picking the best or the worst. With one system, or if all hypotheses agree, these are
    the first utterances with a word error.
    """
    chosen = []
    for name, texts in references.items():
        written = {system: sets.get(name, {}) for system, sets in systems.items()}
        known = [key for key in texts if all(key in hypotheses for hypotheses in written.values())]
        other = [key for key in known if len({hypotheses[key] for hypotheses in written.values()}) > 1]
        wrong = [key for key in known if any(hypotheses[key] != texts[key] for hypotheses in written.values())]
        keys, what = (other, "whose transcripts differ") if other else (wrong, "with a word error")
        how = f"{len(keys):,} of {len(known):,} utterances {what}; the first {min(count, len(keys))} of them"
        if not keys:
            how = f"no word error in {len(known):,} utterances"
        marked = (
            Utterance(key, texts[key], {s: tuple(differences(texts[key], written[s][key])) for s in systems})
            for key in keys[:count]
        )
        chosen.append(SetSamples(name, how, tuple(marked)))
    return chosen


def differences(reference: str, hypothesis: str) -> Iterator[Words]:
    """Yield the words of both texts in order; a substitution yields a missing and an added word."""
    import jiwer  # here, because it takes a second that --help need not wait for

    said, written = reference.split(), hypothesis.split()
    for chunk in jiwer.process_words(" ".join(said), " ".join(written)).alignments[0]:
        before = " ".join(said[chunk.ref_start_idx : chunk.ref_end_idx])
        after = " ".join(written[chunk.hyp_start_idx : chunk.hyp_end_idx])
        if chunk.type == "equal":
            yield Words("same", before)
            continue
        if before:
            yield Words("missing", before)
        if after:
            yield Words("added", after)

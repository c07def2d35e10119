"""The sentences below a table: without them its figures can be misread."""

from collections import Counter
from collections.abc import Sequence

from mpq.record.result import Result
from mpq.report.columns import ALPHA, NOT_SIGNIFICANT

_SPEECH = {True: "synthetic speech", False: "recorded speech", None: "origin not stated"}


def caption(records: Sequence[Result], missing: Sequence[str] = ()) -> tuple[str, ...]:
    """Say which data and how many utterances, how to read a verdict, and what the rows lack.

    `missing` are names of rows that have no record.
    """
    lines = [data_line(records)] if records else []
    lines += character_line(records)
    comparisons = sum(len(record.significance or {}) for record in records)
    if comparisons:
        lines.append(
            f"“{NOT_SIGNIFICANT}” (MAPSSWE, p ≥ {ALPHA:g}, or not worse) is no proof of equality: “Up to” is the "
            "largest WER increase, in percentage points, that the 95 % interval still allows. "
            f"Comparisons: {comparisons}, not corrected for their number."
        )
    if any(record.smoke for record in records):
        lines.append("smoke: random weights and a few updates; the size is the true one, the WER means nothing.")
    lines += _notes("Not compared with a baseline", _uncompared(records))
    counts = Counter((record.exp, record.seed) for record in records)
    lines += _notes("Recorded more than once", [f"{exp} seed {seed}" for (exp, seed), n in counts.items() if n > 1])
    lines += _notes("Not run", missing)
    return tuple(lines)


def data_line(records: Sequence[Result]) -> str:
    """Name each corpus with its sets; two versions of a corpus are told apart by their hashes."""
    sets: dict[str, dict[str, set[int]]] = {}
    for record in records:
        data = record.provenance.data
        counts = sets.setdefault(f"{data.name} {data.hash[:8]} ({_SPEECH[data.synthetic]})", {})
        for name, errors in record.wer.items():
            counts.setdefault(name, set()).add(errors.utterances)
    texts = []
    for data, counts in sets.items():
        listed = ", ".join(f"{name} {'/'.join(map(str, sorted(numbers)))}" for name, numbers in counts.items())
        texts.append(f"{data}; utterances: {listed}")
    return "Data: " + ". ".join(texts) + "."


def character_line(records: Sequence[Result]) -> list[str]:
    """Say how characters are counted, where a record has them."""
    if not any(errors.characters for record in records for errors in record.wer.values()):
        return []
    return ["CER: character error rate, every blank between words a character. Verdicts are about words."]


def _uncompared(records: Sequence[Result]) -> list[str]:
    plain = (r for r in records if r.significance is None and r.recipe != "full_precision")
    return list(dict.fromkeys(record.exp for record in plain))


def _notes(what: str, names: Sequence[str]) -> list[str]:
    return [f"{what}: {', '.join(names)}."] if names else []

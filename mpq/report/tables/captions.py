"""The sentences below a table: the data, how values are pooled, and how verdicts are reached."""

from collections import Counter
from collections.abc import Sequence

from mpq.record.result import Hardware, Result
from mpq.report.tables.columns import ALPHA, NOT_SIGNIFICANT
from mpq.report.tables.recipes import is_compressed
from mpq.report.tables.system import System

_SPEECH = {True: "synthetic speech", False: "recorded speech", None: "origin not stated"}


def caption(records: Sequence[Result], missing: Sequence[str] = ()) -> tuple[str, ...]:
    """State the data and number of utterances, how to read a verdict, and what the rows lack.

    `missing` holds the names of rows without a record.
    """
    lines = [data_line(records)] if records else []
    lines += character_line(records)
    comparisons = sum(len(record.significance or {}) for record in records)
    if comparisons:
        lines.append(
            f"“{NOT_SIGNIFICANT}” (MAPSSWE: p ≥ {ALPHA:g}, or the WER is not higher) does not prove equality: “Up to” "
            "is the largest WER increase, in percentage points, within the 95 % interval. "
            f"Comparisons: {comparisons}, without correction for their number."
        )
    if any(record.smoke for record in records):
        lines.append("smoke: random weights and a few updates; the size is real, the WER is meaningless.")
    lines += _notes("Not compared with a baseline", _uncompared(records))
    counts = Counter((record.exp, record.seed) for record in records)
    lines += _notes("Recorded more than once", [f"{exp} seed {seed}" for (exp, seed), n in counts.items() if n > 1])
    lines += _notes("Not run", missing)
    return tuple(lines)


def data_line(records: Sequence[Result]) -> str:
    """Name each corpus with its sets; a hash distinguishes versions of a corpus."""
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
    """State how characters are counted, if a record has them."""
    if not any(errors.characters for record in records for errors in record.wer.values()):
        return []
    return ["CER: character error rate; each space between words counts as a character. Verdicts are based on the WER."]


def _uncompared(records: Sequence[Result]) -> list[str]:
    plain = (r for r in records if r.significance is None and is_compressed(r.recipe))
    return list(dict.fromkeys(record.exp for record in plain))


def _notes(what: str, names: Sequence[str]) -> list[str]:
    return [f"{what}: {', '.join(names)}."] if names else []


def system_caption(systems: Sequence[System], scale: str, judged: bool) -> tuple[str, ...]:
    """State the basis of every number; `systems` are those of all models of `scale`, `judged`: there are verdicts."""
    runs = [run for system in systems for run in system.runs]
    lines = [data_line(runs)] if runs else []
    lines += [*character_line(runs), *_comparisons(systems)] if judged else []
    if any(system.shapes and not system.runs for system in systems):
        lines.append(
            "Bits and sizes of systems that were not run are computed from tensor shapes: python scripts/sizes.py."
        )
    machines = dict.fromkeys(_machine(run.provenance.hardware) for run in runs)
    if machines:
        lines.append(f"Machine: {'; '.join(machines)}.")
    if scale != "paper":
        lines.append(f"Scale {scale} has no counterpart in the paper, whose numbers are in the tables of scale paper.")
    missing = sum(len(system.seeds) - len(system.runs) for system in systems)
    planned = sum(len(system.seeds) for system in systems)
    lines.append(f"Runs recorded: {planned - missing} of {planned} planned.")
    return tuple(lines)


def _comparisons(systems: Sequence[System]) -> list[str]:
    counts: dict[str, int] = {}
    for system in systems:
        counts[system.model] = counts.get(system.model, 0) + len(system.comparisons)
    counts = {model: count for model, count in counts.items() if count}
    if not counts:
        return []
    family = ", ".join(f"{count} for {model}" for model, count in counts.items())
    return [
        "A comparison tests one seed of a system on one set against 32 bits: MAPSSWE, two-tailed, alpha "
        f"{ALPHA:g}, worse if the WER is higher. “Lossless”: none of a system's comparisons is significantly worse. "
        "Holm's correction covers all comparisons of a system (seeds x sets), because this claim is about all of them; "
        f"“p Holm, all” (Table 2) covers all comparisons of a model in these tables: {family}. “Alone” judges each "
        "comparison without correction: with twelve comparisons and no loss at all, one or more is then worse by "
        "chance in about one case in four.",
        "The absence of a significant increase does not prove equality: Table 2's “Up to” is the largest increase "
        "within the 95 % interval.",
    ]


def _machine(hardware: Hardware) -> str:
    return f"{', '.join(hardware.gpus) or hardware.cpu}, {hardware.cores} core{'s' if hardware.cores != 1 else ''}"

"""The sentences below a table: the data, how values are pooled, and how verdicts are reached."""

from collections import Counter
from collections.abc import Sequence

from mpq.evaluate.pooled import MIN_SPEAKERS
from mpq.evaluate.verdict import margin, margins
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
    if comparisons := sum(len(record.significance or {}) for record in records):
        lines += [
            _rule("a run's change over all its sets"),
            f"“MAPSSWE alone”: “{NOT_SIGNIFICANT}” (p ≥ {ALPHA:g}, or the WER is not higher) does not prove equality: "
            "“Up to” is the largest WER increase, in percentage points, within the 95 % interval. "
            f"Comparisons: {comparisons}, without correction for their number.",
        ]
    lines += unit_lines(records)
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
    lines += [*character_line(runs), *_verdicts(systems), *unit_lines(runs)] if judged else []
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


def _rule(what: str) -> str:
    """How a verdict is reached, `what` being what it is about."""
    return (
        f"Verdicts are about {what}, with a 95 % interval (Student's t, over speakers and seeds). “No worse”: the "
        f"interval ends below the margin, {margin():g} % of the baseline's WER; “worse”: it lies above zero and does "
        "not end below the margin; “undecided”: neither. “Detectable” is the smallest difference, in points, that "
        "these sets and seeds would have shown with a probability of 80 %."
    )


def _verdicts(systems: Sequence[System]) -> list[str]:
    if not any(system.tests for system in systems):
        return []
    lines = [
        f"{_rule('the change pooled over all seeds, speakers and sets of a system')} With one seed, they are about "
        "that one model. Baselines: the 32-bit model as it is, and the same trained further on the same data with the "
        "same loss and updates (“fine-tuned”, seed against seed): what training alone gains, it gains for both.",
        "The margin is a choice. “No worse from” is the smallest that a system would pass; Table 2 also has the "
        f"verdicts at {', '.join(f'{m:g}' for m in margins())} %.",
        f"“MAPSSWE alone” is the paper's reading: tests of one seed on one set (two-tailed, alpha {ALPHA:g}) that find "
        "an increase, without correction. With twelve tests and no loss at all, one or more find one by chance in "
        "about one case in four, and each that finds none may have missed one.",
    ]
    unpooled = dict.fromkeys(s.model for s in systems if s.tests and s.verdict() is None)
    if unpooled:
        lines.append(
            f"{', '.join(unpooled)}: no verdict where the records lack errors by speaker, as older ones do: run them "
            "again."
        )
    return lines


def unit_lines(records: Sequence[Result]) -> list[str]:
    """State which sets have no interval, or one over utterances, because they have few speakers."""
    few: dict[str, set[str]] = {"": set(), "utterance": set()}
    for record in records:
        for name, words in record.wer.items():
            if words.units and words.units.kind == "utterance":
                few["utterance"].add(name)
            elif words.units and len(words.units.counts) == 1:
                few[""].add(name)
    lines = []
    if few["utterance"]:
        lines.append(
            f"Intervals for {', '.join(sorted(few['utterance']))} are over utterances, because of fewer than "
            f"{MIN_SPEAKERS} speakers: they hold for these speakers only."
        )
    if few[""]:
        lines.append(f"No interval for {', '.join(sorted(few['']))}: one speaker.")
    return lines


def _machine(hardware: Hardware) -> str:
    return f"{', '.join(hardware.gpus) or hardware.cpu}, {hardware.cores} core{'s' if hardware.cores != 1 else ''}"

"""The sentences below a table of systems: which data, how a cell is pooled over seeds, how verdicts are reached."""

from collections.abc import Sequence

from mpq.record.result import Hardware
from mpq.report.caption import character_line, data_line
from mpq.report.columns import ALPHA
from mpq.report.system import System


def system_caption(systems: Sequence[System], scale: str, judged: bool) -> tuple[str, ...]:
    """Say what every figure rests on; `systems` are those of all the models of `scale`, `judged` asks for verdicts."""
    runs = [run for system in systems for run in system.runs]
    lines = [data_line(runs)] if runs else []
    lines += [*character_line(runs), *_comparisons(systems)] if judged else []
    if any(system.shapes and not system.runs for system in systems):
        lines.append("Bits and sizes of what was not run follow from the shapes of the model: python scripts/sizes.py.")
    machines = dict.fromkeys(_machine(run.provenance.hardware) for run in runs)
    if machines:
        lines.append(f"Machine: {'; '.join(machines)}.")
    if scale != "paper":
        lines.append(f"Scale {scale} has no counterpart in the paper; its figures stand in the tables of scale paper.")
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
        "A comparison is one seed of a system on one set against 32 bits: MAPSSWE, two-tailed, alpha "
        f"{ALPHA:g}, worse where the WER is higher. “Lossless”: none of a system's comparisons is significantly worse. "
        "Holm's correction is over the comparisons of a system, its seeds x sets, which that claim unites; “p Holm, "
        f"all” (Table 2) corrects over all comparisons of a model in these tables: {family}. “Alone” judges each "
        "without a correction, as if it were the only one: of twelve without any loss, one or more is then worse by "
        "chance in about one case of four.",
        "No significant increase is no proof of equality: Table 2's “Up to” is the largest increase still possible.",
    ]


def _machine(hardware: Hardware) -> str:
    return f"{', '.join(hardware.gpus) or hardware.cpu}, {hardware.cores} core{'s' if hardware.cores != 1 else ''}"

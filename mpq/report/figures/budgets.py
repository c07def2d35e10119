"""Word error rate over all sets against the size of the file, for several budgets of one run."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mpq.evaluate.pooled import NO_WORSE
from mpq.evaluate.verdict import of_run
from mpq.record.result import Result
from mpq.report.figures.style import GREY

_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")  # Okabe and Ito's, as in conf/legend.yaml
_MARKERS = ("o", "s", "D", "^")


def largest_lossless(results: Sequence[Result]) -> Result | None:
    """Return the smallest model that is no worse than 32 bits over all sets, if there is one."""
    judged = [(result, of_run(result)) for result in results]
    lossless = [result for result, verdict in judged if verdict and verdict.word == NO_WORSE]
    return min(lossless, key=lambda result: result.size.file_bytes, default=None)


def draw(results: Sequence[Result]) -> Figure:
    """Draw the budgets of one run: a line for each number of updates, with 95 % intervals of the change from 32 bits.

    The largest lossless model (`largest_lossless`) has a ring around it.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    lines: dict[int, list[Result]] = {}
    for result in sorted(results, key=lambda one: one.size.file_bytes):
        lines.setdefault(sum(stage.updates for stage in result.time.stages), []).append(result)
    for number, (updates, line) in enumerate(sorted(lines.items())):
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        sizes, rates = [one.size.file_bytes / 1e6 for one in line], [_rate(one) for one in line]
        label = f"{updates} updates at each budget" if updates else "without an update"
        axes.errorbar(sizes, rates, _halves(line), color=colour, marker=marker, capsize=2, label=label)
        for one, size, rate in zip(line, sizes, rates, strict=True):
            bits = f"{one.bits.target:g}"
            axes.annotate(bits, (size, rate), (6, 5), textcoords="offset points", color=colour, fontsize=8)
    verdict = of_run(results[0])
    if verdict:
        axes.axhline(verdict.baseline, color=GREY, linestyle="--", linewidth=1.2, label="32 bits")
    if (best := largest_lossless(results)) is not None:
        at = (best.size.file_bytes / 1e6, _rate(best))
        label = f"largest lossless: {best.bits.target:g} bits, {best.size.file_ratio:.2f} times smaller"
        axes.plot(*at, "o", markersize=15, fillstyle="none", color="black", label=label)
    axes.set_xlabel("size of the file, MB (the target average bits beside each point)")
    axes.set_ylabel("WER over all sets, %")
    axes.set_title(f"{results[0].model}: every budget from one run, seed {results[0].seed}")
    axes.legend()
    return figure


def _rate(result: Result) -> float:
    """The word error rate over all sets, percent."""
    return 100 * sum(one.errors for one in result.wer.values()) / sum(one.words for one in result.wer.values())


def _halves(line: Sequence[Result]) -> list[float]:
    """Half the width of each interval of the change from 32 bits, 0 where there is none."""
    verdicts = [of_run(result) for result in line]
    intervals = [verdict.change.interval if verdict else None for verdict in verdicts]
    return [0.0 if interval is None else (interval[1] - interval[0]) / 2 for interval in intervals]

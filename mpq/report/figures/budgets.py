"""Word error rate over all sets against the size of the file, for several budgets of one run."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from mpq.evaluate.pooled import NO_WORSE
from mpq.evaluate.verdict import of_seeds
from mpq.record.result import Result
from mpq.report.figures.style import GREY

_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")  # Okabe and Ito's, as in conf/legend.yaml
_MARKERS = ("o", "s", "D", "^")


Seeds = Sequence[Result]  # of one model at one budget


def largest_lossless(models: Sequence[Seeds]) -> Seeds | None:
    """Return the smallest model that is no worse than 32 bits over all sets and seeds, if there is one."""
    judged = [(seeds, of_seeds(seeds)) for seeds in models]
    lossless = [seeds for seeds, verdict in judged if verdict and verdict.word == NO_WORSE]
    return min(lossless, key=megabytes, default=None)


def megabytes(seeds: Seeds) -> float:
    """The size of a model's file, the mean over its seeds."""
    return fmean(one.size.file_bytes for one in seeds) / 1e6


def draw(models: Sequence[Seeds]) -> Figure:
    """Draw the budgets of one run, over its seeds: a line for each number of updates, with 95 % intervals.

    The intervals are those of the change from 32 bits. The largest lossless model has a ring around it.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    lines: dict[int, list[Seeds]] = {}
    for seeds in sorted(models, key=megabytes):
        lines.setdefault(sum(stage.updates for stage in seeds[0].time.stages), []).append(seeds)
    for number, (updates, line) in enumerate(sorted(lines.items())):
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        sizes, rates = [megabytes(seeds) for seeds in line], [_rate(seeds) for seeds in line]
        label = f"{updates} updates at each budget" if updates else "without an update"
        axes.errorbar(sizes, rates, _halves(line), color=colour, marker=marker, capsize=2, label=label)
        for seeds, size, rate in zip(line, sizes, rates, strict=True):
            bits = f"{seeds[0].bits.target:g}"
            axes.annotate(bits, (size, rate), (6, 5), textcoords="offset points", color=colour, fontsize=8)
    verdict = of_seeds(models[0])
    if verdict:
        axes.axhline(verdict.baseline, color=GREY, linestyle="--", linewidth=1.2, label="32 bits")
    if (best := largest_lossless(models)) is not None:
        ratio = fmean(one.size.file_ratio for one in best)
        label = f"largest lossless: {best[0].bits.target:g} bits, {ratio:.2f} times smaller"
        axes.plot(megabytes(best), _rate(best), "o", markersize=15, fillstyle="none", color="black", label=label)
    axes.set_xlabel("size of the file, MB (the target average bits beside each point)")
    axes.set_ylabel("WER over all sets, %")
    named = "seed" if len(models[0]) == 1 else "seeds"
    numbers = ", ".join(str(one.seed) for one in models[0])
    axes.set_title(f"{models[0][0].model}: every budget from one run, {named} {numbers}")
    axes.legend()
    return figure


def _rate(seeds: Seeds) -> float:
    """The word error rate over all sets and seeds, percent."""
    sets = [one for result in seeds for one in result.wer.values()]
    return 100 * sum(one.errors for one in sets) / sum(one.words for one in sets)


def _halves(line: Sequence[Seeds]) -> list[float]:
    """Half the width of each interval of the change from 32 bits, 0 where there is none."""
    verdicts = [of_seeds(seeds) for seeds in line]
    intervals = [verdict.change.interval if verdict else None for verdict in verdicts]
    return [0.0 if interval is None else (interval[1] - interval[0]) / 2 for interval in intervals]

"""Word or character error rate against size: the systems of one model, a panel a set, and how far each method gets.

A method's line joins its Pareto front, the systems that none of its others beats in both size and WER. The interval of
the 32-bit system is that of its own WER: it says how far another test set could move all points together. Whether a
system is worse is tested on the same utterances, which finds far smaller differences; those that are have a black rim.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from mpq.report import system_columns
from mpq.report.columns import Column
from mpq.report.figures.style import GREY, look
from mpq.report.lossless import methods
from mpq.report.spread import Spread, mean_of
from mpq.report.system import System

AXES = {
    "size": (system_columns.size_mb, "size of the file, MB"),
    "bits": (system_columns.average_bits, "bits a weight"),
}
RATES = {
    "wer": (system_columns.wer, "word error rate"),
    "cer": (system_columns.cer, "character error rate"),
}
_SIDE_STEP = 0.022  # of the axis: systems of one size stand side by side


@dataclass(frozen=True)
class Point:
    """One system on one set: size, error rate in percent and its standard deviation over the seeds (0 for one seed).

    `worse`: significantly more word errors than 32 bits in one seed or more, after Holm's correction.
    """

    x: float
    rate: float
    deviation: float
    worse: bool = False


def draw(
    systems: Sequence[System], axis: str, intervals: Mapping[str, tuple[float, float]], rate: str = "wer"
) -> Figure:
    """Draw one model's systems; `intervals` are those of the 32-bit rate, by set.

    `axis` and `rate` are names of `AXES` and `RATES`.
    """
    run = [system for system in systems if system.runs]
    baseline = next((system for system in run if system.recipe == "full_precision"), None)
    sets = list(dict.fromkeys(name for system in run for result in system.runs for name in result.wer))
    rows = (len(sets) + 1) // 2
    figure = Figure(figsize=(9, 0.9 + 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, min(2, len(sets)), squeeze=False, sharex=True)
    (column, title), (errors, told) = AXES[axis], RATES[rate]
    for name, axes in zip(sets, panels.flat, strict=False):
        if baseline:
            _line(axes, mean_of(_value(errors, baseline.only(name))), intervals.get(name))
        points = {m.name: [_point(system.only(name), column, errors) for system in m.systems] for m in methods(run)}
        _points(axes, points)
        axes.set_title(name)
    for axes in panels[:, 0]:
        axes.set_ylabel(errors.title.replace(" %", ", %"))
    for axes in panels[-1]:
        axes.set_xlabel(title)
    for axes in list(panels.flat)[len(sets) :]:
        axes.set_visible(False)
    _ticks(panels[-1, 0], sorted({mean_of(_value(column, s)) for s in run if s.recipe != "full_precision"}))
    figure.suptitle(f"{systems[0].model}: {told} against {title.partition(',')[0]}")
    figure.legend(handles=_legend(run, bool(intervals)), loc="outside lower center", ncols=4)
    return figure


def front(points: Sequence[Point]) -> list[Point]:
    """The Pareto front, smallest first: no other point is as small and as good."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, p.rate)):
        if not best or point.rate < best[-1].rate:
            best.append(point)
    return best


def _point(system: System, column: Column, errors: Column) -> Point:
    rate = _value(errors, system)
    deviation = rate.deviation if isinstance(rate, Spread) else 0.0
    worse = any(one.worse for one in system.comparisons)
    return Point(mean_of(_value(column, system)), mean_of(rate), deviation, worse)


def _value(column: Column, system: System) -> Any:
    return column.function(system)


def _line(axes: Axes, rate: float, interval: tuple[float, float] | None) -> None:
    if interval:
        axes.axhspan(*interval, color="#EFEFEF", linewidth=0)
    axes.axhline(rate, color=GREY, linestyle="--", linewidth=1.2)


def _points(axes: Axes, points: Mapping[str, Sequence[Point]]) -> None:
    """Draw each method's points and front; points of one size (to three digits) stand side by side."""
    sizes = [point.x for found in points.values() for point in found]
    step = _SIDE_STEP * math.log(max(sizes) / min(sizes)) if sizes else 0.0
    taken: dict[str, int] = {}
    for name, found in points.items():
        colour, marker = look(name)
        best = front(found)
        axes.plot([p.x for p in best], [p.rate for p in best], color=colour, linewidth=1.2, alpha=0.7)
        for point in found:
            count = taken[f"{point.x:.3g}"] = taken.get(f"{point.x:.3g}", -1) + 1
            x = point.x * math.exp(step * ((count + 1) // 2) * (-1) ** count)
            axes.errorbar(
                x, point.rate, point.deviation or None, color=colour, marker=marker,
                markerfacecolor=colour if point in best else "white", markersize=10 if marker == "*" else 6,
                markeredgecolor="black" if point.worse else colour, markeredgewidth=1.6 if point.worse else 1.0,
                capsize=2, linestyle="none", zorder=3,
            )  # fmt: skip


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with ticks at the sizes, the smallest first, but none so near that labels would touch."""
    axes.set_xscale("log")
    room = (values[-1] / values[0]) ** 0.06
    kept = [values[0]]
    for value in values[1:]:
        if value >= kept[-1] * room:
            kept.append(value)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}" if value < 10 else f"{value:.0f}")
    axes.tick_params(axis="x", labelsize=9)


def _legend(systems: Sequence[System], band: bool) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for method in methods(systems):
        colour, marker = look(method.name)
        handles.append(Line2D([], [], color=colour, marker=marker, label=method.name))
    handles.append(Line2D([], [], color=GREY, linestyle="--", label="32 bits"))
    if band:
        handles.append(Patch(color="#EFEFEF", label="its 95 % interval, unpaired"))
    dot: dict[str, Any] = {"color": GREY, "marker": "o", "linestyle": "none"}
    handles.append(Line2D([], [], **dot, markerfacecolor="white", label="off its method's front"))
    if any(one.worse for system in systems for one in system.comparisons):
        handles.append(Line2D([], [], **dot, markeredgecolor="black", markeredgewidth=1.6, label="significantly worse"))
    return handles

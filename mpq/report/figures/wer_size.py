"""Word or character error rate against size for the systems of one model, one panel per set, with Pareto fronts.

The size is that of the packed or of the coded file. Sizes are evenly spaced, and every system has its own place within
its size: on a linear axis in megabytes, dozens of systems of almost the same size would overlap. A method's line joins
its Pareto front, the systems that no other system of the method beats in both size and error rate, and its smallest
lossless system has a ring. A system far above 32 bits is drawn at the upper edge with its rate beside it, so that the
others remain distinguishable.

The interval of the 32-bit system is that of its own rate: it shows how far different speakers could move all points
together. A marker is filled as the system's verdict over all sets says (`mpq.evaluate.verdict`), which compares the
same utterances and so detects far smaller differences.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import FillStyleType

from mpq.evaluate.pooled import NO_WORSE, UNDECIDED, WORSE
from mpq.evaluate.verdict import Rate, margin
from mpq.report.figures.style import GREY, look
from mpq.report.tables import system_columns
from mpq.report.tables.column import Column, Spread, mean_of
from mpq.report.tables.lossless import methods
from mpq.report.tables.planned import target_text
from mpq.report.tables.recipes import label
from mpq.report.tables.system import PLAIN, TUNED, System

Measure = Literal["packed", "coded"]
RATES: dict[Rate, tuple[Column, str]] = {
    "wer": (system_columns.wer, "word error rate"),
    "cer": (system_columns.cer, "character error rate"),
}
SIZES: dict[Measure, tuple[Column, str]] = {
    "packed": (system_columns.packed_mb, "bits a weight, and size of the packed file in MB"),
    "coded": (system_columns.coded_mb, "size of the coded file in MB"),
}
FILLED: dict[str, FillStyleType] = {NO_WORSE: "full", UNDECIDED: "bottom", WORSE: "none"}
"""How the marker of a system with this verdict is filled."""
FAR = 1.5
"""A rate above this multiple of the 32-bit rate is drawn at the upper edge."""
_GAP = 1.6  # between two sizes, in units of one place
_RING: dict[str, Any] = {"marker": "o", "markersize": 15, "fillstyle": "none", "linestyle": "none", "clip_on": False}
_ALIKE = 1.01  # files are of one size if the largest is at most this multiple of the smallest


@dataclass(frozen=True)
class Point:
    """One system on one set: megabytes, error rate in percent, its standard deviation over the seeds (0 for one).

    `place` is its x-coordinate; `verdict` that of its system against 32 bits, over all sets; `ringed`: it is the
    smallest lossless system of its method.
    """

    size: float
    rate: float
    deviation: float = 0.0
    verdict: str = NO_WORSE
    place: float = 0.0
    ringed: bool = False


def draw(
    systems: Sequence[System],
    intervals: Mapping[str, tuple[float, float]],
    rate: Rate = "wer",
    measure: Measure = "packed",
) -> Figure:
    """Draw one model's systems; `intervals` holds those of the 32-bit rate by set; `measure` says which size is meant.

    For the coded size, every system must have a coded file for each of its seeds.
    """
    run = [system for system in systems if system.runs]
    baselines = {s.recipe: s for s in run if not s.is_compressed}
    baseline, tuned = baselines.get(PLAIN), baselines.get(TUNED)
    sets = list(dict.fromkeys(name for system in run for result in system.runs for name in result.wer))
    errors, title = RATES[rate]
    verdicts = {system.exp: verdict.word if (verdict := system.verdict(rate=rate)) else "" for system in run}
    places, ticks, edges = _places(run, measure)
    ringed = _smallest_lossless(run, verdicts, measure)
    figure = Figure(figsize=(9, 1.5 + 2.0 * len(sets)), layout="constrained")
    panels = figure.subplots(len(sets), squeeze=False, sharex=True)[:, 0]
    for name, axes in zip(sets, panels, strict=True):
        points = {
            method.name: [
                _point(s.only(name), errors, *places[s.exp], verdicts[s.exp], s.exp in ringed) for s in method.systems
            ]
            for method in methods(run)
        }
        reference = mean_of(errors.function(baseline.only(name))) if baseline else None
        _scale(axes, [point for found in points.values() for point in found], reference, intervals.get(name))
        if tuned:
            axes.axhline(mean_of(errors.function(tuned.only(name))), color=GREY, linestyle=":", linewidth=1.2)
        for method, found in points.items():
            _points(axes, method, found)
        axes.set_title(name)
        axes.set_ylabel(errors.title.replace(" %", ", %"))
        axes.grid(False, axis="x")
        for edge in edges:
            axes.axvline(edge, color="#CCCCCC", linewidth=0.8, linestyle=":")
    panels[-1].set_xticks(list(ticks), list(ticks.values()))
    panels[-1].set_xlabel(f"{SIZES[measure][1]}; evenly spaced, a place for each system")
    figure.suptitle(f"{systems[0].model}: {title} against {shown_size(measure)}")
    shown = [word for word in FILLED if word in verdicts.values()]
    handles = _legend(run, bool(intervals), bool(tuned), shown)
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def shown_size(measure: Measure) -> str:
    """What the pictures of a size call it."""
    return "size" if measure == "packed" else f"{measure} size"


def front(points: Sequence[Point]) -> list[Point]:
    """The Pareto front, smallest first: no other point is as small and as good."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.size, p.rate)):
        if not best or point.rate < best[-1].rate:
            best.append(point)
    return best


def _places(
    systems: Sequence[System], measure: Measure
) -> tuple[dict[str, tuple[float, float]], dict[float, str], list[float]]:
    """Name -> size and place of each system, tick labels by position (one per size), and the edges between sizes."""
    places: dict[str, tuple[float, float]] = {}
    ticks: dict[float, str] = {}
    edges, first = [], 0.0
    for alike in _of_one_size(systems, measure):
        megabytes = statistics.fmean(alike.values())
        places |= {exp: (megabytes, first + number) for number, exp in enumerate(alike)}
        bits = {target_text(system.bits) for system in systems if system.exp in alike}
        above = f"{bits.pop() if len(bits) == 1 else ''}\n" if measure == "packed" else ""
        ticks[first + (len(alike) - 1) / 2] = f"{above}{megabytes:.3g}"
        first += len(alike) + _GAP
        edges.append(first - (1 + _GAP) / 2)
    return places, ticks, edges[:-1]


def _of_one_size(systems: Sequence[System], measure: Measure) -> list[dict[str, float]]:
    """Name -> megabytes of the compressed systems, in groups of nearly the same size, small ones first."""
    column = SIZES[measure][0]
    ordered = [system for method in methods(systems) for system in method.systems]
    sizes = {system.exp: mean_of(column.function(system)) for system in ordered}
    groups: list[dict[str, float]] = []
    for exp in sorted(sizes, key=sizes.__getitem__):
        if not groups or sizes[exp] > _ALIKE * min(groups[-1].values()):
            groups.append({})
        groups[-1][exp] = sizes[exp]
    return [{exp: size for exp, size in sizes.items() if exp in group} for group in groups]  # by method again


def _smallest_lossless(systems: Sequence[System], verdicts: Mapping[str, str], measure: Measure) -> set[str]:
    """The names of the smallest system of each method that is no worse than 32 bits."""
    size = SIZES[measure][0].function
    lossless = [[s for s in method.systems if verdicts[s.exp] == NO_WORSE] for method in methods(systems)]
    return {min(found, key=lambda system: mean_of(size(system))).exp for found in lossless if found}


def _point(system: System, column: Column, size: float, place: float, verdict: str, ringed: bool) -> Point:
    errors = column.function(system)
    deviation = errors.deviation if isinstance(errors, Spread) else 0.0
    return Point(size, mean_of(errors), deviation, verdict, place, ringed)


def _scale(axes: Axes, points: Sequence[Point], rate: float | None, interval: tuple[float, float] | None) -> None:
    """Draw the 32-bit line and its interval, and end the axis above the last point that isn't far from it."""
    if interval:
        axes.axhspan(*interval, color="#EFEFEF", linewidth=0)
    if rate is not None:
        axes.axhline(rate, color=GREY, linestyle="--", linewidth=1.2)
    near = [point for point in points if rate is None or point.rate <= FAR * rate]
    ends = [point.rate + sign * point.deviation for point in near for sign in (-1, 1)]
    ends += [*(interval or ()), *([] if rate is None else [rate])]
    margin = 0.08 * (max(ends) - min(ends)) or 1.0
    axes.set_ylim(min(ends) - margin, max(ends) + margin)


def _points(axes: Axes, method: str, points: Sequence[Point]) -> None:
    """Draw a method's points and front, and its smallest lossless; points above the axis are drawn at its upper end."""
    colour, marker = look(method)
    best, top = front(points), axes.get_ylim()[1]
    axes.plot([p.place for p in best], [p.rate for p in best], color=colour, linewidth=1.2, alpha=0.7)
    for point in points:
        if point.ringed:
            axes.plot(point.place, min(point.rate, top), color=colour, **_RING)
        if point.rate > top:
            shown, below = f"↑ {point.rate:.1f}", (0, -7)  # below the marker, because the front's line passes beside it
            axes.annotate(shown, (point.place, top), below, textcoords="offset points", ha="center", va="top")
        axes.errorbar(
            point.place, min(point.rate, top), point.deviation if point.deviation and point.rate <= top else None,
            color=colour, marker=marker, markersize=10 if marker == "*" else 7,
            fillstyle=FILLED.get(point.verdict, "full"), markerfacecoloralt="white", markeredgewidth=1.3, capsize=2,
            linestyle="none", zorder=3, clip_on=False,
        )  # fmt: skip


def _legend(systems: Sequence[System], band: bool, tuned: bool, verdicts: Sequence[str]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for method in methods(systems):
        colour, marker = look(method.name)
        handles.append(Line2D([], [], color=colour, marker=marker, label=method.name))
    handles.append(Line2D([], [], color=GREY, linestyle="--", label="32 bits"))
    if tuned:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label=label(TUNED)))
    if band:
        handles.append(Patch(color="#EFEFEF", label="its 95 % interval, unpaired"))
    handles.append(Line2D([], [], color=GREY, alpha=0.7, label="Pareto front of a method"))
    if NO_WORSE in verdicts:
        handles.append(Line2D([], [], color=GREY, **_RING, label="smallest lossless system of a method"))
    for word in verdicts:
        told = f"{word} ({margin():g} % margin, all sets)" if word == NO_WORSE else word
        filled: dict[str, Any] = {"marker": "o", "fillstyle": FILLED[word], "markerfacecoloralt": "white"}
        handles.append(Line2D([], [], color=GREY, linestyle="none", **filled, label=told))
    return handles

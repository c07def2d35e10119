"""Compression time of each system of a model: one bar with its stages, mean over the seeds."""

import statistics
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpq.record.result import StageTime
from mpq.report.figures.style import stage_looks
from mpq.report.tables.system import System

QUANTITIES: dict[str, Callable[[StageTime], float]] = {
    "wall-clock seconds": lambda stage: stage.seconds,
    "processor-seconds": lambda stage: stage.processor_seconds,
}


def draw(systems: Sequence[System]) -> Figure:
    """Draw the systems of one model that were run, with one panel per quantity that any record has."""
    run = [system for system in systems if any(result.time.stages for result in system.runs)]
    shown = {title: of for title, of in QUANTITIES.items() if any(_sums(system, of) for system in run)}
    looks = stage_looks(stage.name for system in run for result in system.runs for stage in result.time.stages)
    figure = Figure(figsize=(1 + 5 * len(shown), 1.9 + 0.3 * len(run)), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (title, of) in zip(panels, shown.items(), strict=True):
        for place, system in enumerate(run):
            _bar(axes, place, _sums(system, of), looks)
        axes.set_xlabel(f"{title}, mean over the seeds")
        axes.margins(x=0.14)
        axes.grid(False, axis="y")
    panels[0].set_yticks(range(len(run)), [f"{system.label} ({len(system.runs)})" for system in run])
    panels[0].set_ylim(len(run) - 0.4, -0.6)  # the first on top
    figure.suptitle(f"{systems[0].model}: compression time by stage (in brackets: seeds)")
    handles = {handle.get_label(): handle for axes in panels for handle in axes.containers}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _sums(system: System, of: Callable[[StageTime], float]) -> dict[str, float]:
    """Stage name -> mean over the seeds, for the stages with a cost above 0."""
    found: dict[str, list[float]] = {}
    for result in system.runs:
        for stage in result.time.stages:
            if of(stage):
                found.setdefault(stage.name, []).append(of(stage))
    return {name: statistics.fmean(values) for name, values in found.items()}


def _bar(axes: Axes, place: int, parts: dict[str, float], looks: dict[str, tuple[str, str]]) -> None:
    left = 0.0
    for name, value in parts.items():
        colour, label = looks[name]
        axes.barh(place, value, left=left, color=colour, label=label, height=0.7, edgecolor="white")
        left += value
    if parts:
        axes.text(left, place, f" {left:,.0f}" if left >= 10 else f" {left:.1f}", va="center", fontsize=9)

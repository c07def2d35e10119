"""Word error rate against the updates of all stages together, one panel per set: mean over the seeds, and each seed."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from mpq.report.figures.style import GREY, look
from mpq.report.tables.column import mean_of, over_seeds
from mpq.report.tables.system import PLAIN, System
from mpq.report.tables.updates import total_updates

_SIDE_STEP = 0.012  # of the axis: offset between methods with equally many updates


def draw(systems: Sequence[System]) -> Figure:
    """Draw the curves of one model: a line per method through its means, with standard deviations over the seeds."""
    run = [system for system in systems if system.runs]
    sets = list(dict.fromkeys(name for system in run for result in system.runs for name in result.wer))
    rows = (len(sets) + 1) // 2
    figure = Figure(figsize=(9, 0.9 + 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, min(2, len(sets)), squeeze=False, sharex=True)
    trained = [system for system in run if system.is_compressed]
    baselines = [system for system in run if not system.is_compressed]
    methods = list(dict.fromkeys(system.group for system in trained))
    step = _SIDE_STEP * max(map(total_updates, trained), default=0)
    for name, axes in zip(sets, panels.flat, strict=False):
        for baseline in baselines:
            rate = mean_of(over_seeds(_rates(baseline, name)))
            axes.axhline(rate, color=GREY, linestyle=_line(baseline), linewidth=1.2)
        for number, method in enumerate(methods):
            shift = step * (number - (len(methods) - 1) / 2)
            _curve(axes, [system for system in trained if system.group == method], name, shift)
        axes.set_title(name)
        axes.set_xticks(sorted({total_updates(system) for system in trained}))
    for axes in panels[:, 0]:
        axes.set_ylabel("WER, %")
    for axes in panels[-1]:
        axes.set_xlabel("updates of all stages")
    for axes in list(panels.flat)[len(sets) :]:
        axes.set_visible(False)
    figure.suptitle(f"{systems[0].model}: word error rate against updates, mean ± standard deviation over seeds")
    handles = [Line2D([], [], color=look(name)[0], marker=look(name)[1], label=name) for name in methods]
    handles += [Line2D([], [], color=GREY, linestyle=_line(system), label=system.label) for system in baselines]
    handles.append(Line2D([], [], color=GREY, linestyle="none", marker=".", markersize=4, label="one seed"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _line(baseline: System) -> LineStyleType:
    return "--" if baseline.recipe == PLAIN else ":"


def _curve(axes: Axes, systems: Sequence[System], name: str, shift: float) -> None:
    """Draw one method's means, deviations and seeds, shifted by `shift` updates to keep methods apart."""
    colour, marker = look(systems[0].group)
    points = sorted((total_updates(system), _rates(system, name)) for system in systems)
    for updates, rates in points:
        axes.plot(
            [updates + shift] * len(rates), rates, color=colour, marker=".", markersize=4, linestyle="none", alpha=0.6
        )
    values = [over_seeds(rates) for _, rates in points]
    axes.errorbar(
        [updates + shift for updates, _ in points], [mean_of(value) for value in values],
        [getattr(value, "deviation", 0.0) for value in values], color=colour, marker=marker,
        markersize=10 if marker == "*" else 6, linewidth=1.2, capsize=2, zorder=3,
    )  # fmt: skip


def _rates(system: System, name: str) -> list[float]:
    return [result.wer[name].wer for result in system.runs if name in result.wer]

"""What the searches of one run learned: each weight's probability of each precision, and the training loss."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpq.record.search import Snapshot, StageSearch
from mpq.report.figures.bit_map import place, projections, rows
from mpq.report.figures.style import bare


def learned(stages: Sequence[StageSearch]) -> StageSearch | None:
    """The stage whose probabilities changed over its updates, or None: a measured search decides at once."""
    return next((stage for stage in stages if len(_snapshots(stage)) > 1), None)


def draw_probabilities(title: str, stage: StageSearch) -> Figure:
    """Draw one stage: one panel per candidate, one row per searched weight, in the order of the encoder."""
    shots = _snapshots(stage)
    columns, labels = projections(stage.sites), rows(stage.sites)
    places = [place(site) for site in stage.sites]
    order = sorted(range(len(places)), key=lambda i: (list(labels).index(places[i][0]), columns.index(places[i][1])))
    values = np.array([shot.probabilities for shot in shots])[:, order]  # [updates, sites, candidates]
    figure = Figure(figsize=(10, 1.9 + max(0.17, 5 / len(order)) * len(order)), layout="constrained")
    panels = figure.subplots(1, len(stage.candidates), sharey=True, squeeze=False)[0]
    edges = _edges([shot.update for shot in shots])
    for number, (axes, bits) in enumerate(zip(panels, stage.candidates, strict=True)):
        axes.pcolormesh(
            edges, np.arange(len(order) + 1), values[:, :, number].T, cmap="cividis", vmin=0, vmax=1, rasterized=True
        )
        axes.set_title(f"{bits} bits")
        axes.set_xlabel("update")
        bare(axes)
        _show_budget(axes, shots)
    _label(panels[0], [(labels[places[i][0]], places[i][1]) for i in order])
    panels[0].set_ylim(len(order), 0)
    figure.colorbar(panels[0].collections[0], ax=panels, label="probability", shrink=0.8)
    figure.suptitle(f"{title}: probability of each precision")
    panels[0].set_ylabel("layer, projection")
    return figure


def _show_budget(axes: Axes, shots: Sequence[Snapshot]) -> None:
    """Write the average bits above the updates, at most six times, if the budget came down during the search."""
    average = [shot.expected_bits for shot in shots if shot.expected_bits is not None]
    if len(average) < len(shots) or max(average) - min(average) < 0.01:
        return
    shown = shots[:: -(-len(shots) // 6)]
    above = axes.secondary_xaxis("top")
    above.set_xticks([shot.update for shot in shown], [f"{shot.expected_bits:.2g}" for shot in shown], fontsize=8)
    above.set_xlabel("average bits", fontsize=8)


def _snapshots(stage: StageSearch) -> list[Snapshot]:
    return [shot for shot in stage.trajectory if shot.probabilities is not None]


def _edges(updates: Sequence[int]) -> np.ndarray:
    """The bounds of the cells on the x-axis: each cell shows the snapshot at its right end."""
    return np.array([max(0, 2 * updates[0] - updates[1]), *updates])


def _label(axes: Axes, places: Sequence[tuple[str, str]]) -> None:
    """Label every weight, by layer and projection, if there is room, else only the first of each layer."""
    first = [i for i, (layer, _) in enumerate(places) if i == 0 or places[i - 1][0] != layer]
    if len(places) <= 36:
        axes.set_yticks(np.arange(len(places)) + 0.5, [f"{layer} {name}" for layer, name in places], fontsize=8)
    else:
        axes.set_yticks(first, [_layer(places[i][0]) for i in first], fontsize=8)
    for line in first[1:]:
        for panel in axes.figure.axes:
            panel.axhline(line, color="white", linewidth=1)


def _layer(label: str) -> str:
    return f"layer {label}" if label.isdigit() else label  # else "encoder 0", say


def has_losses(stages: Sequence[StageSearch]) -> bool:
    """Whether there is a curve to draw: a stage with two snapshots of the loss."""
    return any(len(_losses(stage)) > 1 for stage in stages)


def draw_losses(title: str, stages: Sequence[StageSearch]) -> Figure:
    """Draw one curve per stage over the updates of the whole run."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    before = 0
    for stage in stages:
        losses = _losses(stage)
        if losses:
            updates, values = zip(*losses, strict=True)
            axes.plot([before + update for update in updates], values, label=stage.name, linewidth=1.4)
            before += updates[-1]
    axes.set_xlabel("update")
    axes.set_ylabel("training loss")
    axes.legend()
    figure.suptitle(f"{title}: training loss")
    return figure


def _losses(stage: StageSearch) -> list[tuple[int, float]]:
    return [(shot.update, shot.loss) for shot in stage.trajectory if shot.loss is not None]

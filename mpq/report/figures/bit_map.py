"""Maps of the bits of each weight, layer by projection: one panel per seed of every mixed system of a model."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from mpq.report.figures.style import bare

# One shade of blue per precision from 1 to 8 bits, light to dark; the cells also contain the number.
_BLUES = ListedColormap(["#F7FBFF", "#DEEBF7", "#C6DBEF", "#9ECAE1", "#6BAED6", "#4292C6", "#2171B5", "#08519C"])
_NORM = BoundaryNorm(np.arange(0.5, 9), 8)

Assignments = Mapping[int, Mapping[str, int]]
"""Seed -> searched site -> bits."""
Row = tuple[str, int]
"""`encoder` or `decoder`, or nothing where a name says neither, and the layer."""


def is_mixed(assignment: Mapping[str, int]) -> bool:
    """Whether a map is of interest: there is more than one precision."""
    return len(set(assignment.values())) > 1


def draw(model: str, systems: Mapping[str, Assignments]) -> Figure:
    """Draw the maps; `systems` maps the name of a system to the precisions of its seeds."""
    # Systems with several seeds come first, so that each gets its own row.
    ordered = sorted(systems.items(), key=lambda item: -len(item[1]))
    maps = [(f"{name}, seed {seed}", found[seed]) for name, found in ordered for seed in sorted(found)]
    every = [site for _, bits in maps for site in bits]
    columns, layers = projections(every), rows(every)
    across = min(len(maps), max(3, len(ordered[0][1])))
    down = -(-len(maps) // across)
    width = 3.2 * max(1, len(columns) / 6)  # inches; a decoder has ten projections
    figure = Figure(figsize=(0.8 + width * across, 0.9 + (0.26 * len(layers) + 0.45) * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for number, axes in enumerate(panels.flat):
        if number >= len(maps):
            axes.set_visible(False)
            continue
        title, bits = maps[number]
        _map(axes, bits, columns, layers)
        axes.set_title(title, fontsize=9)
        if number % across == 0:
            axes.set_ylabel("layer")
        if number + across >= len(maps):  # the lowest of its column
            axes.tick_params(labelbottom=True)
            names = [name.replace("cross ", "cross\n") for name in columns]
            axes.set_xticks(np.arange(len(columns)) + 0.5, names, fontsize=8)
    figure.suptitle(f"{model}: bits of each searched weight")
    figure.supxlabel("projection (FF: feed-forward)", fontsize=9)
    return figure


def _map(axes: Axes, bits: Mapping[str, int], columns: Sequence[str], layers: Mapping[Row, str]) -> None:
    grid = np.full((len(layers), len(columns)), np.nan)
    for site, value in bits.items():
        row, projection = place(site)
        grid[list(layers).index(row), columns.index(projection)] = value
    axes.pcolormesh(grid, cmap=_BLUES, norm=_NORM, edgecolors="white", linewidth=1)
    for layer, column in np.argwhere(~np.isnan(grid)):
        value = int(grid[layer, column])
        axes.text(
            column + 0.5, layer + 0.5, str(value), ha="center", va="center", fontsize=8,
            color="white" if value > 5 else "black",
        )  # fmt: skip
    step = 1 if len(layers) <= 8 else 2
    axes.set_yticks(np.arange(0, len(layers), step) + 0.5, list(layers.values())[::step])
    axes.set_ylim(len(layers), 0)  # the first layer on top
    bare(axes)


_NAME = re.compile(r"(?:\.(encoder|decoder))?\.layers\.(\d+)\.(.+)\.weight$")
_SHORT = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "output",
    "intermediate_dense": "FF in",
    "output_dense": "FF out",
    "fc1": "FF in",
    "fc2": "FF out",
}
_ATTENTION = ["query", "key", "value", "output"]
_ORDER = [*_ATTENTION, *(f"cross {name}" for name in _ATTENTION), "FF in", "FF out"]


def place(site: str) -> tuple[Row, str]:
    """Row and projection: `(("encoder", 3), "key")` for `wav2vec2.encoder.layers.3.attention.k_proj.weight`.

    A name that does not match the pattern becomes layer 0 and its own projection.
    """
    found = _NAME.search(site)
    if not found:
        return ("", 0), site.removesuffix(".weight")
    inner, _, leaf = found[3].rpartition(".")
    if leaf not in _SHORT:
        return (found[1] or "", int(found[2])), found[3]
    cross = "cross " if inner.endswith("encoder_attn") else ""  # a decoder's attention to the encoder's output
    number = f" {inner[-1]}" if inner[-1:].isdigit() else ""  # a Conformer has two feed-forward modules
    return (found[1] or "", int(found[2])), cross + _SHORT[leaf] + number


def rows(sites: Iterable[str]) -> dict[Row, str]:
    """The rows among `sites`, the encoder's first, each with its label; one stack of layers is not named."""
    found = sorted({place(site)[0] for site in sites}, key=lambda row: (row[0] == "decoder", row))
    several = any(stack == "decoder" for stack, _ in found)
    return {(stack, layer): f"{stack} {layer}".strip() if several else str(layer) for stack, layer in found}


def projections(sites: Iterable[str]) -> list[str]:
    """The projections among `sites` in the order of the signal flow, unknown ones last."""
    names = dict.fromkeys(place(site)[1] for site in sites)
    return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

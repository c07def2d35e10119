"""The style of all pictures, and how they are saved: the same records give the same bytes.

Figures are made without pyplot, because a report does not need its global state and backends. The colours are those of
`conf/legend.yaml`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image  # which matplotlib needs, too

from mpq.files import replacing
from mpq.report.tables import recipes

FORMATS = ("png", "svg")
GREY = "#595959"
_SETTINGS = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so it is the same everywhere
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "svg.hashsalt": "mpq",  # otherwise identifiers are random
    "svg.fonttype": "path",  # otherwise the size of labels depends on the reader's fonts
}
# Suppresses the date and the program, which the formats would otherwise contain.
_METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def look(group: str) -> tuple[str, str]:
    """Colour and marker of a group of `mpq.report.tables.recipes`."""
    drawn = {recipes.group(name): (colour, marker) for name, (colour, marker) in recipes.legend()["methods"].items()}
    others = [name for name in recipes.groups() if name not in drawn]
    number = others.index(group) if group in others else len(others)
    return drawn.get(group, (_further("colours", number), _further("markers", number)))


def stage_looks(stages: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Stage -> colour and legend label; `stages` are those of a picture."""
    drawn = recipes.legend()["stages"]
    others = [stage for stage in dict.fromkeys(stages) if stage not in drawn]
    known = {stage: (colour, name) for stage, (colour, name) in drawn.items()}
    return known | {stage: (_further("colours", number), stage) for number, stage in enumerate(others)}


def _further(what: str, number: int) -> str:
    values = recipes.legend()["further"][what]
    return values[number % len(values)]


@contextmanager
def style() -> Iterator[None]:
    """Draw and save with our settings, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)  # pyright: ignore[reportCallIssue, reportArgumentType]
        yield


def save(make: Callable[[], Figure], folder: Path, name: str) -> list[Path]:
    """Draw the figure that `make` makes and write `<folder>/<name>.png` and `.svg`, each in one step."""
    paths = []
    with style():
        figure = make()
        for format in FORMATS:
            buffer = BytesIO()
            figure.savefig(buffer, format=format, metadata=_METADATA[format], bbox_inches="tight", pad_inches=0.1)
            written = buffer.getvalue() if format == "svg" else _with_palette(buffer)
            with replacing(folder / f"{name}.{format}") as temporary:
                temporary.write_bytes(written)
            paths.append(folder / f"{name}.{format}")
    return paths


def _with_palette(png: BytesIO) -> bytes:
    """The PNG with a palette of 256 colours, which for these pictures is enough and a third of the bytes."""
    found = BytesIO()
    Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(found, "PNG", optimize=True)
    return found.getvalue()


def bare(axes: Axes) -> None:
    """Remove spines, grid and tick marks, for maps."""
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)

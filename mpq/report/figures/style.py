"""How every picture looks, and how it is saved: the same records give the same bytes.

Figures are made without pyplot, whose global state and backends a report does not need. The colours are Okabe and Ito's
(Color Universal Design, 2008), a wine of Paul Tol's in place of their yellow; they are told apart with any colour
vision, and each method has a marker of its own as well.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpq.files import replacing
from mpq.report.tables.planned import METHODS

FORMATS = ("png", "svg")
GREY = "#595959"
_COLOURS = ("#0072B2", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#000000", "#882255", "#56B4E9")
_MARKERS = ("s", "o", "v", "D", "*", "P", "^", "X")
_LOOKS = dict(zip(METHODS, zip(_COLOURS, _MARKERS, strict=True), strict=True))
_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, hence the same everywhere
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
    "svg.hashsalt": "mpq",  # else identifiers are random
    "svg.fonttype": "path",  # else the reader's own fonts decide where labels end
}
# What the formats would say of the day and of the program.
_METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def look(method: str) -> tuple[str, str]:
    """Colour and marker of a method; one that has none of its own is grey."""
    return _LOOKS.get(method, (GREY, "."))


@contextmanager
def style() -> Iterator[None]:
    """Draw and save in our settings, whatever the reader's matplotlibrc says."""
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
            with replacing(folder / f"{name}.{format}") as temporary:
                temporary.write_bytes(buffer.getvalue())
            paths.append(folder / f"{name}.{format}")
    return paths


def bare(axes: Axes) -> None:
    """Take the spines and the grid off, for maps."""
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)

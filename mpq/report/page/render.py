"""Renders content to an HTML file with Jinja templates, which escape all text from records; pictures are data URLs.

Pictures are SVG in an `img` rather than `svg` elements, because the ids of several `svg` elements would collide and
they could run scripts; an `img` also has an alternative text.
"""

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.files import write_text
from mpq.report.tables.formats import is_numeric
from mpq.report.tables.parts import Block

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_page(path: Path, template: str, content: Mapping[str, Any]) -> Path:
    """Write `template` (a file of `templates/`) filled with `content` to `path`, in one step; return `path`."""
    write_text(path, _environment().get_template(template).render(content))
    return path


@cache  # which keeps the compiled templates for the next page
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,  # a missing value is a defect, not an empty cell
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["numeric"] = lambda values: is_numeric(tuple(values))
    environment.filters["meanings"] = _meanings
    return environment


def _meanings(blocks: Iterable[Block]) -> dict[str, str]:
    """Title -> meaning of every column."""
    return {column.title: column.meaning for block in blocks for column in block.columns}


@dataclass(frozen=True)
class Picture:
    """One picture: the source of an `img` and its alternative text."""

    source: str
    description: str


def picture(make: "Callable[[], Figure]", description: str) -> Picture:
    """The picture of the figure that `make` draws; the same figure gives the same bytes."""
    from mpq.report.figures.style import style  # here, since matplotlib takes a second

    buffer = BytesIO()
    with style():
        figure = make()  # its constrained layout leaves no margin to crop, and cropping would lay it out once more
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}", description)

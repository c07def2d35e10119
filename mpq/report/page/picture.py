"""Pictures inside a page: SVG as a data address in an `img`.

Not as `svg` elements, whose ids would meet those of the next picture, and which could run scripts; an `img` also has a
text for those who can't see it.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """One picture: its source for an `img` and the words that stand for it."""

    source: str
    description: str


def picture(make: "Callable[[], Figure]", description: str) -> Picture:
    """The picture of the figure that `make` draws; the same figure gives the same bytes."""
    from mpq.report.figures.style import style  # here, since matplotlib takes a second

    buffer = BytesIO()
    with style():
        make().savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    return Picture(f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}", description)

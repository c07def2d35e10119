"""A column of a table: a function of its rows, how to format its values, and how to pool them over seeds."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Spread:
    """The mean over `count` seeds and their sample standard deviation (n - 1 in the denominator)."""

    mean: float
    deviation: float
    count: int

    def text(self, format: Callable[[Any], str]) -> str:
        """Return `mean ± deviation` in the format of the column; a deviation that rounds to 0 is omitted."""
        nothing = format(self.deviation) == format(0.0)
        return format(self.mean) + ("" if nothing else f" ± {format(self.deviation).lstrip('+')}")


def over_seeds(values: Sequence[Any]) -> Any:
    """The common value of the seeds; different numbers become a `Spread`, other values a list as text.

    Equal values stay as they are, so that a size does not read `0.39 ± 0.00`. Without any value the result is None.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    if all(value == known[0] for value in known):
        return known[0]
    if all(isinstance(value, (int, float)) and math.isfinite(value) for value in known):
        return Spread(statistics.fmean(known), statistics.stdev(known), len(known))
    return ", ".join(dict.fromkeys(map(str, known)))


def mean_of(value: Any) -> Any:
    """The plain number of a value from `over_seeds`, for calculations."""
    return value.mean if isinstance(value, Spread) else value


EMPTY = "–"


@dataclass(frozen=True)
class Column:
    """One column: title, function of a row (None: no value), meaning with unit, and which direction is better.

    `optional`: a table omits the column if no row has a value.
    """

    title: str
    function: Callable[[Any], Any]
    meaning: str
    better: Literal["lower", "higher"] | None = None
    format: Callable[[Any], str] = str
    per_set: bool = False
    optional: bool = False

    @property
    def header(self) -> str:
        """The title with an arrow in the direction of better values."""
        return self.title + {"lower": " ↓", "higher": " ↑", None: ""}[self.better]

    def text(self, value: Any) -> str:
        """Return a value of this column as text."""
        if isinstance(value, Spread):
            return value.text(self.format)
        if isinstance(value, str):  # a word in a column of numbers, such as "not run"
            return value
        return EMPTY if value is None else self.format(value)

    def of_set(self, name: str, cut: Callable[[Any, str], Any]) -> "Column":
        """Return this column for the evaluation set `name`; `cut` reduces a row to one set (for records: `only`)."""
        return replace(
            self, title=f"{self.title} {name}", function=lambda row: self.function(cut(row, name)), per_set=False
        )

"""What a column of a table is: a function of its rows, and how to show what that gives."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from mpq.report.spread import Spread

EMPTY = "–"


@dataclass(frozen=True)
class Column:
    """One column: its title, its function (None: nothing to show), what it means with its unit, which way is better.

    `optional`: a table leaves it out where no row has a value of it.
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
        """The title with an arrow that points to where better values lie."""
        return self.title + {"lower": " ↓", "higher": " ↑", None: ""}[self.better]

    def text(self, value: Any) -> str:
        """Show a value of this column."""
        if isinstance(value, Spread):
            return value.text(self.format)
        if isinstance(value, str):  # a word in a column of numbers, such as "not run"
            return value
        return EMPTY if value is None else self.format(value)

    def of_set(self, name: str, cut: Callable[[Any, str], Any]) -> "Column":
        """Return this column for the evaluation set `name` alone; `cut` cuts a row down to a set (records: `only`)."""
        return replace(
            self, title=f"{self.title} {name}", function=lambda row: self.function(cut(row, name)), per_set=False
        )

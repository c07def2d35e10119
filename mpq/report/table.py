"""From records to tables: which rows, which columns, and a pandas frame of plain values for each part.

Building and showing are apart: a `Sheet` holds values and columns, and each format (terminal, Markdown, ...) is one
function from a sheet, in `mpq.report.terminal` and `mpq.report.markdown`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mpq.errors import UserError
from mpq.record.result import Result
from mpq.report.caption import caption
from mpq.report.columns import Column, find, only

ROWS = ("runs", "comparisons")


@dataclass(frozen=True)
class Block:
    """One part of a table, made: a frame of values, one column of it for each of `columns`, None where none is."""

    title: str
    columns: tuple[Column, ...]
    frame: pd.DataFrame
    grouped: bool  # neighbouring rows of the same first cell belong together

    def cells(self) -> list[list[str]]:
        """Return the rows as text."""
        rows = self.frame.itertuples(index=False)
        return [[column.text(value) for column, value in zip(self.columns, row, strict=True)] for row in rows]


@dataclass(frozen=True)
class Sheet:
    """A table, made: its parts and the sentences below it."""

    title: str
    blocks: tuple[Block, ...]
    caption: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One part of a table: its title, the names of its columns, and what a row is.

    A row is a run (`rows="runs"`; columns per set are repeated for each set) or a run on one set compared with its
    baseline (`rows="comparisons"`). Raises UserError for unknown rows or columns, listing the valid ones.
    """

    title: str
    rows: str
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise UserError(f"unknown rows {self.rows!r} of the table part {self.title!r}; choose {' or '.join(ROWS)}")
        for name in self.columns:
            find(name)

    def build(self, records: Sequence[Result]) -> Block:
        """Read the values off the records."""
        columns = [find(name) for name in self.columns]
        if self.rows == "comparisons":
            rows = [only(record, name) for record in records for name in record.significance or {}]
        else:
            rows = list(records)
            sets = list(dict.fromkeys(name for record in records for name in record.wer))
            columns = [
                one for column in columns for one in ([*map(column.of_set, sets)] if column.per_set else [column])
            ]
        values = [[column.function(row) for column in columns] for row in rows]
        frame = pd.DataFrame(values, columns=[column.title for column in columns], dtype=object)
        return Block(self.title, tuple(columns), frame, self.rows == "comparisons")


@dataclass(frozen=True)
class Table:
    """A table to make: `rows` are patterns of run names in the order of showing (`*` is every run)."""

    title: str
    rows: tuple[str, ...]
    parts: tuple[Part, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Table":
        """Make it from the plain values of `conf/table/<name>.yaml`; raises UserError for a missing or unknown key."""
        try:
            parts = tuple(Part(part["title"], part["rows"], tuple(part["columns"])) for part in values["parts"])
            return cls(values["title"], tuple(values["rows"]), parts)
        except (KeyError, TypeError) as error:
            raise UserError(f"a table needs title, rows and parts of title, rows and columns: {error}") from error

    def build(self, records: Sequence[Result]) -> Sheet:
        """Choose the records and build each part; a row that has no record is named in the caption."""
        chosen: dict[int, Result] = {}  # by position, so that a run which two patterns name is shown once
        for pattern in self.rows:
            chosen |= {i: r for i, r in enumerate(records) if fnmatchcase(r.exp, pattern)}
        missing = [row for row in self.rows if "*" not in row and row not in {record.exp for record in records}]
        shown = list(chosen.values())
        return Sheet(self.title, tuple(part.build(shown) for part in self.parts), caption(shown, missing))


def load_table(name: str, folder: Path) -> Table:
    """Read `<folder>/<name>.yaml`; raises UserError listing the tables there are."""
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        raise UserError(f"unknown table {name!r}; the tables are {', '.join(names)}")
    return Table.from_dict(yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")))


def beside_baseline(result: Result, records: Sequence[Result]) -> list[Result]:
    """Return the run after the runs of `records` that it was compared with: the rows to show when it has ended."""
    compared = [test.baseline for test in (result.significance or {}).values()]
    wanted = {(baseline.exp, baseline.seed) for baseline in compared}
    found = {(record.exp, record.seed): record for record in records if (record.exp, record.seed) in wanted}
    return [*found.values(), result]

"""A table of records, one row a run: which of them, in which order, and its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mpq.errors import UserError
from mpq.record.result import Result
from mpq.report.caption import caption
from mpq.report.parts import Block, Part


@dataclass(frozen=True)
class Sheet:
    """A table, made: its parts and the sentences below it."""

    title: str
    blocks: tuple[Block, ...]
    caption: tuple[str, ...]


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
            return cls(values["title"], tuple(values["rows"]), parts_of(values))
        except (KeyError, TypeError) as error:
            raise UserError(f"a table needs title, rows and parts of title, rows and columns: {error}") from error

    def build(self, records: Sequence[Result]) -> Sheet:
        """Choose the records and build each part; a row that has no record is named in the caption."""
        chosen: dict[int, Result] = {}  # by position, so that a run which two patterns name is shown once
        for pattern in self.rows:
            chosen |= {i: r for i, r in enumerate(records) if fnmatchcase(r.exp, pattern)}
        missing = [row for row in self.rows if "*" not in row and row not in {record.exp for record in records}]
        shown = list(chosen.values())
        sets = list(dict.fromkeys(name for record in shown for name in record.wer))
        return Sheet(self.title, tuple(part.build(shown, sets) for part in self.parts), caption(shown, missing))


def parts_of(values: Mapping[str, Any]) -> tuple[Part, ...]:
    """The parts that `conf/table/<name>.yaml` lists."""
    return tuple(Part(part["title"], part["rows"], tuple(part["columns"])) for part in values["parts"])


def beside_baseline(result: Result, records: Sequence[Result]) -> list[Result]:
    """Return the run after the runs of `records` that it was compared with: the rows to show when it has ended."""
    compared = [test.baseline for test in (result.significance or {}).values()]
    wanted = {(baseline.exp, baseline.seed) for baseline in compared}
    found = {(record.exp, record.seed): record for record in records if (record.exp, record.seed) in wanted}
    return [*found.values(), result]

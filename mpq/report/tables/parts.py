"""The parts of a table: the kind of its rows, its columns, and a pandas frame of plain values.

Building and showing are separate: a `Block` holds values and columns, and each format (terminal, Markdown, LaTeX, CSV)
is a function of blocks. `KINDS` lists the kinds of rows: a run, a system over its seeds, a method, a factor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pandas as pd

from mpq.errors import UserError
from mpq.report.tables import columns, equal_bits, lossless, system_columns, time_factors
from mpq.report.tables.column import Column
from mpq.report.tables.columns import find, only
from mpq.report.tables.system import PLAIN, System


@dataclass(frozen=True)
class Kind:
    """A kind of rows: the module with its columns, and how the rows come from the records or systems of a table.

    `cut` reduces a row to one evaluation set, if the columns "per set" are side by side. `folded` collapses the part on
    a page.
    """

    columns: ModuleType
    rows: Callable[[Sequence[Any]], Sequence[Any]]
    cut: Callable[[Any, str], Any] | None = None
    grouped: bool = False
    folded: bool = False


def _compared(systems: Sequence[System]) -> list[System]:
    """All but the 32-bit model as it is, which the others are compared with."""
    return [system for system in systems if system.recipe != PLAIN]


def _per_set(systems: Sequence[System]) -> list[System]:
    """One row per set that a system was compared on; a system that was not run keeps one row."""
    rows = []
    for system in _compared(systems):
        sets = dict.fromkeys(one.set_name for one in system.tests)
        rows += [system.only(name) for name in sets] or [system]
    return rows


def _missing(systems: Sequence[System]) -> list[System]:
    return [system for system in systems if len(system.runs) < len(system.seeds)]


def _coded_missing(systems: Sequence[System]) -> list[System]:
    """What is missing of the systems made for a size or coded bits; nothing where no system has a coded file."""
    made = [system for system in systems if system.is_compressed and system.bits is None]
    return _missing(made) if lossless.with_coded_files(systems) else []


KINDS = {
    "runs": Kind(columns, list, only),
    "judged": Kind(columns, lambda runs: [run for run in runs if run.significance]),
    "comparisons": Kind(columns, lambda runs: [only(r, n) for r in runs for n in r.significance or {}], grouped=True),
    "systems": Kind(system_columns, list, System.only),
    "compared": Kind(system_columns, _compared),
    "compared_per_set": Kind(system_columns, _per_set, grouped=True, folded=True),
    "missing": Kind(system_columns, _missing, folded=True),
    "methods": Kind(lossless, lossless.methods),
    "lossless_factors": Kind(lossless, lossless.factors),
    "coded": Kind(system_columns, lossless.with_coded_files, System.only),
    "coded_missing": Kind(system_columns, _coded_missing, folded=True),
    "coded_methods": Kind(lossless, lossless.coded_methods),
    "coded_factors": Kind(lossless, lossless.coded_factors),
    "time_factors": Kind(time_factors, time_factors.time_factors),
    "equal_bits": Kind(equal_bits, equal_bits.comparisons),
}


@dataclass(frozen=True)
class Block:
    """A finished part of a table: a frame of values with one column per item of `columns`; None means no value.

    `model` is the model of its rows; empty if there are several.
    """

    part: str
    columns: tuple[Column, ...]
    frame: pd.DataFrame
    grouped: bool  # adjacent rows with the same first cell belong together
    model: str = ""
    folded: bool = False

    @property
    def title(self) -> str:
        """The heading of the part."""
        return f"{self.model}: {self.part[0].lower()}{self.part[1:]}" if self.model else self.part

    def cells(self) -> list[list[str]]:
        """Return the rows as text."""
        rows = self.frame.itertuples(index=False)
        return [[column.text(value) for column, value in zip(self.columns, row, strict=True)] for row in rows]


def with_values(columns: Sequence[Column], rows: Sequence[Any]) -> list[Column]:
    """The columns without optional ones that have no value in any row."""
    nothing = (None, system_columns.NOT_RUN)
    return [c for c in columns if not c.optional or any(c.function(row) not in nothing for row in rows)]


@dataclass(frozen=True)
class Part:
    """One part of a table: its title, the kind of its rows (a key of `KINDS`), and the names of its columns.

    Raises UserError for unknown rows or columns, listing the valid ones.
    """

    title: str
    rows: str
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rows not in KINDS:
            raise UserError(
                f"unknown rows {self.rows!r} of the table part {self.title!r}; choose one of {', '.join(KINDS)}"
            )
        for name in self.columns:
            find(name, KINDS[self.rows].columns)

    def build(self, items: Sequence[Any], sets: Sequence[str], model: str = "") -> Block:
        """Compute the values of `items`, records or systems; `sets` are the evaluation sets to show side by side.

        `model` is given if a table has one block per model.
        """
        kind = KINDS[self.rows]
        shown = [find(name, kind.columns) for name in self.columns]
        if kind.cut:
            cut = kind.cut
            shown = [one for c in shown for one in ([c.of_set(name, cut) for name in sets] if c.per_set else [c])]
        rows = kind.rows(items)
        shown = with_values(shown, rows)
        values = [[column.function(row) for column in shown] for row in rows]
        frame = pd.DataFrame(values, columns=[column.title for column in shown], dtype=object)
        return Block(self.title, tuple(shown), frame, kind.grouped, model, kind.folded)

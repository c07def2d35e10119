"""A sheet in a terminal, with rich, made for 100 columns."""

import itertools
import sys
import textwrap

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from mpq.report.columns import NOT_SIGNIFICANT, SIGNIFICANT
from mpq.report.markdown import is_numeric
from mpq.report.table import Block, Sheet

_STYLES = {SIGNIFICANT: "red", NOT_SIGNIFICANT: "green"}
_GAP = 2
WIDTH = 100
"""Columns of the output where that is no terminal: rich's own 80 would break the verdicts."""
_NARROWEST_NAME = 16


def print_sheet(sheet: Sheet, console: Console | None = None) -> None:
    """Print the sheet."""
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH)
    parts: list[RenderableType] = [Text(sheet.title, style="bold")]
    for block in sheet.blocks:
        parts += [Text(""), _table(block, console.width)]
    if sheet.caption:
        parts += [Text(""), *(Text(line, style="dim") for line in sheet.caption)]
    console.print(Group(*parts))


def _table(block: Block, width: int) -> RenderableType:
    cells = block.cells()
    title = Text(block.title, style="italic")
    if not cells:
        return Group(title, Text("(no rows)", style="dim"))
    values = list(zip(*cells, strict=True))
    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, padding=(0, 1))
    widths = []
    for column, texts in zip(block.columns, values, strict=True):
        header = _narrow(column.header, max(map(len, texts)))
        table.add_column(header, justify="right" if is_numeric(texts) else "left", overflow="fold")
        widths.append(max(map(len, [*header.split("\n"), *texts])))
    room = max(_NARROWEST_NAME, width - sum(widths[1:]) - _GAP * (len(widths) - 1))
    for name, group in itertools.groupby(cells, key=lambda row: row[0]):
        rows = list(group)
        labels = _labels(_break_name(name, room), len(rows), block.grouped)
        for label, row in zip(labels, rows, strict=True):
            table.add_row(label, *(Text(cell, style=_STYLES.get(cell, "")) for cell in row[1:]))
        if block.grouped:
            table.add_section()
    return Group(title, table)


def _labels(lines: list[str], rows: int, grouped: bool) -> list[str]:
    """Write the lines of a name into each of its rows, or where the rows are grouped once, a line into each row."""
    if not grouped:
        return ["\n".join(lines)] * rows
    padded = lines + [""] * rows
    return [*padded[: rows - 1], "\n".join(padded[rows - 1 :]).rstrip("\n")]


def _narrow(header: str, width: int) -> str:
    """Break a header so that it makes its column no wider than needed."""
    words = max(map(len, header.replace("-", "- ").split()))
    return "\n".join(textwrap.wrap(header, max(width, words)))


def _break_name(name: str, room: int) -> list[str]:
    """Break a run's name after underscores and at spaces, where it is longer than `room`."""
    lines = [""]
    for piece in name.replace("_", "_\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > room:
            lines.append("")
        lines[-1] += piece
    return lines

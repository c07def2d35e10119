"""Prints sheets in a terminal with rich, designed for 100 columns."""

import itertools
import sys
import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from mpq.evaluate.pooled import NO_WORSE, WORSE
from mpq.report.tables.columns import NOT_SIGNIFICANT, SIGNIFICANT
from mpq.report.tables.formats import is_numeric
from mpq.report.tables.parts import Block
from mpq.report.tables.system_columns import NOT_RUN
from mpq.report.tables.tables import Sheet

_STYLES = {SIGNIFICANT: "red", NOT_SIGNIFICANT: "green", NO_WORSE: "green", WORSE: "red", NOT_RUN: "dim"}
_GAP = 2
WIDTH = 100
"""Width of output that is not a terminal: rich's default of 80 would wrap the verdicts."""
_NARROWEST_NAME = 16


def terminal() -> Console:
    """Standard output, at the width of the terminal if it is one."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def print_sheets(sheets: Sequence[Sheet], console: Console | None = None) -> None:
    """Print the sheets, separated by empty lines."""
    console = console or terminal()
    for number, sheet in enumerate(sheets):
        if number:
            console.print()
        _print(sheet, console)


def _print(sheet: Sheet, console: Console) -> None:
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
    texts = list(zip(*cells, strict=True))
    headers = [_narrow(c.header, max(map(len, values))) for c, values in zip(block.columns, texts, strict=True)]
    widths = [max(map(len, [*h.split("\n"), *values])) for h, values in zip(headers, texts, strict=True)]
    parts: list[RenderableType] = []
    for chosen in _side_by_side(widths, width):
        parts += [Text("")] if parts else []
        room = max(_NARROWEST_NAME, width - sum(widths[i] + _GAP for i in chosen))
        parts.append(_columns(block, cells, headers, chosen, room))
    return Group(title, *parts)


def _side_by_side(widths: list[int], width: int) -> list[list[int]]:
    """The columns after the first, split into groups of neighbours that each fit beside it in one table."""
    if _NARROWEST_NAME + sum(width + _GAP for width in widths[1:]) <= width:
        return [list(range(1, len(widths)))]
    name = min(widths[0], width // 3)
    groups: list[list[int]] = [[]]
    for i in range(1, len(widths)):
        if groups[-1] and name + sum(widths[j] + _GAP for j in [*groups[-1], i]) > width:
            groups.append([])
        groups[-1].append(i)
    return groups


def _columns(block: Block, cells: list[list[str]], headers: list[str], chosen: list[int], room: int) -> RichTable:
    """The first column and the `chosen` ones; names in the first that are longer than `room` are wrapped."""
    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, padding=(0, 1))
    for i in [0, *chosen]:
        table.add_column(
            headers[i], justify="right" if is_numeric(tuple(row[i] for row in cells)) else "left", overflow="fold"
        )
    for name, group in itertools.groupby(cells, key=lambda row: row[0]):
        rows = list(group)
        labels = _labels(_break_name(name, room), len(rows), block.grouped)
        for label, row in zip(labels, rows, strict=True):
            table.add_row(label, *(Text(row[i], style=_style(row[i])) for i in chosen))
        if block.grouped:
            table.add_section()
    return table


def _style(cell: str) -> str:
    return _STYLES.get(cell, "")


def _labels(lines: list[str], rows: int, grouped: bool) -> list[str]:
    """The label of each row: the whole name in every row, or, if grouped, its lines spread over the rows."""
    if not grouped:
        return ["\n".join(lines)] * rows
    padded = lines + [""] * rows
    return [*padded[: rows - 1], "\n".join(padded[rows - 1 :]).rstrip("\n")]


def _narrow(header: str, width: int) -> str:
    """Wrap a header so that its column is no wider than needed."""
    words = max(map(len, header.replace("-", "- ").split()))
    return "\n".join(textwrap.wrap(header, max(width, words)))


def _break_name(name: str, room: int) -> list[str]:
    """Wrap a run's name after underscores and at spaces if it is longer than `room`."""
    lines = [""]
    for piece in name.replace("_", "_\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > room:
            lines.append("")
        lines[-1] += piece
    return lines

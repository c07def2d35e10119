"""Sheets as Markdown (GitHub's tables)."""

from collections.abc import Sequence

from mpq.report.lossless import NONE
from mpq.report.parts import Block
from mpq.report.system_columns import NOT_RUN
from mpq.report.table import Sheet

_WORDS = (NOT_RUN, NONE)


def to_markdown(sheets: Sequence[Sheet], level: int = 3) -> str:
    """Return all of it; every row is complete, so that a line can be read or searched by itself.

    `level` is that of the headings.
    """
    return "\n".join(_sheet(sheet, "#" * level) for sheet in sheets)


def _sheet(sheet: Sheet, mark: str) -> str:
    parts = [f"{mark} {sheet.title}", *map(_block, sheet.blocks), *(f"*{line}*" for line in sheet.caption)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    if block.folded:  # GitHub's way to fold; a blank line lets the table inside be Markdown
        return f"<details><summary>{block.title}</summary>\n\n{_rows(block)}\n\n</details>"
    return f"**{block.title}**\n\n{_rows(block)}"


def _rows(block: Block) -> str:
    cells = block.cells()
    if not cells:
        return "(no rows)"
    rows = [[column.header for column in block.columns], [_rule(values) for values in zip(*cells, strict=True)], *cells]
    return "\n".join(f"| {' | '.join(map(_escape, row))} |" for row in rows)


def _rule(values: tuple[str, ...]) -> str:
    return "---:" if is_numeric(values) else "---"


def _escape(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def is_numeric(values: tuple[str, ...]) -> bool:
    """Say whether a column of cells is to be aligned to the right: every cell looks like a number or is empty."""
    plain = [value for value in values if value not in _WORDS]
    return bool(plain) and not any(letter.isalpha() for value in plain for letter in value.removeprefix("up to"))

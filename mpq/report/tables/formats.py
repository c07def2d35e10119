r"""Sheets as Markdown (GitHub's tables), LaTeX and CSV.

*LaTeX* uses booktabs, one `table` per block, to be included with `\input`. It needs `\usepackage{booktabs,graphicx}`
and, before a pdfLaTeX of 2018, UTF-8 input. Wide tables are scaled to the width of the line.

*CSV* holds plain values for pandas, R or a spreadsheet. Parts have different columns, so the columns of other parts are
empty in a row; select rows by `table`, `part` and `model`: `frame[frame.part == "..."].dropna(axis=1, how="all")`. A
column of means over seeds is followed by their standard deviation (`... sd`); an interval has two columns (`... low`,
`... high`).
"""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from mpq.markdown import table
from mpq.report.tables.column import Column, Spread
from mpq.report.tables.columns import NONE
from mpq.report.tables.parts import Block
from mpq.report.tables.system_columns import NOT_RUN
from mpq.report.tables.tables import Sheet

_WORDS = (NOT_RUN, NONE)


def to_markdown(sheets: Sequence[Sheet], level: int = 3) -> str:
    """Return all sheets; every row is complete, so that a line can be read or searched by itself.

    `level` is the level of the headings.
    """
    return "\n".join(_markdown_sheet(sheet, "#" * level) for sheet in sheets)


def _markdown_sheet(sheet: Sheet, mark: str) -> str:
    parts = [f"{mark} {sheet.title}", *map(_block, sheet.blocks), *(f"*{line}*" for line in sheet.caption)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    if block.folded:  # collapsed on GitHub; the blank line makes the table inside Markdown
        return f"<details><summary>{block.title}</summary>\n\n{_rows(block)}\n\n</details>"
    return f"**{block.title}**\n\n{_rows(block)}"


def _rows(block: Block) -> str:
    cells = block.cells()
    if not cells:
        return "(no rows)"
    numeric = [is_numeric(values) for values in zip(*cells, strict=True)]
    return table([column.header for column in block.columns], cells, numeric)


def is_numeric(values: tuple[str, ...]) -> bool:
    """Return whether a column of cells is right-aligned: every cell looks like a number or is empty."""
    plain = [value for value in values if value not in _WORDS]
    return bool(plain) and not any(letter.isalpha() for value in plain for letter in value.removeprefix("up to"))


_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "±": r"$\pm$", "“": "``", "”": "''", "’": "'", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "≥": r"$\geq$",
}  # fmt: skip


def to_latex(sheets: Sequence[Sheet]) -> str:
    """Return the tables of all sheets; a sheet's caption follows its last table."""
    head = "% Needs \\usepackage{booktabs,graphicx}. Made from records by scripts/tables.py; don't edit.\n"
    return head + "\n".join(_latex_sheet(sheet) for sheet in sheets)


def escape(text: str) -> str:
    """Escape plain text for LaTeX."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text).replace("--", "-{}-").replace("–", "--")


def _latex_sheet(sheet: Sheet) -> str:
    notes = "\n".join(f"{escape(line)}\\par" for line in sheet.caption)
    tables = [_table(sheet.title, block) for block in sheet.blocks]
    about = f"\\textbf{{{escape(_unnumbered(sheet.title))}.}}"  # tables float away from their notes
    return "\n".join([*tables, f"\\begin{{small}}\n{about} {notes}\n\\end{{small}}\n"])


def _table(title: str, block: Block) -> str:
    cells = [tuple(map(_cell, row)) for row in block.cells()]
    columns = "".join("r" if is_numeric(values) else "l" for values in zip(*block.cells(), strict=True))
    columns = columns or "l" * len(block.columns)
    header = " & ".join(escape(column.header) for column in block.columns)
    rows = []
    for number, row in enumerate(cells):
        if block.grouped and number and row[0] != cells[number - 1][0]:
            rows.append(r"\addlinespace")
        rows.append(" & ".join(row) + r" \\")
    body = "\n".join(rows)
    return (
        f"\\begin{{table}}[tp]\n\\centering\n\\caption{{{escape(f'{_unnumbered(title)}. {block.title}')}}}\\medskip\n"
        f"\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{header} \\\\\n\\midrule\n{body}\n\\bottomrule\n"
        "\\end{tabular}}\n\\end{table}\n"
    )


def _unnumbered(title: str) -> str:
    """The title without "Table 1: ", because LaTeX numbers its tables itself."""
    plain = re.sub(r"^Table \d+: ", "", title)
    return plain[0].upper() + plain[1:]


def _cell(text: str) -> str:
    """A cell; a leading hyphen becomes a minus sign, and a bracket must not be read as the argument of `\\\\`."""
    words = [f"$-${word[1:]}" if word[:1] == "-" and word[1:2].isdigit() else escape(word) for word in text.split(" ")]
    return "{}" + " ".join(words) if text.startswith("[") else " ".join(words)


def to_csv(sheets: Sequence[Sheet]) -> str:
    """Return the values of every part of every sheet, unrounded."""
    frames = [_frame(sheet.title, block) for sheet in sheets for block in sheet.blocks]
    return pd.concat(frames).to_csv(index=False, lineterminator="\n") if frames else ""


def _frame(title: str, block: Block) -> pd.DataFrame:
    where = {"table": title, "part": block.part, "model": block.model}
    columns: dict[str, list[Any]] = {name: [value] * len(block.frame) for name, value in where.items()}
    for index, column in enumerate(block.columns):
        columns |= _plain(column, block.frame.iloc[:, index].tolist())
    return pd.DataFrame(columns, dtype=object)


def _plain(column: Column, values: list[Any]) -> dict[str, list[Any]]:
    if any(isinstance(value, tuple) for value in values):
        pairs = [value if isinstance(value, tuple) else (value, None) for value in values]
        return {f"{column.title} {end}": [pair[i] for pair in pairs] for i, end in enumerate(("low", "high"))}
    found = {column.title: [value.mean if isinstance(value, Spread) else value for value in values]}
    if any(isinstance(value, Spread) for value in values):
        found[f"{column.title} sd"] = [value.deviation if isinstance(value, Spread) else None for value in values]
    return found

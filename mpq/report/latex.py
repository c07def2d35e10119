"""Sheets as LaTeX, with booktabs: a `table` a block, to be put into a paper with `\\input`.

Needs `\\usepackage{booktabs,graphicx}` and, before a pdfLaTeX of 2018, UTF-8 input. Wide tables are scaled to the width
of the line.
"""

import re
from collections.abc import Sequence

from mpq.report.markdown import is_numeric
from mpq.report.parts import Block
from mpq.report.table import Sheet

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "±": r"$\pm$", "“": "``", "”": "''", "’": "'", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "≥": r"$\geq$",
}  # fmt: skip


def to_latex(sheets: Sequence[Sheet]) -> str:
    """Return the tables of all sheets; a sheet's caption stands below the last of its own."""
    head = "% Needs \\usepackage{booktabs,graphicx}. Made from records by scripts/tables.py; don't edit.\n"
    return head + "\n".join(_sheet(sheet) for sheet in sheets)


def escape(text: str) -> str:
    """Write plain text so that LaTeX prints it as it is."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text).replace("--", "-{}-").replace("–", "--")


def _sheet(sheet: Sheet) -> str:
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
    """The title without "Table 1: ", since LaTeX counts its tables itself."""
    plain = re.sub(r"^Table \d+: ", "", title)
    return plain[0].upper() + plain[1:]


def _cell(text: str) -> str:
    """A cell; a leading minus becomes a real one, and a bracket must not be read as the argument of `\\\\`."""
    words = [f"$-${word[1:]}" if word[:1] == "-" and word[1:2].isdigit() else escape(word) for word in text.split(" ")]
    return "{}" + " ".join(words) if text.startswith("[") else " ".join(words)

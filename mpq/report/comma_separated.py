"""Sheets as one CSV: plain values for pandas, R or a spreadsheet.

Parts have different columns, so a row leaves those of the others empty; `table`, `part` and `model` choose rows again:
`frame[frame.part == "..."].dropna(axis=1, how="all")`. A column whose values are means over seeds has a second one,
its standard deviation (`... sd`); an interval has two (`... low`, `... high`).
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mpq.report.column import Column
from mpq.report.parts import Block
from mpq.report.spread import Spread
from mpq.report.table import Sheet


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

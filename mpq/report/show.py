"""Showing a table in one of the formats."""

from collections.abc import Callable
from pathlib import Path

from mpq.errors import UserError
from mpq.record.records import load_records
from mpq.record.result import Result
from mpq.report.markdown import to_markdown
from mpq.report.table import Sheet, beside_baseline, load_table
from mpq.report.terminal import print_sheet

FORMATS: dict[str, Callable[[Sheet], None]] = {
    "terminal": print_sheet,
    "markdown": lambda sheet: print(to_markdown(sheet), end=""),
}


def show_table(name: str, folder: Path, root: Path | str, format: str = "terminal") -> None:
    """Print the table `<folder>/<name>.yaml` of the records below `root`.

    Raises UserError for an unknown table or format, listing the valid ones, and where there is no record.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}; the formats are {', '.join(FORMATS)}")
    table = load_table(name, folder)
    records = load_records(root)
    if not records:
        raise UserError(f"there is no record below {root}; make a first one with: python scripts/run.py")
    FORMATS[format](table.build(records))


def show_run(result: Result, root: Path | str, folder: Path) -> None:
    """Print the table `<folder>/demo.yaml` of one finished run, beside its baseline among the records below `root`."""
    print_sheet(load_table("demo", folder).build(beside_baseline(result, load_records(root))))

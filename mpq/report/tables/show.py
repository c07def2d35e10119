"""Prints tables in one of the formats."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mpq.commands import script
from mpq.errors import UserError
from mpq.record.result import Result
from mpq.record.run_folder import check_root, first_run, load_records
from mpq.report.tables.formats import to_csv, to_latex, to_markdown
from mpq.report.tables.system import models_of
from mpq.report.tables.tables import Sheet, SystemTable, beside_baseline, load_table, load_tables
from mpq.report.tables.terminal import print_sheets

FORMATS: dict[str, Callable[[Sequence[Sheet]], None]] = {
    "terminal": print_sheets,
    "markdown": lambda sheets: print(to_markdown(sheets), end=""),
    "latex": lambda sheets: print(to_latex(sheets), end=""),
    "csv": lambda sheets: print(to_csv(sheets), end=""),
}


def show_table(name: str, folder: Path, root: Path | str, format: str = "terminal", scale: str = "tiny") -> None:
    """Print `<folder>/<name>.yaml`, made from the records below `root`; tables of systems show the models of `scale`.

    Raises UserError for an unknown table, format or scale, listing the valid ones, and if there is nothing to show.
    """
    show = printer(format)
    check_root(root)
    sheets = build_sheets(name, folder, root, scale)
    if not sheets:
        raise UserError(
            f"no model of scale {scale} has a record below {root} for table={name}; the runs that it plans: "
            + script("sweep", f"table={name}", f"model={','.join(models_of(scale))}", "list=true")
        )
    show(sheets)


def printer(format: str) -> Callable[[Sequence[Sheet]], None]:
    """The function that prints tables in `format`; raises UserError for an unknown one."""
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}; the formats are {', '.join(FORMATS)}")
    return FORMATS[format]


def build_sheets(
    name: str, folder: Path, root: Path | str, scale: str, claims: bool = False, planned: bool = True
) -> list[Sheet]:
    """Make the tables that `show_table` prints; `claims` and `planned` as in `SystemTable.build`.

    A table of systems without any row is left out.
    """
    sheets = []
    for table in load_tables(name, folder):
        if isinstance(table, SystemTable):
            sheets.append(table.build(scale, root, claims, planned))
        elif records := load_records(root):
            sheets.append(table.build(records))
        else:
            raise UserError(f"there is no record below {root}; make a first one with: {first_run(root)}")
    return [sheet for sheet in sheets if sheet.blocks]


def show_run(result: Result, root: Path | str, folder: Path) -> None:
    """Print the table `<folder>/demo.yaml` of one finished run, beside its baseline among the records below `root`."""
    print_sheets([load_table("demo", folder).build(beside_baseline(result, load_records(root)))])

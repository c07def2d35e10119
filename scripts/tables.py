"""Print tables of finished runs from their records; no model is loaded.

example: python scripts/tables.py table=time scale=paper format=markdown
"""

from dataclasses import dataclass

from mpq.cli import command, option, tell_unused
from mpq.conf import CONF


@dataclass(frozen=True)
class Options:
    """Which tables, and from which records."""

    table: str = option(
        "all",
        "a file of conf/table, without .yaml: compression, significance, time, coded, all (these four), "
        "equal_bits (against each other), records (runs)",
    )
    scale: str = option("tiny", "real, tiny or paper: the scale whose models the tables of systems show")
    root: str = option("experiments", "a folder of records, <root>/<name>/seed<k>/result.json")
    format: str = option("terminal", "terminal, markdown, latex (booktabs) or csv")


@command(Options)
def main(chosen: Options) -> None:
    """Print the table."""
    from mpq.report.tables.show import show_table  # here, since pandas takes a second that --help need not wait for

    if chosen.table == "records":
        tell_unused(chosen, ["scale"], "table=records shows the records of all scales")
    show_table(chosen.table, CONF / "table", chosen.root, chosen.format, chosen.scale)


if __name__ == "__main__":
    main()

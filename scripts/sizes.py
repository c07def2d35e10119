"""Compute the sizes of the paper's compressed models from tensor shapes alone, and save them for the tables.

Takes seconds; nothing is downloaded.
"""

from dataclasses import dataclass
from pathlib import Path

from mpq.cli import command, option
from mpq.commands import script
from mpq.files import check_folder


@dataclass(frozen=True)
class Options:
    """The output."""

    root: Path = option(
        Path("experiments"),
        "the folder for paper_sizes.json; shown by: python scripts/tables.py scale=paper",
    )


@command(Options)
def main(chosen: Options) -> None:
    """Predict the size of every planned row of the models of scale paper, and write the file."""
    check_folder(chosen.root)
    from mpq.record.shapes import FILE, write_shapes  # here, since torch takes seconds that --help need not wait for
    from mpq.report.forecast.sizes import predict
    from mpq.report.tables.system import models_of

    path = chosen.root / FILE
    shapes = {exp: shapes for model in models_of("paper") for exp, shapes in predict(model)}
    write_shapes(path, shapes)
    where = [] if str(chosen.root) == "experiments" else [f"root={chosen.root}"]
    print(f"{path}: {len(shapes)} systems\nNow: {script('tables', 'table=compression', 'scale=paper', *where)}")


if __name__ == "__main__":
    main()

"""Work out how small the models of the paper become, from shapes alone, and keep it for the tables.

Takes seconds; nothing is downloaded.
"""

from dataclasses import dataclass
from pathlib import Path

from mpq.cli import command, option


@dataclass(frozen=True)
class Options:
    """Where it goes."""

    root: Path = option(
        Path("experiments"),
        "the folder of paper_sizes.json, which is shown by: python scripts/tables.py scale=paper",
    )


@command(Options)
def main(chosen: Options) -> None:
    """Predict every planned row of the models of scale paper, and write them."""
    from mpq.record.shapes import FILE, write_shapes  # here, since torch takes seconds that --help need not wait for
    from mpq.report.forecast.sizes import predict
    from mpq.report.tables.system import models_of

    path = chosen.root / FILE
    shapes = {exp: shapes for model in models_of("paper") for exp, shapes in predict(model)}
    write_shapes(path, shapes)
    print(f"{path}: {len(shapes)} systems\nNow: python scripts/tables.py table=compression scale=paper")


if __name__ == "__main__":
    main()

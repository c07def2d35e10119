"""Work out how small the models of the paper become, from shapes alone, and keep it for the tables.

usage: python scripts/sizes.py [root=experiments]

  root  where paper_sizes.json goes, which `python scripts/tables.py scale=paper` shows

Takes seconds; nothing is downloaded.
"""

import sys
from pathlib import Path

from mpq.cli import guarded, key_values


@guarded
def main(words: list[str]) -> None:
    """Predict every planned row of the models of scale paper, and write them."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    path = Path(key_values(words, {"root": "experiments"})["root"])
    from mpq.record.shapes import FILE, write_shapes  # here, since torch takes seconds that --help need not wait for
    from mpq.report.forecast.sizes import predict
    from mpq.report.tables.system import models_of

    shapes = {exp: shapes for model in models_of("paper") for exp, shapes in predict(model)}
    write_shapes(path / FILE, shapes)
    print(f"{path / FILE}: {len(shapes)} systems\nNow: python scripts/tables.py table=compression scale=paper")


if __name__ == "__main__":
    main(sys.argv[1:])

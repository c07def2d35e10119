"""Regenerate the tables and figures from the records: tables.md, tables/, figures/ and the blocks of README.md.

The same records give the same bytes; no model is loaded.
"""

from dataclasses import dataclass
from pathlib import Path

from mpq.cli import command, option
from mpq.files import check_folder


@dataclass(frozen=True)
class Options:
    """Which records."""

    root: Path = option(
        Path("experiments"), "a folder of records, <root>/<name>/seed<k>/result.json; the output goes there too"
    )


@command(Options)
def main(chosen: Options) -> None:
    """Write everything and print the paths of the files."""
    check_folder(chosen.root)
    from mpq.report.overview import write_overview  # here, since matplotlib takes seconds that --help need not wait for

    for path in write_overview(chosen.root):
        print(path)


if __name__ == "__main__":
    main()

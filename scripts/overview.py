"""Write the tables and pictures of the records again: tables.md, tables/, figures/ and the blocks of README.md.

usage: python scripts/overview.py [root=experiments]

  root  a folder of records, <root>/<name>/seed<k>/result.json; what is written goes there, too

The same records give the same bytes; no model is loaded.
"""

import sys

from mpq.cli import guarded, key_values


@guarded
def main(words: list[str]) -> None:
    """Write all and name the files."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    root = key_values(words, {"root": "experiments"})["root"]
    from mpq.report.overview import write_overview  # here, since matplotlib takes seconds that --help need not wait for

    for path in write_overview(root):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])

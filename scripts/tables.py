"""Print tables of finished runs from their records; no model is loaded.

usage: python scripts/tables.py [table=all] [scale=tiny] [root=experiments] [format=terminal]

  table   a file of conf/table, without .yaml: compression, significance, time, all of the three; records is every run
  scale   tiny, mini or paper: whose models the three tables show
  root    a folder of records, <root>/<name>/seed<k>/result.json
  format  terminal, markdown, latex (booktabs) or csv

example: python scripts/tables.py table=time scale=paper format=markdown
"""

import sys

from mpq.cli import guarded, key_values
from mpq.conf import CONF

DEFAULTS = {"table": "all", "scale": "tiny", "root": "experiments", "format": "terminal"}


@guarded
def main(words: list[str]) -> None:
    """Read the words `key=value` and print the table."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    choices = key_values(words, DEFAULTS)
    from mpq.report.tables.show import show_table  # here, since pandas takes a second that --help need not wait for

    show_table(choices["table"], CONF / "table", choices["root"], choices["format"], choices["scale"])


if __name__ == "__main__":
    main(sys.argv[1:])

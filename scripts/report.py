"""Write what is known of finished runs as HTML pages that need nothing else, from their records; no model is loaded.

usage: python scripts/report.py run=FOLDER
       python scripts/report.py [root=experiments]

  run   a run's folder, <root>/<name>/seed<k>: writes its report.html
  root  a folder of records: writes the page of every run, and <root>/report.html with tables and pictures of all

example: python scripts/report.py run=experiments/tiny_wav2vec2_3p5bit/seed0
"""

import sys

from mpq.cli import guarded, key_values
from mpq.errors import UserError


@guarded
def main(words: list[str]) -> None:
    """Read the words `key=value`, write the pages and print their paths."""
    if {"-h", "--help"} & set(words):
        return print(__doc__)
    chosen = key_values(words, {"run": "", "root": ""})
    if chosen["run"] and chosen["root"]:
        raise UserError("run= is one run and root= all of them: give one of the two")
    if chosen["run"]:
        from mpq.report.page.run_page import write_run_page  # here, since --help need not wait for it

        return print(write_run_page(chosen["run"]))
    from mpq.report.page.sweep_page import write_sweep_page

    print(write_sweep_page(chosen["root"] or "experiments"))


if __name__ == "__main__":
    main(sys.argv[1:])

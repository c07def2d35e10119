"""Write self-contained HTML pages about finished runs from their records; no model is loaded.

example: python scripts/report.py run=experiments/tiny_wav2vec2_3p5bit/seed0
"""

from dataclasses import dataclass
from pathlib import Path

from mpq.cli import command, option
from mpq.errors import UserError
from mpq.files import check_folder


@dataclass(frozen=True)
class Options:
    """One run, or all."""

    run: Path | None = option(None, "a run's folder, <root>/<name>/seed<k>: writes its report.html")
    root: Path | None = option(
        None,
        "a folder of records: writes the page of every run, and <root>/report.html with tables and figures of all; "
        "default: experiments",
    )


@command(Options)
def main(chosen: Options) -> None:
    """Write the pages and print the path of the one to open first."""
    if chosen.run and chosen.root:
        raise UserError("run= is one run and root= all of them: give only one of the two")
    check_folder(chosen.run or chosen.root or "experiments")
    if chosen.run:
        from mpq.report.page.run_page import write_run_page  # here, since --help need not wait for it

        return print(write_run_page(chosen.run))
    from mpq.report.page.sweep_page import write_sweep_page

    print(write_sweep_page(chosen.root or "experiments"))


if __name__ == "__main__":
    main()

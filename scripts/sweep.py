"""Run the rows of a table that have no record yet; if a row fails, the others still run.

hydra/launcher=joblib, submitit_local, slurm_gpu or ray_gpu (conf/hydra/launcher) runs rows in parallel. To install
these launchers: pip install -e '.[cluster]', for Ray '.[ray]'.

example: python scripts/sweep.py table=updates model=tiny_wav2vec2 list=true
"""

import sys
from dataclasses import dataclass

from mpq.cli import command, option, others


@dataclass(frozen=True)
class Options:
    """Which rows."""

    table: str = option("compression", "a file of conf/table that lists systems, without .yaml")
    model: tuple[str, ...] = option(("tiny_wav2vec2", "tiny_hubert"), "files of conf/model, without .yaml")
    root: str = option("experiments", "the folder for the records, <root>/<name>/seed<k>/result.json")
    list: bool = option(False, "only print the commands of the rows that would run")
    word: tuple[str, ...] = others(
        "other settings of scripts/run.py, for all rows: data.root=FOLDER, trainer.devices=2"
    )


@command(Options)
def main(chosen: Options) -> int:
    """Run the missing rows, then report failures; return the exit status."""
    from mpq.commands import script, setting  # here, since it takes seconds that --help need not wait for
    from mpq.report.tables.planned import planned
    from mpq.sweep import is_hydras, sweep, unfinished

    names, root = [word for word in chosen.word if not is_hydras(word)], setting("root", chosen.root)
    rows = [row for model in chosen.model for row in planned(chosen.table, model, names)]
    if chosen.list:
        for row in unfinished(rows, [*chosen.word, root]):
            print(script("run", *row.words, root))
        return 0
    before, after, failed = sweep(rows, [*chosen.word, root])
    print(f"{len(before)} rows were finished before, {len(after)} are now, {len(failed)} failed")
    for failure in failed:
        log = f" ({failure.log})" if failure.log else ""
        print(f"  {failure.row.exp} seed {failure.row.seed}: {failure.reason}{log}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

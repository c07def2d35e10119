"""Run the rows of a table that have no record yet; a row that fails stops no other.

usage: python scripts/sweep.py [table=compression] [model=tiny_wav2vec2,tiny_hubert] [root=experiments] [WORD ...]

  table   a file of conf/table that lists systems, without .yaml
  model   files of conf/model, without .yaml
  root    where the records go, <root>/<name>/seed<k>/result.json
  --list  name the rows that would run, and run none
  WORD    any other word of scripts/run.py, for every row: data.root=FOLDER, trainer.devices=2, ...;
          hydra/launcher=joblib, submitit_local, slurm_gpu or ray_gpu (conf/hydra/launcher) runs rows side by side;
          these are installed by: pip install -e '.[cluster]', for Ray '.[ray]'

example: python scripts/sweep.py table=updates model=tiny_wav2vec2 --list
"""

import sys

from mpq.cli import guarded

DEFAULTS = {"table": "compression", "model": "tiny_wav2vec2,tiny_hubert", "root": "experiments"}


@guarded
def main(words: list[str]) -> int:
    """Run what is missing, then say what failed; return the exit status."""
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    from mpq.report.tables.planned import planned  # here, since it takes seconds that --help need not wait for
    from mpq.sweep import is_hydras, sweep, unfinished

    pairs = dict(word.split("=", 1) for word in words if word.split("=", 1)[0] in DEFAULTS)
    chosen = {**DEFAULTS, **pairs}
    more = [word for word in words if word != "--list" and word.split("=", 1)[0] not in DEFAULTS]
    names = [word for word in more if not is_hydras(word)]
    rows = [row for model in chosen["model"].split(",") for row in planned(chosen["table"], model, names)]
    more.append(f"root={chosen['root']}")
    if "--list" in words:
        for row in unfinished(rows, more):
            print("python scripts/run.py", *row.words, f"root={chosen['root']}")
        return 0
    before, after, failed = sweep(rows, more)
    print(f"{len(before)} rows were finished, {len(after)} are now, {len(failed)} failed")
    for failure in failed:
        print(
            f"  {failure.row.exp} seed {failure.row.seed}: {failure.reason}", f"({failure.log})" if failure.log else ""
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

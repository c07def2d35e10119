"""Run one experiment: `python scripts/run.py [+exp=ROW] [key=value ...]`; without arguments the tiny demo.

A finished run is shown again from its record; `overwrite=true` does it anew. `--help` lists the groups and the config.
"""

import hydra
from omegaconf import DictConfig

from mpq.script import guarded
from mpq.settings import CONF, register_resolvers

register_resolvers()


@guarded
@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Compress, evaluate, record, and show the row beside its baseline."""
    from mpq.pipeline import run  # here, since it takes seconds that --help need not wait for
    from mpq.record.folder import RunFolder
    from mpq.report.show import show_run

    result = run(cfg)
    if result is None:  # one of several processes, not the first
        return
    show_run(result, cfg.root, CONF / "table")
    folder = RunFolder(cfg.root, result.exp, result.seed)
    print(f"record      {folder.result}\nhypotheses  {folder.hypotheses}\nmodel       {folder.model}")


if __name__ == "__main__":
    main()

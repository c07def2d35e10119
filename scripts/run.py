"""Run one experiment: `python scripts/run.py [+exp=ROW] [key=value ...]`; without arguments the tiny demo.

A finished run is shown from its record; `overwrite=true` repeats it. `--help` lists the groups and the config.
"""

from contextlib import suppress

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mpq.conf import CONF
from mpq.errors import unused
from mpq.guard import guarded
from mpq.settings import register_resolvers
from mpq.sweep import run_row

register_resolvers()


@guarded
@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Compress, evaluate, write the record, and show the row beside its baseline."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_row(cfg)
    from mpq.pipeline import run  # here, since it takes seconds that --help need not wait for
    from mpq.record.identity import OF_STAGES
    from mpq.record.run_folder import RunFolder
    from mpq.report.page.run_page import write_run_page
    from mpq.report.tables.show import show_run

    if not cfg.recipe.stages:
        keys = {word.lstrip("+").partition("=")[0] for word in HydraConfig.get().overrides.task}
        given = sorted(key for key in keys if key.partition(".")[0] in OF_STAGES)
        unused(given, f"recipe={cfg.recipe.name} trains and quantizes nothing")
    result = run(cfg)
    if result is None:  # in all processes but the first
        return
    show_run(result, cfg.root, CONF / "table")
    folder = RunFolder.of(cfg.root, result)
    print(f"record      {folder.result}\nhypotheses  {folder.hypotheses}\nmodel       {folder.model}")
    with suppress(OSError):  # a finished run can be shown from a read-only folder too
        print(f"page        {write_run_page(folder.path)}")


if __name__ == "__main__":
    main()

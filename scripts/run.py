"""Run one experiment: `python scripts/run.py [+exp=ROW] [key=value ...]`; demo=true is the demo.

A finished run is shown from its record; `overwrite=true` repeats it. `--help` lists the groups and the config.
"""

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mpq.guard import guarded
from mpq.settings import register_resolvers
from mpq.sweep import run_row

register_resolvers()

DEMO = """\
The demo takes 3 to 5 minutes on two cores (3.5 minutes of processor time): it makes 2,000 utterances with eSpeak NG
(once, 1 minute), transcribes 400 of them with the 32-bit model, trains (1.5 minutes) and transcribes them again.
The full row, with all 9,200 utterances and 600 updates, takes three times as long: python scripts/run.py"""


@guarded
@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Compress, evaluate, write the record, and show the row beside its baseline."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_row(cfg)
    from mpq import checks  # here and below, since --help and mistakes need not wait for what these import

    cfg = checks.checked(cfg)
    checks.tell_unused(cfg, sorted({word.lstrip("+").partition("=")[0] for word in HydraConfig.get().overrides.task}))
    recordings = checks.recordings(cfg)
    checks.weights(cfg)
    result = checks.finished(cfg)
    if result is None:
        print(_ahead(cfg), flush=True)
        from mpq.pipeline import run_checked

        result = run_checked(cfg, recordings)
    if result is not None:  # None: a further process of a training on several devices
        from mpq.report.after_run import show

        show(result, cfg)


def _ahead(cfg: DictConfig) -> str:
    """What the run is about to do, and for the demo how long it takes."""
    updates = ", ".join(f"{name}: {stage.updates} updates" for name, stage in cfg.recipe.stages.items())
    return f"{cfg.exp}, seed {cfg.seed}: {updates or 'no training'}" + (f"\n{DEMO}" if cfg.demo else "")


if __name__ == "__main__":
    main()

"""Run one experiment: `python scripts/run.py [+exp=ROW] [key=value ...]`; without arguments the tiny demo."""

import hydra
from omegaconf import DictConfig

from mpq.script import guarded
from mpq.settings import register_resolvers

register_resolvers()


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Compress, evaluate, record, and show the row beside its baseline."""
    from mpq.pipeline import run

    print(run(cfg).wer)


if __name__ == "__main__":
    main()

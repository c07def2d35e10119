"""`python -m mpq.follower CONFIG`: a process that takes part in training; `mpq.train.launch` starts it."""

import os
import sys
import threading
import time

from omegaconf import DictConfig, OmegaConf

from mpq.guard import guarded


@guarded
def main(path: str) -> None:
    """Follow the run of the settled config in `path`."""
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    from mpq.pipeline import follow

    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    follow(cfg)


def _end_with(parent: int) -> None:
    """End when the first process is gone, even if this one hangs waiting for it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])

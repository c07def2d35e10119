"""Whole runs of a very small model on a few seconds of speech: the command line, the config, the script itself."""

import os
import runpy
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from mpq.conf import CONF, REPOSITORY
from mpq.settings import register_resolvers

SCRIPT = REPOSITORY / "scripts" / "run.py"


def words(root: Path, model_folder: Path, speech_folder: Path, *more: str) -> list[str]:
    """The command line of a tiny run with its records below `root`."""
    return [
        "model=tiny_wav2vec2",
        f"model.path={model_folder}",
        f"data.root={speech_folder}",
        "data.train=[train]",
        "data.test=[clean]",
        "trainer.updates=12",
        "trainer.interval=2",
        "trainer.audio_seconds=3",
        "trainer.accelerator=cpu",
        f"root={root}",
        f"cache={root}/cache",
        *more,
    ]


def composed(*overrides: str) -> DictConfig:
    """The config that the command line `overrides` makes."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "HYDRA"))}
    return {**kept, "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}


def run_here(monkeypatch, *command: str, script: Path = SCRIPT) -> int:
    """Run the script in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", [str(script), *command])
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0

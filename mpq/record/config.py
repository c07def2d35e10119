"""Reading back the settings that a run was made with, its `config.yaml`."""

from pathlib import Path
from typing import Any

from mpq.errors import UserError

_SECTIONS = ("model", "data", "trainer")


def read_config(run: Path) -> Any:
    """The DictConfig of the run in the folder `run`, `<root>/<exp>/seed<k>`.

    Raises: UserError where there is none, or it is damaged or no run's.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    file = run / "config.yaml"
    if not file.is_file():
        raise UserError(f"{run} is not a run's folder: config.yaml is missing")
    try:
        found = OmegaConf.load(file)
    except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{file} is damaged: {' '.join(str(error).split())}") from None
    if not isinstance(found, DictConfig) or any(not isinstance(found.get(key), DictConfig) for key in _SECTIONS):
        raise UserError(f"{file} is damaged: it must have the sections {', '.join(_SECTIONS)}")
    return found

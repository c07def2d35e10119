"""What lies in `conf/`, as plain values: for whoever asks about a model without composing a run's whole config."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from mpq.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"


def read(group: str, name: str) -> dict[str, Any]:
    """The values of `conf/<group>/<name>.yaml`, what it takes from other files not among them; none without a file."""
    path = CONF / group / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def required(group: str, name: str) -> dict[str, Any]:
    """As `read`; raises UserError where there is no such file, listing those there are."""
    if name not in names(group):
        raise UserError(f"there is no {group}={name}; choose one of {', '.join(names(group))}")
    return read(group, name)


def names(group: str) -> list[str]:
    """The files of `conf/<group>/`, without ending."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def model(name: str) -> dict[str, Any]:
    """The settings `model.*` of a model of `conf/model/`; none where it is not one of them."""
    return read("model", name).get("model", {})


def composing() -> AbstractContextManager[None]:
    """Let Hydra's `compose` take its files from `conf/` while the block runs."""
    from hydra import initialize_config_dir  # here, since whoever reads a file need not wait for it

    return initialize_config_dir(str(CONF), version_base="1.3")


def made(settings: Mapping[str, Any], **more: Any) -> Any:
    """Make the object that `settings` of a search or a calibration describe.

    `_target_` is its class, the rest its constructor's arguments, with `more` of them; `name` is for records alone.
    """
    from hydra.utils import instantiate  # here, since what it imports takes seconds

    return instantiate({key: value for key, value in {**settings, **more}.items() if key != "name"}, _convert_="all")


def data_of(model_name: str) -> dict[str, Any]:
    """The values of the data group that a model of `conf/model/` brings; none where it brings none."""
    group = next((entry["/data"] for entry in read("model", model_name).get("defaults", ()) if "/data" in entry), None)
    return read("data", group) if group else {}

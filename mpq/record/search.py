"""What each stage's precision search learned, `search.json`: scores a site, and how probabilities and loss went.

Apart from the assignment (`bits.json`), since this is what pictures are drawn from and what another budget can be
decided from afterwards, with no model and no training log at hand.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mpq.errors import UserError
from mpq.files import write_text
from mpq.record.fields import STRICT, parse

Rows = tuple[tuple[float, ...], ...]  # [S, C]: a row a site, a number a candidate


@dataclass(frozen=True)
class Snapshot:
    """The search after `update` updates: the mean training loss since the last snapshot, and while precisions are open
    the temperature, the expected average bits and each site's `probabilities` [S, C], without Gumbel noise.
    """

    update: int
    loss: float | None = None
    temperature: float | None = None
    expected_bits: float | None = None
    probabilities: Rows | None = None


@dataclass(frozen=True)
class StageSearch:
    """One stage: `method` is a name of `mpq/search/`, `target` the average bits asked for.

    `sites` and `parameters` name the searched weights and count them; `logits` [S, C] with their last `temperature` are
    a Gumbel search's, `sensitivity` [S, C] a measured one's.
    """

    name: str
    method: str
    candidates: tuple[int, ...]
    target: float
    sites: tuple[str, ...]
    parameters: tuple[int, ...]
    trajectory: tuple[Snapshot, ...] = ()
    logits: Rows | None = None
    temperature: float | None = None
    sensitivity: Rows | None = None
    __pydantic_config__ = STRICT


def write_search(path: Path | str, stages: Sequence[StageSearch]) -> None:
    """Write the stages to `path`, a line each."""
    lines = ",\n".join(json.dumps(asdict(stage), allow_nan=False) for stage in stages)
    write_text(path, f"[\n{lines}\n]\n")


def read_search(path: Path | str) -> tuple[StageSearch, ...]:
    """Read what `write_search` wrote.

    Raises: UserError where there is no such file or it is damaged.
    """
    try:
        stages = parse(tuple[StageSearch, ...], Path(path).read_text(encoding="utf-8"), "stages")
        for number, stage in enumerate(stages):
            _check_shapes(stage, f"stages[{number}]")
        return stages
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; a run keeps there what its search learned, so run it again"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; run its experiment again") from error


def _check_shapes(stage: StageSearch, where: str) -> None:
    """Raise ValueError unless `stage` has a row a site and a number a candidate."""
    shape = [len(stage.candidates)] * len(stage.sites)
    for name, rows in (("logits", stage.logits), ("sensitivity", stage.sensitivity)):
        if rows is not None and [len(row) for row in rows] != shape:
            raise ValueError(f"{where}.{name} must have a row for each site and a number for each candidate")
    if len(stage.parameters) != len(stage.sites):
        raise ValueError(f"{where}.parameters must have a number for each site")

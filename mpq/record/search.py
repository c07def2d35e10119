"""What each stage's precision search learned, `search.json`: scores per site, probabilities and loss over time.

It is separate from the assignment (`bits.json`): figures are drawn from it, and another budget can be allocated from it
later, without the model or the training log.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpq.errors import UserError
from mpq.files import write_text
from mpq.record.fields import STRICT, parse

Rows = tuple[tuple[float, ...], ...]  # [S, C]: one row per site, one number per candidate


@dataclass(frozen=True)
class Snapshot:
    """The state of the search after `update` updates.

    `loss`: mean training loss since the last snapshot. While precisions are undecided, also the temperature, the
    expected average bits and each site's `probabilities` [S, C], without Gumbel noise.
    """

    update: int
    loss: float | None = None
    temperature: float | None = None
    expected_bits: float | None = None
    probabilities: Rows | None = None


@dataclass(frozen=True)
class StageSearch:
    """One stage: `method` is a name in `mpq/search/`, `target` the requested average bits.

    `sites` and `parameters` are the names and sizes of the searched weights. A Gumbel search has `logits` [S, C] and
    their last `temperature`, a measured one `sensitivity` [S, C]. Learned steps have `rates` and `zeros` [S]: the
    bits a weight that each site's codes take in the file, which `target` counts, too, and the share that is zero.
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
    rates: tuple[float, ...] | None = None
    zeros: tuple[float, ...] | None = None
    __pydantic_config__ = STRICT


def write_search(path: Path | str, stages: Sequence[StageSearch]) -> None:
    """Write the stages to `path`, one per line."""
    lines = ",\n".join(json.dumps(_content(stage), allow_nan=False) for stage in stages)
    write_text(path, f"[\n{lines}\n]\n")


def _content(stage: StageSearch) -> dict[str, Any]:
    """The fields of a stage; only learned steps have the last two."""
    return {key: value for key, value in asdict(stage).items() if key not in ("rates", "zeros") or value is not None}


def read_search(path: Path | str) -> tuple[StageSearch, ...]:
    """Read what `write_search` wrote.

    Raises: UserError if there is no such file or it is damaged.
    """
    try:
        stages = parse(tuple[StageSearch, ...], Path(path).read_text(encoding="utf-8"), "stages")
        for number, stage in enumerate(stages):
            _check_shapes(stage, f"stages[{number}]")
        return stages
    except OSError as error:
        raise UserError(f"cannot read {path}, a run's record of its search: {error.strerror}; run it again") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; run its experiment again") from error


def _check_shapes(stage: StageSearch, where: str) -> None:
    """Raise ValueError unless `stage` has one row per site and one number per candidate."""
    shape = [len(stage.candidates)] * len(stage.sites)
    for name, rows in (("logits", stage.logits), ("sensitivity", stage.sensitivity)):
        if rows is not None and [len(row) for row in rows] != shape:
            raise ValueError(f"{where}.{name} must have one row per site and one number per candidate")
    for name in ("parameters", "rates", "zeros"):
        numbers = getattr(stage, name)
        if numbers is not None and len(numbers) != len(stage.sites):
            raise ValueError(f"{where}.{name} must have one number per site")

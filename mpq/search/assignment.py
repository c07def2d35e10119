"""The precision assignment: the number of bits of each searched site.

A plain dict, so that it maps to JSON without a class; `check` is called wherever one comes in from outside.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpq.errors import UserError
from mpq.files import write_text

if TYPE_CHECKING:  # tables and pages read assignments without PyTorch
    from mpq.quant.sites import Site

Assignment = dict[str, int]


def average_bits(assignment: Mapping[str, int], sites: "Sequence[Site]") -> float:
    """Return the average bits per weight over `sites`, weighted by parameter count.

    A single division of two integers is correctly rounded: a total within the budget is never reported as above it.

    Raises:
        UserError: a site is missing from the assignment, or the assignment names an unknown site.
    """
    check(assignment, sites)
    return sum(site.numel * assignment[site.name] for site in sites) / sum(site.numel for site in sites)


def check(assignment: Mapping[str, int], sites: "Sequence[Site]", candidates: Sequence[int] = range(1, 9)) -> None:
    """Refuse an assignment that does not give every site of `sites`, and nothing else, one of `candidates` (bits).

    Raises:
        UserError: naming the sites that are unknown, missing, or at bits outside the candidates.
    """
    names = {site.name for site in sites}
    if unknown := [name for name in assignment if name not in names]:
        raise UserError(f"assignment names sites that the model does not have: {_listed(unknown)}")
    if missing := [site.name for site in sites if site.name not in assignment]:
        raise UserError(f"assignment gives no bits for these sites of the model: {_listed(missing)}")
    outside = [f"{name}={bits!r}" for name, bits in assignment.items() if not _is_one_of(bits, candidates)]
    if outside:
        raise UserError(f"assignment has bits outside the candidates {list(candidates)}: {_listed(outside)}")


def to_json(assignment: Mapping[str, int], path: Path | str) -> None:
    """Write `assignment` to `path` as one JSON object, site name to bits, in the order of the sites."""
    write_text(path, json.dumps(dict(assignment), indent=1) + "\n")


def from_json(path: Path | str) -> Assignment:
    """Read an assignment that `to_json` wrote; `check` it against the model's sites before use.

    Raises:
        UserError: there is no such file, or it is not a JSON object of site names and whole bits.
    """
    try:
        loaded = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the assignment {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"the assignment {path} is not JSON: {error}") from error
    if not isinstance(loaded, dict) or not all(type(bits) is int for bits in loaded.values()):
        raise UserError(f'the assignment {path} must be an object of site names and whole bits, like {{"a.weight": 4}}')
    return loaded


def _is_one_of(bits: object, candidates: Sequence[int]) -> bool:
    return type(bits) is int and bits in candidates  # JSON's true would pass as 1


def _listed(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

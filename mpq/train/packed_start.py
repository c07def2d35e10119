"""Starting a stage from a packed model: to train it further, or at other precisions (`scripts/rebudget.py`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mpq.checkpoint.requantize import load_quantized, requantize
from mpq.errors import UserError
from mpq.quant.sites import find_sites, quantizers_of
from mpq.search.assignment import Assignment, check


def packed_start(
    folder: Path, assignment: Mapping[str, int] | None, teacher: nn.Module, searched: str, settings: Mapping[str, Any]
) -> tuple[nn.Module, Assignment]:
    """The packed model of `folder` with quantizers attached, and the precisions of its `searched` sites.

    With an `assignment` these are the precisions it gets. A site whose precision changes starts from the `teacher`'s
    weight, rounded; the others keep their codes and scales. `settings` are those of `attach` for new quantizers.

    Raises: UserError where the folder or the assignment is not of the teacher's model.
    """
    model, _ = load_quantized(folder)
    sites = [site for site in find_sites(model, searched) if site.searched]
    shapes = {name: tuple(parameter.shape) for name, parameter in teacher.named_parameters()}
    if strange := [site.name for site in sites if shapes.get(site.name) != site.shape]:
        raise UserError(f"{folder} is not a compressed form of this model: that has no {strange[0]} of the same shape")
    if assignment is not None:
        check(assignment, sites)
        weights = {site.name: teacher.get_parameter(site.name).detach() for site in sites}
        requantize(model, assignment, weights, **settings)
    bits = {name: quantizer.bits for name, quantizer in quantizers_of(model).items()}
    return model, {site.name: bits[site.name] or 0 for site in sites}

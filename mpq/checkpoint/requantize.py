"""Reattaches quantizers to a packed model, to train it further or change its precisions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mpq.checkpoint.format import scale_name
from mpq.checkpoint.packed import load_packed, read_folder
from mpq.errors import UserError
from mpq.quant.places import Place, tensor_places
from mpq.quant.quantizer import LSQ, QuantizerSettings, WeightQuantizer
from mpq.quant.rules import Granularity
from mpq.quant.sites import find_sites, quantizers_of
from mpq.search.assignment import Assignment, check


def load_quantized(folder: Path | str) -> tuple[PreTrainedModel, Any]:
    """Return the packed model in `folder` with quantizers attached (same codes and scales), and its processor.

    Its float weights are the quantized ones: the weights before rounding are not in the file.

    Raises: UserError as `load_packed` does.
    """
    model, processor = load_packed(folder)
    _, sites, _, stored = read_folder(Path(folder))
    for places in list(tensor_places(model)):
        if (site := sites.get(places[0].name)) is not None:
            scale, weight = stored[scale_name(places[0].name)], places[0].weight
            granularity: Granularity = "per_channel" if scale.shape[0] == weight.shape[0] else "per_tensor"
            # minmax is the fastest clipping; its scales are replaced at once.
            settings = QuantizerSettings(granularity, site.offset != 0, "minmax")
            quantizer = WeightQuantizer(weight, [site.bits], settings)
            with torch.no_grad():
                quantizer.log_scales.copy_(scale.log()[None])
            _register(places, quantizer)
    return model, processor


def requantize(
    model: nn.Module,
    assignment: Mapping[str, int],
    weights: Mapping[str, Tensor],
    settings: QuantizerSettings = LSQ,
) -> list[str]:
    """Change the sites of `assignment` to its bits, in place; return those that changed.

    A site that changes starts from the float weight `weights[name]` and a new scale according to `settings`. All other
    sites stay unchanged.

    Raises: UserError if the model has no such quantized site.
    """
    if unknown := sorted(assignment.keys() - quantizers_of(model).keys()):
        raise UserError(f"the packed model has no site {unknown[0]}: the assignment was made for another model")
    changed = []
    for places in list(tensor_places(model)):
        name, quantizer = places[0].name, places[0].quantizer
        if name not in assignment or quantizer is None or quantizer.bits == assignment[name]:
            continue
        with torch.no_grad():
            places[0].weight.copy_(weights[name])
        for place in places:
            place.remove_quantizer()
        _register(places, WeightQuantizer(places[0].weight, [assignment[name]], settings))
        changed.append(name)
    return changed


def _register(places: list[Place], quantizer: WeightQuantizer) -> None:
    for place in places:
        place.add_quantizer(quantizer)


def packed_start(
    folder: Path, assignment: Mapping[str, int] | None, teacher: nn.Module, searched: str, settings: QuantizerSettings
) -> tuple[nn.Module, Assignment]:
    """Return the packed model in `folder` with quantizers attached, and the precisions of its `searched` sites.

    An `assignment` sets these precisions. A site whose precision changes starts from the `teacher`'s weight, rounded;
    the others keep their codes and scales. `settings`: for new quantizers.

    Raises: UserError if the folder or the assignment does not belong to the teacher's model.
    """
    model, _ = load_quantized(folder)
    sites = [site for site in find_sites(model, searched) if site.searched]
    shapes = {name: tuple(parameter.shape) for name, parameter in teacher.named_parameters()}
    if strange := [site.name for site in sites if shapes.get(site.name) != site.shape]:
        raise UserError(f"{folder} is not a compressed form of this model, which has no {strange[0]} of the same shape")
    if assignment is not None:
        check(assignment, sites)
        weights = {site.name: teacher.get_parameter(site.name).detach() for site in sites}
        requantize(model, assignment, weights, settings)
    bits = {name: quantizer.bits for name, quantizer in quantizers_of(model).items()}
    return model, {site.name: bits[site.name] or 0 for site in sites}

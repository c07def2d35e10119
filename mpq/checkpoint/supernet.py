"""Float weights with the scales of every candidate: what a model at any budget is read from.

A packed model has one precision for each weight and no float weights. A run whose recipe trained several precisions of
the same weights, or learned their steps, keeps this file, too. It is as large as the 32-bit model, and
scripts/rebudget.py reads it.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mpq.checkpoint.tensors import digest, stored_tensors
from mpq.errors import UserError
from mpq.files import replacing
from mpq.quant.quantizer import QuantizerSettings
from mpq.quant.sites import attach, find_sites, quantizers_of
from mpq.search.assignment import Assignment, check
from mpq.search.rate import WIDTH

_SCALES = "_log_scales"


def save_supernet(path: Path, model: nn.Module) -> None:
    """Write the float weights of `model` and the scales of its quantizers' candidates to `path`, whole or not at all.

    Raises: UserError if the file can't be written.
    """
    candidates = {name: list(quantizer.candidates) for name, quantizer in quantizers_of(model).items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stored_tensors(model)[0].items()}
    for name, quantizer in quantizers_of(model).items():
        tensors[name + _SCALES] = quantizer.log_scales.detach().cpu().contiguous()
    metadata = {"candidates": json.dumps(candidates), "sha256": digest({"sites": candidates}, tensors)}
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} can't be written: {error}") from None


def supernet_start(
    path: Path, assignment: Mapping[str, int] | None, teacher: nn.Module, searched: str, settings: QuantizerSettings
) -> tuple[nn.Module, Assignment]:
    """Return the model at `assignment` with quantizers attached, and the precisions of its `searched` sites.

    `assignment`: None for a run with learned steps, which are then those of codes of `WIDTH` bits, in whatever bits the
    run stored them. `teacher`: a copy of the run's teacher, changed in place. settings: those of the run's quantizers.

    Raises: UserError if the file is damaged or another model's, or the assignment has bits that are no candidate.
    """
    candidates, tensors = _read(path)
    sites = find_sites(teacher, searched)
    chosen = [site for site in sites if site.searched]
    if assignment is not None:
        check(assignment, chosen)
    given = assignment or {site.name: WIDTH for site in chosen}
    # minmax is the fastest clipping; the scales are replaced at once
    quantizers = attach(teacher, sites, given, replace(settings, clipping="minmax"))
    weights, stored = stored_tensors(teacher)[0], dict(tensors)
    scales = {name: stored.pop(name + _SCALES, None) for name in quantizers}
    if {name: weight.shape for name, weight in weights.items()} != {name: t.shape for name, t in stored.items()}:
        raise UserError(f"{path} holds the weights of another model than the one that the run's config names")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(stored[name])
        for name, quantizer in quantizers.items():
            (bits,), found, has = quantizer.candidates, scales[name], candidates.get(name, [])
            if assignment is None and len(has) == 1:
                (bits,) = has
            if found is None or bits not in has:
                raise UserError(f"{path} has no {bits} bits for {name}: it has {has}")
            quantizer.log_scales.copy_(found[has.index(bits)][None])
    return teacher, dict(given)


def _read(path: Path) -> tuple[dict[str, list[int]], dict[str, Tensor]]:
    """Return the candidates of each site and all tensors."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        candidates = json.loads(metadata["candidates"])
        if metadata["sha256"] != digest({"sites": candidates}, tensors):
            raise ValueError("its checksum differs")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path} can't be read or is damaged ({error}): run its experiment again") from None
    return candidates, tensors

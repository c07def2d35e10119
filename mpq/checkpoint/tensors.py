"""A model's tensors under plain names; a packed file's tensors, checked before memory is allocated; digests.

`state_dict()` would work for a plain model, but with a quantizer it names a weight
`x.parametrizations.weight.original` and lists the quantizer's own parameters; a file has only plain names.

safetensors itself rejects a header whose tensors don't fill the file exactly, so a file never declares more than it
contains; here config.json is compared with the header.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpq.checkpoint.coding import check_coded
from mpq.checkpoint.format import CODED_VERSION, PackedSite, canonical, coded_name, packed_name, scale_name
from mpq.errors import UserError
from mpq.quant.quantizer import WeightQuantizer


def digest(block: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the block's sites, ties, activations and of every tensor's name, dtype, shape and bytes.

    It does not depend on the order in the file, so it still matches after another program has saved the tensors again.
    """
    declared = [block[key] for key in ("format_version", "sites", "tied", "activations") if key in block]
    hasher = hashlib.sha256(canonical(declared))
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        hasher.update(f"\n{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def read_tensors(path: Path, sites: Mapping[str, PackedSite], block: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read every tensor of the safetensors file `path` as it is stored (codes packed or coded).

    Raises:
        UserError: the file is truncated or damaged, a site's tensors are missing or do not fit its declared bits and
            shape, or a scale is not a positive finite number.
    """
    may_be_coded = block["format_version"] == CODED_VERSION
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = set(file.keys())
            for name, site in sites.items():
                _check_site(name, site, file, names, may_be_coded)
            tensors = {name: file.get_tensor(name) for name in sorted(names)}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or truncated: {error}") from error
    if digest(block, tensors) != block.get("sha256"):
        raise UserError(f"{path} is damaged: its checksum differs from the one in config.json; copy the folder again")
    for name, site in sites.items():
        check_scale(name, tensors[scale_name(name)])
        if coded_name(name) in tensors:
            check_coded(name, tensors[coded_name(name)].numpy(), site)
    return tensors


def read_tensor(path: Path, name: str) -> Tensor:
    """Read one tensor of a file that `read_tensors` has checked."""
    with safe_open(path, framework="pt", device="cpu") as file:
        return file.get_tensor(name)


def check_scale(site: str, scale: Tensor) -> None:
    """Refuse a scale with anything but positive finite numbers."""
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise UserError(f"the scale of {site} must be positive and finite, but holds values from {scale.min()} on")


def _check_site(name: str, site: PackedSite, file: Any, names: set[str], may_be_coded: bool) -> None:
    coded = may_be_coded and coded_name(name) in names
    if coded and packed_name(name) in names:
        raise UserError(f"the file holds {name} in more than one form")
    for key in (coded_name(name) if coded else packed_name(name), scale_name(name)):
        if key not in names:
            raise UserError(f"the tensor {key} is missing")
    codes, scale = file.get_slice(coded_name(name) if coded else packed_name(name)), file.get_slice(scale_name(name))
    if coded and (codes.get_dtype() != "U8" or len(codes.get_shape()) != 1):
        raise UserError(
            f"{coded_name(name)} must be uint8 of one dimension, but is {codes.get_dtype()} of shape "
            f"{codes.get_shape()}"
        )
    if not coded and (codes.get_dtype() != "U8" or list(codes.get_shape()) != [site.packed_bytes]):
        raise UserError(
            f"{packed_name(name)} must hold {math.prod(site.shape)} codes of {site.bits} bits "
            f"in {site.packed_bytes} bytes, but is {codes.get_dtype()} of shape {codes.get_shape()}"
        )
    if scale.get_dtype() != "F32" or tuple(scale.get_shape()) not in site.scale_shapes:
        raise UserError(
            f"{scale_name(name)} must be float32 of shape {' or '.join(map(str, site.scale_shapes))}, "
            f"but is {scale.get_dtype()} of shape {scale.get_shape()}"
        )


def stored_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return every parameter and persistent buffer by plain name, and the ties.

    A quantized weight is the float weight under its quantizer. A parameter that several modules share is listed once,
    under its first name in the module order; the ties map each other name to that one.
    """
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in _named_tensors(model):
        if name in tensors or name in tied:
            continue
        source = first.setdefault(id(tensor), name)
        if source == name:
            tensors[name] = tensor
        else:
            tied[name] = source
    return tensors, tied


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, counting shared ones once and omitting those of quantizers.

    For a float model's figures, count before attaching quantizers: attaching folds a weight norm, whose gains (128
    numbers in wav2vec2 and HuBERT) then no longer exist.
    """
    return sum(tensor.numel() for tensor in stored_tensors(model)[0].values() if isinstance(tensor, nn.Parameter))


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's parameters and buffers with their names, in hexadecimal."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(stored_tensors(model)[0].items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        hasher.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def put_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Make `tensor` the parameter or buffer `name` of a plain model; an `nn.Parameter` is stored as the same object."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._buffers:
        module._buffers[leaf] = tensor
    else:
        module._parameters[leaf] = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        if "parametrizations" in prefix.split("."):
            continue  # reached through its module, below
        dot = f"{prefix}." if prefix else ""
        for name, tensor in module._parameters.items():
            if tensor is not None:
                yield dot + name, tensor
        for name, tensor in module._buffers.items():
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield dot + name, tensor
        if parametrize.is_parametrized(module):
            yield from _parametrized(dot, module)


def _parametrized(dot: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    assert isinstance(module.parametrizations, nn.ModuleDict)
    for name, chain in module.parametrizations.items():
        if isinstance(chain[0], WeightQuantizer):  # type: ignore[index]
            yield dot + name, chain.original  # type: ignore[misc]
        else:
            # Another parametrization (weight norm) has several tensors, each a separate parameter.
            yield from ((f"{dot}parametrizations.{name}.{key}", value) for key, value in chain.named_parameters())

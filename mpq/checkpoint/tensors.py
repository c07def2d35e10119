"""The tensors of a packed folder: reading them with every check made before memory is taken, and their digest.

safetensors itself refuses a header whose tensors don't fill the file exactly, so what the file declares never exceeds
what it holds; what config.json declares is compared with that here.
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mpq.checkpoint.config_file import canonical
from mpq.checkpoint.format import PackedSite, packed_name, scale_name
from mpq.errors import UserError


def digest(block: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the block's sites, ties, activations and of every tensor's name, dtype, shape and bytes.

    It is independent of the order in the file, so that it holds after another program has saved the tensors again.
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
    """Read every tensor of the safetensors file `path` as it is stored (codes packed).

    Raises:
        UserError: the file is truncated or damaged, a site's tensors are missing or do not fit its declared bits and
            shape, or a scale is not a positive finite number.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = set(file.keys())
            for name, site in sites.items():
                _check_site(name, site, file, names)
            tensors = {name: file.get_tensor(name) for name in sorted(names)}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or truncated: {error}") from error
    if digest(block, tensors) != block.get("sha256"):
        raise UserError(f"{path} is damaged: its checksum is not the one that config.json holds; copy the folder again")
    for name in sites:
        check_scale(name, tensors[scale_name(name)])
    return tensors


def check_scale(site: str, scale: Tensor) -> None:
    """Refuse a scale that holds anything but positive finite numbers."""
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise UserError(f"the scale of {site} must be positive and finite, but holds values from {scale.min()} on")


def _check_site(name: str, site: PackedSite, file: Any, names: set[str]) -> None:
    for key in (packed_name(name), scale_name(name)):
        if key not in names:
            raise UserError(f"the tensor {key} is missing")
    packed, scale = file.get_slice(packed_name(name)), file.get_slice(scale_name(name))
    if packed.get_dtype() != "U8" or list(packed.get_shape()) != [site.packed_bytes]:
        raise UserError(
            f"{packed_name(name)} must hold {math.prod(site.shape)} codes of {site.bits} bits "
            f"in {site.packed_bytes} bytes, but is {packed.get_dtype()} of shape {packed.get_shape()}"
        )
    if scale.get_dtype() != "F32" or tuple(scale.get_shape()) not in site.scale_shapes:
        raise UserError(
            f"{scale_name(name)} must be float32 of shape {' or '.join(map(str, site.scale_shapes))}, "
            f"but is {scale.get_dtype()} of shape {scale.get_shape()}"
        )
